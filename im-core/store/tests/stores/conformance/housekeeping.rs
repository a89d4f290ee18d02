//! Health, counts, shared settings, migrations, closing.

use super::{account, append, cases, create, message, offline};
use crate::servers::Scratch;
use im_store::{AccountKind, Accounts, Archive, Housekeeping, Store, StoreError};

cases!(
    a_fresh_store_is_well,
    counts_leave_canaries_out,
    nodes_agree_on_a_setting,
    nodes_that_start_at_once_migrate_once,
    a_newer_schema_is_refused,
    what_was_handed_over_is_written_before_closing,
);

async fn a_fresh_store_is_well(scratch: Scratch) {
    let store = scratch.open().await;
    store.ping().await.unwrap();
    assert_eq!(store.kind(), scratch.kind().name());
    let shown = format!("{:?} {store:?}", scratch.config());
    assert!(!shown.contains("a secret of the test"), "{shown}");
}

async fn counts_leave_canaries_out(scratch: Scratch) {
    let store = scratch.open().await;
    create(&store, "ann@x").await;
    create(&store, "bob@x").await;
    store.set_disabled("bob@x", true).await.unwrap();
    store.create_account(&account("canary@x", AccountKind::Canary)).await.unwrap();
    append(&store, offline("ann@x", "bob@x", "counts")).await;
    append(&store, offline("ann@x", "canary@x", "does not")).await;
    let statistics = store.statistics().await.unwrap();
    assert_eq!((statistics.accounts, statistics.accounts_disabled, statistics.offline_messages), (2, 1, 1));
    assert!(statistics.database_bytes > 10_000, "{}", statistics.database_bytes);
}

async fn nodes_agree_on_a_setting(scratch: Scratch) {
    let nodes = [scratch.open().await, scratch.open().await];
    assert_eq!(nodes[0].setting("salt").await.unwrap(), None);
    let offers = (0..8).map(|number| {
        let store = nodes[number % 2].clone();
        tokio::spawn(
            async move { store.setting_or_insert("salt", &format!("value {number}")).await.unwrap() },
        )
    });
    let mut agreed = Vec::new();
    for offer in offers.collect::<Vec<_>>() {
        agreed.push(offer.await.unwrap());
    }
    agreed.dedup();
    assert_eq!(agreed.len(), 1);
    assert_eq!(nodes[0].setting("salt").await.unwrap(), Some(agreed[0].clone()));
    nodes[0].set_setting("salt", "other").await.unwrap();
    assert_eq!(nodes[1].setting("salt").await.unwrap().as_deref(), Some("other"));
    assert_eq!(nodes[1].setting_or_insert("salt", "third").await.unwrap(), "other");
}

async fn nodes_that_start_at_once_migrate_once(scratch: Scratch) {
    let opened = (0..4).map(|_| {
        let config = scratch.config();
        tokio::spawn(async move { Store::open(&config).await })
    });
    for store in opened.collect::<Vec<_>>() {
        store.await.unwrap().unwrap().ping().await.unwrap();
    }
}

async fn a_newer_schema_is_refused(scratch: Scratch) {
    let store = scratch.open().await;
    create(&store, "ann@x").await;
    store.close().await.unwrap();
    // A newer one that this program can still work with…
    scratch.record_migration(9001, 1).await;
    assert!(scratch.open().await.account("ann@x").await.unwrap().is_some());
    // …and one that it cannot.
    scratch.record_migration(9002, 9002).await;
    let error = Store::open(&scratch.config()).await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaTooNew { found: 9002, .. }), "{error}");
    assert!(error.to_string().contains("9002"), "{error}");
}

async fn what_was_handed_over_is_written_before_closing(scratch: Scratch) {
    let store = scratch.open().await;
    let mut acks = Vec::new();
    for number in 0..500 {
        acks.push(store.append(message("ann@x", "bob@x", &format!("{number}"))).await.unwrap());
    }
    store.close().await.unwrap();
    for ack in acks {
        ack.await.unwrap();
    }
    assert!(store.append(message("ann@x", "bob@x", "late")).await.is_err());
    scratch.assert_messages_stored(500).await;
}
