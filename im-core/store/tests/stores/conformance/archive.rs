//! The archive: order, pages in both directions, filters, expiry.

use super::{append, append_all, cases, copy, message, offline, stanza};
use crate::servers::Scratch;
use bytes::Bytes;
use im_store::{Archive, ArchivePage, ArchiveQuery, MessageId, NewMessage, Offline, Page, Store, StoreError};

cases!(
    a_message_is_in_both_archives_once,
    identifiers_grow_in_the_order_of_appending,
    pages_go_forwards_and_backwards,
    filters_by_peer_time_and_identifier,
    single_messages_are_picked,
    unknown_anchors_are_refused,
    bytes_are_kept,
    impossible_messages_are_refused,
    expiry_spares_what_awaits_delivery,
    bounds_are_the_ends,
    two_nodes_never_meet_on_an_identifier,
);

fn query(max: u32) -> ArchiveQuery {
    ArchiveQuery { max, ..ArchiveQuery::default() }
}

async fn read(store: &Store, owner: &str, query: &ArchiveQuery) -> ArchivePage {
    store.query_archive(owner, query).await.unwrap()
}

fn ids(page: &ArchivePage) -> Vec<MessageId> {
    page.messages.iter().map(|message| message.id).collect()
}

async fn conversation(store: &Store, count: usize) -> Vec<MessageId> {
    append_all(store, (0..count).map(|number| message("ann@x", "bob@x", &format!("number {number}")))).await
}

async fn a_message_is_in_both_archives_once(scratch: Scratch) {
    let store = scratch.open().await;
    let id = append(&store, message("ann@x", "bob@x", "hi")).await;
    for owner in ["ann@x", "bob@x"] {
        let page = read(&store, owner, &query(10)).await;
        assert_eq!(ids(&page), [id]);
        assert_eq!(page.messages[0].stanza, stanza("hi"));
        assert!(page.complete);
        assert_eq!(store.pending_count(owner).await.unwrap(), 0);
    }
    assert!(read(&store, "carl@x", &query(10)).await.messages.is_empty());
    let own = NewMessage { stanza: stanza("note"), copies: vec![copy("ann@x", "ann@x", true, false)] };
    let own = append(&store, own).await;
    assert_eq!(ids(&read(&store, "ann@x", &query(10)).await), [id, own]);
    // Copies that store nothing store nothing.
    append(&store, NewMessage { stanza: stanza("x"), copies: vec![copy("ann@x", "bob@x", false, false)] })
        .await;
    append(&store, NewMessage { stanza: stanza("x"), copies: vec![] }).await;
    scratch.assert_messages_stored(2).await;
}

async fn identifiers_grow_in_the_order_of_appending(scratch: Scratch) {
    let store = scratch.open().await;
    let before = now_ms();
    let sent = conversation(&store, 3000).await;
    assert!(sent.is_sorted());
    assert!(sent[0].timestamp_ms() >= before - 1 && sent[2999].timestamp_ms() <= now_ms() + 5);
    let page = read(&store, "bob@x", &query(5000)).await;
    assert_eq!(ids(&page), sent);
    for (number, message) in page.messages.iter().enumerate() {
        assert_eq!(message.stanza, stanza(&format!("number {number}")));
    }
}

fn now_ms() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

async fn pages_go_forwards_and_backwards(scratch: Scratch) {
    let store = scratch.open().await;
    let sent = conversation(&store, 25).await;
    let mut seen = Vec::new();
    let mut page = Page::First;
    loop {
        let answer = read(&store, "ann@x", &ArchiveQuery { page, count: true, ..query(10) }).await;
        assert_eq!(answer.count, Some(25));
        seen.extend(ids(&answer));
        assert_eq!(answer.complete, seen.len() == 25);
        if answer.complete {
            break;
        }
        page = Page::After(*seen.last().unwrap());
    }
    assert_eq!(seen, sent);

    let mut seen = Vec::new();
    let mut page = Page::Last;
    loop {
        let answer = read(&store, "ann@x", &ArchiveQuery { page, ..query(10) }).await;
        assert!(ids(&answer).is_sorted(), "a page is oldest first");
        seen.splice(0..0, ids(&answer));
        if answer.complete {
            break;
        }
        page = Page::Before(seen[0]);
    }
    assert_eq!(seen, sent);

    let flipped = read(&store, "ann@x", &ArchiveQuery { page: Page::Last, flip: true, ..query(3) }).await;
    assert_eq!(ids(&flipped), [sent[24], sent[23], sent[22]]);
    let flipped = read(&store, "ann@x", &ArchiveQuery { flip: true, ..query(3) }).await;
    assert_eq!(ids(&flipped), [sent[2], sent[1], sent[0]]);
    let counted = read(&store, "ann@x", &ArchiveQuery { count: true, ..query(0) }).await;
    assert_eq!(counted, ArchivePage { messages: vec![], complete: false, count: Some(25) });
    let end = read(&store, "ann@x", &ArchiveQuery { page: Page::After(sent[24]), ..query(10) }).await;
    assert_eq!(end, ArchivePage { messages: vec![], complete: true, count: None });
}

