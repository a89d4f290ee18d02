//! Tests of sessions with their outboxes: what is confirmed when, what comes again, what is bounded.

use super::*;
use std::cell::RefCell;

/// What was confirmed.
#[derive(Default)]
struct Noted(RefCell<Vec<i64>>);

impl Receipts for Noted {
    fn received(&self, owner: &str, ids: &[MessageId]) {
        assert_eq!(owner, "a@x");
        self.0.borrow_mut().extend(ids.iter().map(|id| id.as_i64()));
    }
}

fn session() -> Session {
    let user = Arc::new(User::new(Address::parse("a@x").unwrap()));
    let session = Session::new(Address::parse("a@x/r").unwrap(), user, 1, false, Framing::Stream, 1000, 12);
    session.set_presence(Some((Bytes::new(), 0)));
    session
}

fn text(session: &Session, generation: u32, noted: &Noted) -> String {
    let mut out = Vec::new();
    session.take_output(generation, &mut out, noted);
    String::from_utf8(out).unwrap()
}

fn id(number: i64) -> MessageId {
    MessageId::from_i64(number)
}

fn m(number: i64) -> Bytes {
    Bytes::from(format!("<m>{number}</m>"))
}

#[test]
fn what_is_not_acknowledged_comes_again_after_resumption() {
    let (s, noted) = (session(), Noted::default());
    assert!(s.manage("id"));
    for n in 1..=3 {
        assert_eq!(s.push(&m(n), Some(id(n)), Urgency::Now), Pushed::Taken);
    }
    assert_eq!(text(&s, 0, &noted), "<m>1</m><m>2</m><m>3</m><r xmlns='urn:xmpp:sm:3'/>");
    assert!(!s.acknowledge(4, &noted), "more than was sent");
    assert!(s.acknowledge(1, &noted));
    assert_eq!(*noted.0.borrow(), [1]);
    assert!(s.detach(0), "it can be resumed");
    assert_eq!(s.push(&m(4), Some(id(4)), Urgency::Now), Pushed::Taken);
    assert_eq!(s.take_over("other"), None);
    let generation = s.take_over("id").unwrap();
    assert_eq!(s.resume(0, Framing::Stream, 2, "", &noted), Err(Unresumed::Overtaken));
    assert_eq!(s.resume(generation, Framing::Stream, 9, "", &noted), Err(Unresumed::Counter));
    assert_eq!(s.resume(generation, Framing::Stream, 2, "<resumed/>", &noted), Ok(()));
    assert_eq!(*noted.0.borrow(), [1, 2], "a resumption acknowledges too");
    assert_eq!(text(&s, generation, &noted), "<resumed/><m>3</m><m>4</m><r xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(s.take_output(0, &mut Vec::new(), &noted), Output::Close(Close::Resumed));
    assert_eq!(s.held_ids(), [id(3), id(4)]);
    assert!(s.end(), "two are left");
    assert_eq!(s.push(&m(5), Some(id(5)), Urgency::Now), Pushed::Gone);
    assert_eq!(*noted.0.borrow(), [1, 2]);
}

#[test]
fn without_management_what_is_written_is_confirmed() {
    let (s, noted) = (session(), Noted::default());
    s.push(&m(1), Some(id(1)), Urgency::Now);
    assert_eq!(text(&s, 0, &noted), "<m>1</m>");
    s.push(&m(2), Some(id(2)), Urgency::Now);
    assert!(noted.0.borrow().is_empty(), "it may not be written yet");
    assert_eq!(text(&s, 0, &noted), "<m>2</m>");
    assert_eq!(*noted.0.borrow(), [1]);
    s.push(&m(3), Some(id(3)), Urgency::Now);
    s.written(0, &noted);
    assert_eq!(*noted.0.borrow(), [1, 2]);
    assert!(!s.detach(0));
    assert!(s.end(), "one is left");
}

#[test]
fn an_inactive_client_gets_presence_with_the_next_message() {
    let (s, noted) = (session(), Noted::default());
    s.set_inactive(true);
    s.push(&Bytes::from_static(b"<p/>"), None, Urgency::Later);
    assert_eq!(text(&s, 0, &noted), "");
    s.push(&Bytes::from_static(b"<m/>"), None, Urgency::Now);
    assert_eq!(text(&s, 0, &noted), "<p/><m/>");
    s.push(&Bytes::from_static(b"<p/>"), None, Urgency::Later);
    s.set_inactive(false);
    assert_eq!(text(&s, 0, &noted), "<p/>");
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    let s = session();
    let stanza = Bytes::from(vec![b'x'; 100]);
    let taken = (0..30).filter(|_| s.push(&stanza, None, Urgency::Now) == Pushed::Taken).count();
    assert_eq!((taken, s.closing()), (10, Some(Close::Overflow)));
    assert!(!s.detach(0));
}

#[test]
fn a_session_without_connection_keeps_a_bounded_number() {
    let s = session();
    assert!(s.manage("id") && s.detach(0));
    let waits = (1..100).filter(|n| s.push(&m(*n), Some(id(*n)), Urgency::Now) != Pushed::Taken).count();
    assert_eq!((waits, s.closing()), (90, None), "messages of the store stay there");
    for _ in 0..3 {
        assert_eq!(s.push(&m(0), None, Urgency::Now), Pushed::Taken, "there is room for others");
    }
    assert_eq!(s.push(&m(0), None, Urgency::Now), Pushed::Gone);
    assert_eq!(s.push(&m(0), None, Urgency::Now), Pushed::Gone);
}

#[test]
fn what_waits_comes_first_and_once() {
    let (s, noted) = (session(), Noted::default());
    let now = MessageId::first_at(crate::now_ms());
    s.fall_behind();
    assert_eq!(s.push(&m(9), Some(now), Urgency::Now), Pushed::Waits { begin: true });
    assert!(s.serve().is_some());
    assert!(s.serve().is_none(), "somebody does already");
    let anew = Some(MessageId::from_i64(0));
    assert_eq!(s.before_read(None), anew, "what others held was asked before, so it is asked again");
    assert_eq!(s.before_read(None), None, "once");
    assert!(s.hand_out(&m(9), now));
    assert!(s.caught_up());
    // Its sender's connection comes too late.
    assert_eq!(s.push(&m(9), Some(now), Urgency::Now), Pushed::Taken);
    let next = MessageId::from_i64(now.as_i64() + 1);
    assert_eq!(s.push(&m(10), Some(next), Urgency::Now), Pushed::Taken);
    assert_eq!(text(&s, 0, &noted), "<m>9</m><m>10</m>");
    // One that was committed late is found again.
    assert!(s.serve().is_some());
    assert_eq!(s.push(&m(8), Some(id(8)), Urgency::Now), Pushed::Waits { begin: false });
    assert!(!s.caught_up());
    assert_eq!(s.before_read(Some(id(9))), Some(id(8)));
    assert!(s.hand_out(&m(8), id(8)) && s.caught_up());
}

#[test]
fn what_came_for_a_session_behind_is_kept_until_it_is_handed_out() {
    let s = session();
    s.fall_behind();
    assert!(s.serve().is_some());
    for n in [3, 1, 2, 4] {
        assert_eq!(s.push(&m(n), Some(id(n)), Urgency::Now), Pushed::Waits { begin: false });
    }
    let kept = |last| s.kept(last).into_iter().map(|(id, _)| id.as_i64()).collect::<Vec<_>>();
    assert_eq!(
        (kept(None), kept(Some(id(2)))),
        (vec![], vec![1, 2]),
        "the page may have been read before they came"
    );
    assert_eq!(s.before_read(None), None);
    assert_eq!(kept(None), [1, 2, 3], "at most a quarter of twelve");
    assert!(s.hand_out(&m(1), id(1)));
    let large = Bytes::from(vec![b'x'; 300]);
    assert_eq!(s.push(&large, Some(id(5)), Urgency::Now), Pushed::Waits { begin: false });
    assert_eq!(
        (kept(None), kept(Some(id(9)))),
        (vec![2, 3], vec![2, 3]),
        "nor more than a quarter of the bytes"
    );
    assert_eq!(s.take_missed(), Some(id(2)), "another look begins with what is kept");
    assert!(s.hand_out(&m(2), id(2)) && !s.caught_up());
    assert!(s.hand_out(&m(3), id(3)) && s.caught_up());
    assert!(s.serve().is_some() && s.serve().is_none() && !s.is_asked_anew());
    s.stop_serving();
    assert!(s.is_asked_anew(), "the second one was sent away");
    assert!(s.serve().is_some() && !s.is_asked_anew());
    assert_eq!((s.before_read(None), s.caught_up()), (Some(id(0)), true));
    assert_eq!(s.push(&m(6), Some(id(6)), Urgency::Now), Pushed::Taken);
}

#[test]
fn going_unavailable_wakes_whoever_hands_out() {
    use futures_util::FutureExt as _;
    let (s, noted) = (session(), Noted::default());
    assert!(s.manage("id"));
    let room = s.serve().unwrap();
    for n in 1..=3 {
        assert!(s.hand_out(&m(n), id(n)));
    }
    assert_eq!(text(&s, 0, &noted).matches("<m>").count(), 3);
    assert!(room.notified().now_or_never().is_some(), "there may be room when something was written");
    assert_eq!((s.room(), room.notified().now_or_never()), (Room::None, None));
    s.set_presence(None);
    assert_eq!((s.room(), room.notified().now_or_never()), (Room::Closed, Some(())));
    s.stop_serving();
    assert!(!s.is_served() && !s.is_behind());
}

#[test]
fn what_was_handed_out_is_forgotten_in_time() {
    let (s, now) = (session(), crate::now_ms());
    assert!(s.serve().is_some());
    let new = MessageId::first_at(now);
    assert!(s.hand_out(&m(1), new));
    s.forget_recent(now + 1);
    assert!(s.had(new));
    s.forget_recent(now + 300_001);
    assert!(!s.had(new));
}
