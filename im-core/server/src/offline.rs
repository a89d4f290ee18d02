//! Messages that wait for their receiver (XEP-0160): handed out in order when a session can take them.

use std::sync::Arc;

use bytes::Bytes;
use im_proto::ext::delay::delay;
use im_proto::ns;
use im_proto::stanza::{end_tag, insert_before_end};
use im_proto::xml::escape;
use im_store::{ArchivedMessage, Offline as _};

use crate::core::Core;
use crate::session::{Session, Urgency};

/// Messages read from the store at once.
const PAGE: u32 = 200;

/// Gives a session all that waits for its account. Only one session of an account is given messages at a time,
/// so that none goes out twice.
pub async fn flush(core: &Arc<Core>, session: &Arc<Session>) {
    let bare = session.address.bare();
    let _turn = session.user.offline.lock().await;
    loop {
        let page = match core.store.pending(bare, None, PAGE).await {
            Ok(page) if page.is_empty() => return,
            Ok(page) => page,
            Err(error) => {
                core.report("cannot read messages that wait", &error);
                return;
            }
        };
        let mut ids = Vec::with_capacity(page.len());
        for message in &page {
            let stanza = stamped(message, bare, core.domain.as_str());
            if !session.push(&stanza, Some(message.id), Urgency::Now) {
                break;
            }
            ids.push(message.id);
        }
        if !session.quiet {
            core.metrics.messages_delivered.add(ids.len() as u64);
        }
        let all = ids.len() == page.len();
        if let Err(error) = core.store.delivered(bare, &ids).await {
            core.report("cannot note that messages were delivered", &error);
            return;
        }
        if !all || page.len() < PAGE as usize {
            return;
        }
    }
}

/// A stored message with its identifier and the time it was stored.
fn stamped(message: &ArchivedMessage, owner: &str, domain: &str) -> Bytes {
    let text = std::str::from_utf8(&message.stanza).unwrap_or_default();
    let extra = format!(
        "<stanza-id xmlns='{}' by='{}' id='{}'/>{}",
        ns::STANZA_ID,
        escape(owner),
        message.id,
        delay(domain, message.id.timestamp_ms())
    );
    Bytes::from(insert_before_end(text, end_tag(text), &extra))
}