async fn filters_by_peer_time_and_identifier(scratch: Scratch) {
    let store = scratch.open().await;
    let mut sent = Vec::new();
    for number in 0..9 {
        let peer = ["bob@x", "carl@x", "bo@x"][number % 3];
        sent.push(append(&store, message("ann@x", peer, "m")).await);
        // Each its own millisecond, so that moments tell them apart: wait for the clock and not for a time.
        while now_ms() <= sent[number].timestamp_ms() {
            tokio::task::yield_now().await;
        }
    }
    let with = ArchiveQuery { with: Some("carl@x".into()), count: true, ..query(2) };
    let page = read(&store, "ann@x", &with).await;
    assert_eq!((ids(&page), page.complete, page.count), (vec![sent[1], sent[4]], false, Some(3)));
    let nobody = ArchiveQuery { with: Some("nobody@x".into()), count: true, ..query(10) };
    assert_eq!(
        read(&store, "ann@x", &nobody).await,
        ArchivePage { messages: vec![], complete: true, count: Some(0) }
    );

    let (start, end) = (sent[2].timestamp_ms(), sent[5].timestamp_ms());
    let between = ArchiveQuery { start: Some(start), end: Some(end), count: true, ..query(10) };
    let page = read(&store, "ann@x", &between).await;
    assert_eq!((ids(&page), page.count), (sent[2..=5].to_vec(), Some(4)));
    let last_of_these = ArchiveQuery { page: Page::Last, ..between.clone() };
    assert_eq!(ids(&read(&store, "ann@x", &ArchiveQuery { max: 2, ..last_of_these }).await), sent[4..=5]);
    let with_between = ArchiveQuery { with: Some("bo@x".into()), ..between };
    assert_eq!(ids(&read(&store, "ann@x", &with_between).await), [sent[2], sent[5]]);

    let by_id = ArchiveQuery { after_id: Some(sent[1]), before_id: Some(sent[7]), count: true, ..query(10) };
    let page = read(&store, "ann@x", &by_id).await;
    assert_eq!((ids(&page), page.count), (sent[2..7].to_vec(), Some(5)));
    let paged = ArchiveQuery { page: Page::After(sent[4]), ..by_id };
    let page = read(&store, "ann@x", &paged).await;
    assert_eq!((ids(&page), page.count), (sent[5..7].to_vec(), Some(5)));
    for extreme in [i64::MIN, i64::MAX] {
        let none = ArchiveQuery { start: Some(extreme), end: Some(extreme), ..query(10) };
        assert!(read(&store, "ann@x", &none).await.messages.is_empty());
    }
}

async fn single_messages_are_picked(scratch: Scratch) {
    let store = scratch.open().await;
    let sent = conversation(&store, 6).await;
    let other = append(&store, message("ann@x", "carl@x", "other")).await;
    let picked = |ids: Vec<MessageId>| ArchiveQuery { ids: Some(ids), ..query(10) };
    let page = read(&store, "ann@x", &picked(vec![sent[4], sent[1], sent[4]])).await;
    assert_eq!((ids(&page), page.complete), (vec![sent[1], sent[4]], true));
    let with = ArchiveQuery { with: Some("carl@x".into()), count: true, ..picked(vec![sent[0], other]) };
    let page = read(&store, "ann@x", &with).await;
    assert_eq!((ids(&page), page.count), (vec![other], Some(1)));
    let last = ArchiveQuery { page: Page::Last, max: 1, ..picked(vec![sent[0], sent[3]]) };
    let page = read(&store, "ann@x", &last).await;
    assert_eq!((ids(&page), page.complete), (vec![sent[3]], false));
    let foreign = store.query_archive("bob@x", &picked(vec![sent[0], other])).await.unwrap_err();
    assert!(matches!(foreign, StoreError::UnknownMessage(id) if id == other), "{foreign}");
    assert!(read(&store, "ann@x", &picked(vec![])).await.messages.is_empty());
    let many = picked((0..1001).map(MessageId::from_i64).collect());
    assert!(matches!(store.query_archive("ann@x", &many).await, Err(StoreError::Invalid { .. })));
}

