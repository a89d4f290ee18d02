//! Messages that await delivery: kept until said to be delivered, in order, whatever the archive does.

use super::{append, append_all, cases, copy, message, offline, stanza};
use crate::servers::Scratch;
use im_store::{Archive, ArchiveQuery, MessageId, NewMessage, Offline};

cases!(
    they_wait_in_order_until_delivered,
    they_need_no_archive,
    what_did_not_arrive_waits_again,
    deliveries_of_others_do_not_count,
);

async fn they_wait_in_order_until_delivered(scratch: Scratch) {
    let store = scratch.open().await;
    let sent =
        append_all(&store, (0..30).map(|number| offline("ann@x", "bob@x", &format!("{number}")))).await;
    assert_eq!(store.pending_count("bob@x").await.unwrap(), 30);
    assert_eq!(store.pending_count("ann@x").await.unwrap(), 0);
    let first = store.pending("bob@x", None, 20).await.unwrap();
    assert_eq!(first.iter().map(|message| message.id).collect::<Vec<_>>(), sent[..20]);
    assert_eq!(first[3].stanza, stanza("3"));
    // Nothing is marked by reading.
    assert_eq!(store.pending("bob@x", None, 20).await.unwrap(), first);
    let rest = store.pending("bob@x", Some(sent[19]), 100).await.unwrap();
    assert_eq!(rest.iter().map(|message| message.id).collect::<Vec<_>>(), sent[20..]);
    store.delivered("bob@x", &sent[..20]).await.unwrap();
    store.delivered("bob@x", &sent[..20]).await.unwrap();
    store.delivered("bob@x", &[]).await.unwrap();
    assert_eq!(store.pending("bob@x", None, 100).await.unwrap(), rest);
    let archive =
        store.query_archive("bob@x", &ArchiveQuery { max: 100, ..ArchiveQuery::default() }).await.unwrap();
    assert_eq!(archive.messages.len(), 30);
}

async fn they_need_no_archive(scratch: Scratch) {
    let store = scratch.open().await;
    let only_waiting = NewMessage { stanza: stanza("m"), copies: vec![copy("bob@x", "ann@x", false, true)] };
    let id = append(&store, only_waiting).await;
    let archive =
        store.query_archive("bob@x", &ArchiveQuery { max: 9, ..ArchiveQuery::default() }).await.unwrap();
    assert!(archive.messages.is_empty());
    assert_eq!(store.pending("bob@x", None, 9).await.unwrap()[0].stanza, stanza("m"));
    store.delivered("bob@x", &[id]).await.unwrap();
    assert_eq!(store.pending_count("bob@x").await.unwrap(), 0);
    scratch.assert_messages_stored(0).await;
}

async fn what_did_not_arrive_waits_again(scratch: Scratch) {
    let store = scratch.open().await;
    let id = append(&store, message("ann@x", "bob@x", "lost on the way")).await;
    let only_sender = NewMessage { stanza: stanza("two"), copies: vec![copy("ann@x", "bob@x", true, false)] };
    let second = append(&store, only_sender).await;
    let unknown = MessageId::from_i64(5);
    store.postpone("bob@x", &[id, second, unknown]).await.unwrap();
    store.postpone("bob@x", &[id]).await.unwrap();
    let waiting = store.pending("bob@x", None, 9).await.unwrap();
    assert_eq!(waiting.iter().map(|message| message.id).collect::<Vec<_>>(), [id, second]);
    store.delivered("bob@x", &[id, second]).await.unwrap();
    // The sender's archive has them still.
    let archive =
        store.query_archive("ann@x", &ArchiveQuery { max: 9, ..ArchiveQuery::default() }).await.unwrap();
    assert_eq!(archive.messages.len(), 2);
    // Even for somebody whose address was never seen.
    store.postpone("carl@x", &[id]).await.unwrap();
    assert_eq!(store.pending_count("carl@x").await.unwrap(), 1);
}

async fn deliveries_of_others_do_not_count(scratch: Scratch) {
    let store = scratch.open().await;
    let id = append(&store, offline("ann@x", "bob@x", "for bob")).await;
    store.delivered("ann@x", &[id]).await.unwrap();
    store.delivered("carl@x", &[id]).await.unwrap();
    assert_eq!(store.pending_count("bob@x").await.unwrap(), 1);
}
