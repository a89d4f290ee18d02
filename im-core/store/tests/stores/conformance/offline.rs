//! Messages that await delivery: kept until said to be delivered, in order, whatever the archive does.

use super::{append, append_all, cases, copy, create, message, offline, stanza};
use crate::servers::Scratch;
use bytes::Bytes;
use im_store::{Accounts, Archive, ArchiveQuery, Housekeeping, MessageId, NewMessage, Offline, Page, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

cases!(
    they_wait_in_order_until_delivered,
    they_need_no_archive,
    what_was_confirmed_counts_at_once_and_lasts,
    closing_writes_confirmations,
    what_nobody_keeps_goes_with_its_mark,
    a_page_ends_for_its_bytes,
    owners_are_found_by_what_was_stored_lately,
    concurrent_readers_miss_nothing,
    deliveries_of_others_do_not_count,
);

async fn confirm(store: &Store, owner: &str, ids: &[MessageId]) {
    store.confirm(owner, ids);
    store.settle().await.unwrap();
}

async fn they_wait_in_order_until_delivered(scratch: Scratch) {
    let store = scratch.open().await;
    let sent =
        append_all(&store, (0..30).map(|number| offline("ann@x", "bob@x", &format!("{number}")))).await;
    assert_eq!(store.pending_count("bob@x").await.unwrap(), 30);
    assert_eq!(store.pending_count("ann@x").await.unwrap(), 0);
    let first = store.pending("bob@x", None, 20, usize::MAX).await.unwrap();
    assert_eq!(first.iter().map(|message| message.id).collect::<Vec<_>>(), sent[..20]);
    assert_eq!(first[3].stanza, stanza("3"));
    // Nothing is marked by reading.
    assert_eq!(store.pending("bob@x", None, 20, usize::MAX).await.unwrap(), first);
    let rest = store.pending("bob@x", Some(sent[19]), 100, usize::MAX).await.unwrap();
    assert_eq!(rest.iter().map(|message| message.id).collect::<Vec<_>>(), sent[20..]);
    confirm(&store, "bob@x", &sent[..20]).await;
    confirm(&store, "bob@x", &sent[..20]).await;
    confirm(&store, "bob@x", &[]).await;
    assert_eq!(store.pending("bob@x", None, 100, usize::MAX).await.unwrap(), rest);
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
    assert_eq!(store.pending("bob@x", None, 9, usize::MAX).await.unwrap()[0].stanza, stanza("m"));
    confirm(&store, "bob@x", &[id]).await;
    assert_eq!(store.pending_count("bob@x").await.unwrap(), 0);
    scratch.assert_messages_stored(0).await;
}

async fn deliveries_of_others_do_not_count(scratch: Scratch) {
    let store = scratch.open().await;
    let id = append(&store, offline("ann@x", "bob@x", "for bob")).await;
    confirm(&store, "ann@x", &[id]).await;
    confirm(&store, "carl@x", &[id]).await;
    assert_eq!(store.pending_count("bob@x").await.unwrap(), 1);
}

async fn what_was_confirmed_counts_at_once_and_lasts(scratch: Scratch) {
    let store = scratch.open().await;
    let sent = append_all(&store, (0..9_000).map(|n| offline("ann@x", "bob@x", &n.to_string()))).await;
    let only_waiting =
        |n| NewMessage { stanza: stanza(n), copies: vec![copy("carl@x", "ann@x", false, true)] };
    let unkept = append_all(&store, ["a", "b"].map(only_waiting)).await;
    // More than one transaction takes; interleaved with appends, and some of them twice.
    for some in sent[..8_990].chunks(700) {
        store.confirm("bob@x", some);
        store.confirm("bob@x", &some[..1]);
        append(&store, message("ann@x", "carl@x", "in between")).await;
    }
    store.confirm("carl@x", &unkept[..1]);
    let waiting = store.pending("bob@x", None, 100, usize::MAX).await.unwrap();
    assert_eq!(waiting.iter().map(|m| m.id).collect::<Vec<_>>(), sent[8_990..]);
    let all_of = |owner| {
        let mut all = store.confirming(owner);
        all.retain(|id| !sent.contains(id) && !unkept.contains(id));
        all
    };
    assert!(all_of("bob@x").is_empty() && all_of("carl@x").is_empty());
    store.settle().await.unwrap();
    assert!(store.confirming("bob@x").is_empty() && store.confirming("carl@x").is_empty());
    assert_eq!(store.pending_count("bob@x").await.unwrap(), 10);
    assert_eq!(store.pending("carl@x", None, 9, usize::MAX).await.unwrap()[0].id, unkept[1]);
    // What is in no archive went with its mark, the rest stayed: thirteen were appended in between.
    scratch.assert_messages_stored(9_000 + 13 + 1).await;
}

/// A message whose archive entries went before its mark did.
async fn what_nobody_keeps_goes_with_its_mark(scratch: Scratch) {
    let store = scratch.open().await;
    create(&store, "ann@x").await;
    let mut by_sender = offline("ann@x", "bob@x", "kept by its sender alone");
    by_sender.copies[1].archive = false;
    let by_sender = append(&store, by_sender).await;
    let by_both = append(&store, offline("ann@x", "bob@x", "kept by both")).await;
    let expired = append(&store, offline("carl@x", "bob@x", "expired")).await;
    assert!(store.remove_account("ann@x").await.unwrap());
    assert_eq!(store.expire_archive(Some("carl@x"), i64::MAX).await.unwrap(), 1);
    scratch.assert_messages_stored(3).await;
    confirm(&store, "bob@x", &[by_sender, by_both, expired]).await;
    // The receiver's archive has the other two.
    scratch.assert_messages_stored(2).await;
    let waiting = append(&store, offline("carl@x", "bob@x", "waits")).await;
    assert_eq!(store.expire_archive(None, i64::MAX).await.unwrap(), 4);
    scratch.assert_messages_stored(1).await;
    confirm(&store, "bob@x", &[waiting]).await;
    scratch.assert_messages_stored(0).await;
}

async fn closing_writes_confirmations(scratch: Scratch) {
    let store = scratch.open().await;
    let sent = append_all(&store, (0..9_000).map(|n| offline("ann@x", "bob@x", &n.to_string()))).await;
    store.confirm("bob@x", &sent);
    store.close().await.unwrap();
    let store = scratch.open().await;
    assert_eq!(store.pending_count("bob@x").await.unwrap(), 0);
}

async fn a_page_ends_for_its_bytes(scratch: Scratch) {
    let store = scratch.open().await;
    let large = |n: u8| NewMessage {
        stanza: Bytes::from(vec![b'a' + n; 1000]),
        copies: vec![copy("ann@x", "bob@x", true, false), copy("bob@x", "ann@x", true, true)],
    };
    let sent = append_all(&store, (0..10).map(large)).await;
    let mut seen: Vec<MessageId> = Vec::new();
    for expected in [3, 3, 3, 1, 0] {
        let page = store.pending("bob@x", seen.last().copied(), 100, 3_500).await.unwrap();
        assert_eq!(page.len(), expected);
        seen.extend(page.iter().map(|m| m.id));
    }
    assert_eq!(seen, sent);
    assert_eq!(store.pending("bob@x", None, 100, 1).await.unwrap().len(), 1, "one always fits");
    let query = |page, flip| ArchiveQuery {
        max: 100,
        bytes: Some(3_500),
        count: true,
        page,
        flip,
        ..ArchiveQuery::default()
    };
    let ids = |page: &im_store::ArchivePage| page.messages.iter().map(|m| m.id).collect::<Vec<_>>();
    let page = store.query_archive("bob@x", &query(Page::First, false)).await.unwrap();
    assert_eq!((ids(&page), page.complete, page.count), (sent[..3].to_vec(), false, Some(10)));
    let page = store.query_archive("bob@x", &query(Page::After(sent[6]), false)).await.unwrap();
    assert_eq!((ids(&page), page.complete), (sent[7..].to_vec(), true));
    let page = store.query_archive("bob@x", &query(Page::Last, false)).await.unwrap();
    assert_eq!((ids(&page), page.complete), (sent[7..].to_vec(), false));
    let page = store.query_archive("bob@x", &query(Page::Before(sent[7]), true)).await.unwrap();
    assert_eq!((ids(&page), page.complete), (vec![sent[6], sent[5], sent[4]], false));
    let picked = ArchiveQuery { ids: Some(sent.clone()), ..query(Page::First, false) };
    let page = store.query_archive("bob@x", &picked).await.unwrap();
    assert_eq!((ids(&page), page.complete), (sent[..3].to_vec(), false));
}

async fn owners_are_found_by_what_was_stored_lately(scratch: Scratch) {
    let store = scratch.open().await;
    let id = append(&store, offline("ann@x", "bob@x", "m")).await;
    append(&store, message("ann@x", "carl@x", "delivered")).await;
    let at = id.timestamp_ms();
    assert_eq!(store.pending_owners(at, 9).await.unwrap(), ["bob@x"]);
    assert!(store.pending_owners(at + 1, 9).await.unwrap().is_empty());
    confirm(&store, "bob@x", &[id]).await;
    assert!(store.pending_owners(at, 9).await.unwrap().is_empty());
}

/// Who reads on after the last message it saw gets every one, though batches are committed side by side.
async fn concurrent_readers_miss_nothing(scratch: Scratch) {
    const COUNT: usize = 4_000;
    let store = scratch.open().await;
    let done = Arc::new(AtomicBool::new(false));
    let (reading, ended) = (store.clone(), Arc::clone(&done));
    let reader = tokio::spawn(async move {
        let (mut waiting, mut archived): (Vec<MessageId>, Vec<MessageId>) = (Vec::new(), Vec::new());
        loop {
            let last = ended.load(Ordering::SeqCst);
            let page = reading.pending("bob@x", waiting.last().copied(), 50, usize::MAX).await.unwrap();
            waiting.extend(page.iter().map(|m| m.id));
            let page = archived.last().map_or(Page::First, |id| Page::After(*id));
            let query = ArchiveQuery { max: 50, page, ..ArchiveQuery::default() };
            let page = reading.query_archive("ann@x", &query).await.unwrap();
            archived.extend(page.messages.iter().map(|m| m.id));
            if last && waiting.len() >= COUNT && archived.len() >= COUNT {
                return (waiting, archived);
            }
        }
    });
    let mut sent = Vec::new();
    for round in 0..COUNT / 20 {
        sent.extend(
            append_all(&store, (0..20).map(|n| offline("ann@x", "bob@x", &format!("{round} {n}")))).await,
        );
    }
    done.store(true, Ordering::SeqCst);
    let deadline = std::time::Duration::from_mins(1);
    let (waiting, archived) =
        tokio::time::timeout(deadline, reader).await.expect("some were missed").unwrap();
    assert!(
        waiting == sent && archived == sent,
        "{} and {} of {}",
        waiting.len(),
        archived.len(),
        sent.len()
    );
}