async fn unknown_anchors_are_refused(scratch: Scratch) {
    let store = scratch.open().await;
    let sent = conversation(&store, 3).await;
    let foreign = append(&store, message("carl@x", "dora@x", "not theirs")).await;
    for wrong in [
        ArchiveQuery { page: Page::After(foreign), ..query(10) },
        ArchiveQuery { page: Page::Before(foreign), ..query(10) },
        ArchiveQuery { after_id: Some(foreign), ..query(10) },
        ArchiveQuery { before_id: Some(MessageId::from_i64(1)), page: Page::After(sent[0]), ..query(10) },
    ] {
        let error = store.query_archive("ann@x", &wrong).await.unwrap_err();
        assert!(matches!(error, StoreError::UnknownMessage(_)), "{error}");
    }
}

async fn bytes_are_kept(scratch: Scratch) {
    let store = scratch.open().await;
    let mut odd = "\u{1F600}\u{10FFFF}'\"\\%_\r\n\t&amp;".as_bytes().to_vec();
    odd.extend(0..=255);
    let large = vec![b'x'; 3 * 1024 * 1024];
    for bytes in [odd, large, Vec::new()] {
        let stored = Bytes::from(bytes);
        let id = append(&store, NewMessage { stanza: stored.clone(), ..message("ann@x", "bob@x", "") }).await;
        let page = read(&store, "bob@x", &ArchiveQuery { ids: Some(vec![id]), ..query(1) }).await;
        assert!(page.messages[0].stanza == stored, "{} bytes came back changed", stored.len());
    }
}

async fn impossible_messages_are_refused(scratch: Scratch) {
    let store = scratch.open().await;
    let huge = Bytes::from(vec![b'x'; 16 * 1024 * 1024]);
    for wrong in [
        NewMessage { stanza: huge, ..message("ann@x", "bob@x", "") },
        NewMessage { stanza: stanza("x"), copies: vec![copy("", "bob@x", true, false)] },
        NewMessage { stanza: stanza("x"), copies: vec![copy("ann@x", "b\0b@x", true, false)] },
        message("ann@x", "ann@x", "twice the same owner"),
        NewMessage {
            stanza: stanza("x"),
            copies: ["a@x", "b@x", "c@x"].map(|owner| copy(owner, "d@x", true, false)).to_vec(),
        },
    ] {
        let error = store.append(wrong).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    }
    scratch.assert_messages_stored(0).await;
}

async fn expiry_spares_what_awaits_delivery(scratch: Scratch) {
    let store = scratch.open().await;
    let old = conversation(&store, 1200).await;
    let waiting = append(&store, offline("ann@x", "bob@x", "waiting")).await;
    while now_ms() <= waiting.timestamp_ms() {
        tokio::task::yield_now().await;
    }
    let border = now_ms();
    let young = append(&store, message("ann@x", "bob@x", "young")).await;

    assert_eq!(store.expire_archive(Some("ann@x"), border).await.unwrap(), 1201);
    assert_eq!(ids(&read(&store, "ann@x", &query(10)).await), [young]);
    assert_eq!(read(&store, "bob@x", &query(5000)).await.messages.len(), old.len() + 2);
    scratch.assert_messages_stored(1202).await;

    assert_eq!(store.expire_archive(None, border).await.unwrap(), 1201);
    assert_eq!(store.expire_archive(None, border).await.unwrap(), 0);
    assert_eq!(ids(&read(&store, "bob@x", &query(10)).await), [young]);
    scratch.assert_messages_stored(2).await;
    assert_eq!(store.pending("bob@x", None, 10, usize::MAX).await.unwrap()[0].id, waiting);
    store.confirm("bob@x", &[waiting]);
    store.settle().await.unwrap();
    scratch.assert_messages_stored(1).await;
}

async fn bounds_are_the_ends(scratch: Scratch) {
    let store = scratch.open().await;
    assert_eq!(store.archive_bounds("ann@x").await.unwrap(), None);
    let sent = conversation(&store, 5).await;
    append(&store, message("carl@x", "bob@x", "later")).await;
    assert_eq!(store.archive_bounds("ann@x").await.unwrap(), Some((sent[0], sent[4])));
}

async fn two_nodes_never_meet_on_an_identifier(scratch: Scratch) {
    let nodes = [scratch.open().await, scratch.open().await];
    let writers = [0, 1].map(|node| {
        let store = nodes[node].clone();
        tokio::spawn(async move {
            append_all(&store, (0..2000).map(|number| message("ann@x", "bob@x", &format!("{node} {number}"))))
                .await
        })
    });
    let mut all = Vec::new();
    for writer in writers {
        all.extend(writer.await.unwrap());
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 4000);
    assert_eq!(ids(&read(&nodes[1], "ann@x", &query(5000)).await), all);
}
