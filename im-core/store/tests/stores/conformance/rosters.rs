//! Rosters: edits are atomic and in order, versions grow only with changes.

use super::cases;
use crate::servers::Scratch;
use im_store::{Roster, RosterChange, RosterEdit, RosterItem, Rosters, Subscription};

cases!(
    every_field_comes_back,
    the_version_grows_only_with_changes,
    edits_of_two_nodes_do_not_overwrite_each_other,
    rosters_are_apart,
);

fn put(item: RosterItem) -> RosterEdit {
    RosterEdit::new(move |_| RosterChange::Put(item.clone()))
}

fn full(contact: &str) -> RosterItem {
    RosterItem {
        contact: contact.into(),
        name: Some("Bob \"the\" 鲍勃 😀".into()),
        groups: vec!["Work, really".into(), "[]".into(), "家人".into()],
        subscription: Subscription::Both,
        ask: true,
        approved: true,
        pending_in: Some("<presence type='subscribe'/>".into()),
        listed: true,
    }
}

async fn every_field_comes_back(scratch: Scratch) {
    let store = scratch.open().await;
    assert_eq!(store.roster("ann@x").await.unwrap(), Roster::default());
    assert_eq!(store.roster_item("ann@x", "bob@x").await.unwrap(), None);
    let outcome = store.edit_roster("ann@x", "bob@x", put(full("bob@x"))).await.unwrap();
    assert_eq!((outcome.before, outcome.after), (None, Some(full("bob@x"))));
    let bare = RosterItem { contact: "carl@x".into(), ..RosterItem::default() };
    store.edit_roster("ann@x", "carl@x", put(bare.clone())).await.unwrap();
    let roster = store.roster("ann@x").await.unwrap();
    assert_eq!(roster, Roster { version: 2, items: vec![full("bob@x"), bare] });
    assert_eq!(store.roster_item("ann@x", "bob@x").await.unwrap(), Some(full("bob@x")));
    for subscription in [Subscription::None, Subscription::To, Subscription::From] {
        let item = RosterItem { subscription, ..full("bob@x") };
        store.edit_roster("ann@x", "bob@x", put(item.clone())).await.unwrap();
        assert_eq!(store.roster_item("ann@x", "bob@x").await.unwrap(), Some(item));
    }
}

async fn the_version_grows_only_with_changes(scratch: Scratch) {
    let store = scratch.open().await;
    let first = store.edit_roster("ann@x", "bob@x", put(full("bob@x"))).await.unwrap();
    assert_eq!((first.version, first.changed), (1, true));
    let same = store.edit_roster("ann@x", "bob@x", put(full("bob@x"))).await.unwrap();
    assert_eq!((same.version, same.changed), (1, false));
    let kept = store.edit_roster("ann@x", "bob@x", RosterEdit::new(|_| RosterChange::Keep)).await.unwrap();
    assert_eq!((kept.version, kept.changed, kept.before), (1, false, Some(full("bob@x"))));
    let gone = store.edit_roster("ann@x", "bob@x", RosterEdit::new(|_| RosterChange::Remove)).await.unwrap();
    assert_eq!((gone.version, gone.changed, gone.before, gone.after), (2, true, Some(full("bob@x")), None));
    let again = store.edit_roster("ann@x", "bob@x", RosterEdit::new(|_| RosterChange::Remove)).await.unwrap();
    assert_eq!((again.version, again.changed), (2, false));
    assert_eq!(store.roster_version("ann@x").await.unwrap(), 2);
    assert!(store.roster("ann@x").await.unwrap().items.is_empty());
}

async fn edits_of_two_nodes_do_not_overwrite_each_other(scratch: Scratch) {
    let nodes = [scratch.open().await, scratch.open().await];
    let edits = (0..40).map(|number| {
        let store = nodes[number % 2].clone();
        tokio::spawn(async move {
            let edit = RosterEdit::new(move |item| {
                let mut item = item.cloned().unwrap_or_default();
                item.groups.push(format!("group {number}"));
                RosterChange::Put(item)
            });
            store.edit_roster("ann@x", "bob@x", edit).await.unwrap()
        })
    });
    let mut versions = Vec::new();
    for edit in edits.collect::<Vec<_>>() {
        versions.push(edit.await.unwrap().version);
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=40).collect::<Vec<_>>());
    assert_eq!(nodes[0].roster_item("ann@x", "bob@x").await.unwrap().unwrap().groups.len(), 40);
}

async fn rosters_are_apart(scratch: Scratch) {
    let store = scratch.open().await;
    store.edit_roster("ann@x", "bob@x", put(full("bob@x"))).await.unwrap();
    store.edit_roster("bob@x", "ann@x", put(full("ann@x"))).await.unwrap();
    store.edit_roster("ann@x", "bob@x", RosterEdit::new(|_| RosterChange::Remove)).await.unwrap();
    assert_eq!(store.roster("bob@x").await.unwrap().items, vec![full("ann@x")]);
}
