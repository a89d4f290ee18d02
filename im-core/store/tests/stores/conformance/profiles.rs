//! Profiles: each part replaced whole, and apart from everybody else's.

use super::cases;
use crate::servers::Scratch;
use im_store::{ArchivePreferences, DefaultPolicy, LastActivity, Profiles, StoreError};

cases!(
    documents_are_replaced,
    block_lists_are_sets,
    preferences_are_replaced_whole,
    last_activity_is_the_last,
    a_rule_goes_before_the_default,
);

async fn documents_are_replaced(scratch: Scratch) {
    let store = scratch.open().await;
    assert_eq!(store.vcard("ann@x").await.unwrap(), None);
    let large = format!("<vCard xmlns='vcard-temp'><PHOTO>{}</PHOTO>😀</vCard>", "a".repeat(300_000));
    for xml in ["<vCard/>", &large] {
        store.set_vcard("ann@x", xml).await.unwrap();
        assert_eq!(store.vcard("ann@x").await.unwrap().as_deref(), Some(xml));
    }
    assert_eq!(store.vcard("bob@x").await.unwrap(), None);

    store.set_private_xml("ann@x", "storage", "storage:bookmarks", "<storage/>").await.unwrap();
    store.set_private_xml("ann@x", "storage", "other", "<other/>").await.unwrap();
    store.set_private_xml("ann@x", "storage", "storage:bookmarks", "<new/>").await.unwrap();
    let read =
        async |element: &str, namespace: &str| store.private_xml("ann@x", element, namespace).await.unwrap();
    assert_eq!(read("storage", "storage:bookmarks").await.as_deref(), Some("<new/>"));
    assert_eq!(read("storage", "other").await.as_deref(), Some("<other/>"));
    assert_eq!(read("Storage", "other").await, None);
    let error = store.set_private_xml("ann@x", "e", &"n".repeat(256), "<e/>").await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    let error = store.set_vcard("ann@x", "a\0b").await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
}

async fn block_lists_are_sets(scratch: Scratch) {
    let store = scratch.open().await;
    let list = |addresses: &[&str]| addresses.iter().map(|address| (*address).to_owned()).collect::<Vec<_>>();
    store.block("ann@x", &list(&["carl@x", "bob@x"])).await.unwrap();
    store.block("ann@x", &list(&["bob@x", "spam.example"])).await.unwrap();
    assert_eq!(store.blocked("ann@x").await.unwrap(), list(&["bob@x", "carl@x", "spam.example"]));
    store.unblock("ann@x", &list(&["carl@x", "unknown@x"])).await.unwrap();
    assert_eq!(store.blocked("ann@x").await.unwrap(), list(&["bob@x", "spam.example"]));
    store.block("bob@x", &list(&["ann@x"])).await.unwrap();
    store.unblock("ann@x", &[]).await.unwrap();
    assert!(store.blocked("ann@x").await.unwrap().is_empty());
    assert_eq!(store.blocked("bob@x").await.unwrap(), list(&["ann@x"]));
}

async fn preferences_are_replaced_whole(scratch: Scratch) {
    let store = scratch.open().await;
    assert_eq!(store.archive_preferences("ann@x").await.unwrap(), ArchivePreferences::default());
    let first = ArchivePreferences {
        default: DefaultPolicy::Roster,
        always: vec!["a@x".into(), "b@x/r".into()],
        never: vec!["c@x".into()],
    };
    store.set_archive_preferences("ann@x", &first).await.unwrap();
    assert_eq!(store.archive_preferences("ann@x").await.unwrap(), first);
    let second =
        ArchivePreferences { default: DefaultPolicy::Never, always: vec![], never: vec!["a@x".into()] };
    store.set_archive_preferences("ann@x", &second).await.unwrap();
    assert_eq!(store.archive_preferences("ann@x").await.unwrap(), second);
    assert_eq!(store.archive_preferences("bob@x").await.unwrap(), ArchivePreferences::default());
}

async fn last_activity_is_the_last(scratch: Scratch) {
    let store = scratch.open().await;
    assert_eq!(store.last_activity("ann@x").await.unwrap(), None);
    for activity in [
        LastActivity { at: 1_800_000_000_000, status: "gone 走了 😀".into() },
        LastActivity { at: 1_800_000_000_001, status: String::new() },
    ] {
        store.set_last_activity("ann@x", &activity).await.unwrap();
        assert_eq!(store.last_activity("ann@x").await.unwrap(), Some(activity));
    }
}

async fn a_rule_goes_before_the_default(_scratch: Scratch) {
    let preferences = ArchivePreferences {
        default: DefaultPolicy::Roster,
        always: vec!["a@x".into(), "b@x/home".into()],
        never: vec!["b@x".into()],
    };
    assert!(preferences.archives("a@x/r", "a@x", false));
    assert!(preferences.archives("b@x/home", "b@x", false));
    assert!(!preferences.archives("b@x/work", "b@x", true));
    assert!(preferences.archives("c@x/r", "c@x", true));
    assert!(!preferences.archives("c@x/r", "c@x", false));
}
