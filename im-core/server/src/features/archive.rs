//! The message archive (XEP-0313) as its owner reads it: queries by page, metadata, preferences (XEP-0441).
//!
//! Results go out as messages before the answer that ends them. Writing is in [`crate::messages`].

use bytes::Bytes;
use im_proto::ext::{
    delay::{delay, stamp},
    forms, mam, rsm,
};
use im_proto::stanza::push_attr;
use im_proto::xml::escape;
use im_proto::{Address, StanzaError, ns};
use im_store::{
    Archive as _, ArchivePreferences, ArchiveQuery, ArchivedMessage, DefaultPolicy, MessageId, Page,
    Profiles as _, StoreError,
};

use super::{Answer, Feature, Request, store_failed};
use crate::session::Urgency;

/// The feature.
pub const FEATURE: Feature = Feature {
    payloads: &[("query", ns::MAM), ("prefs", ns::MAM), ("metadata", ns::MAM)],
    server: &[],
    account: &[ns::MAM, ns::MAM_EXTENDED, ns::STANZA_ID, ns::RSM],
    stream_features: "",
    handle: |request| Box::pin(answer(request)),
};

/// About the most bytes of one page.
const PAGE_BYTES: usize = 1024 * 1024;

async fn answer(request: Request<'_>) -> Result<Answer, StanzaError> {
    request.own_account()?;
    match (request.payload.name.as_str(), request.set) {
        ("query", true) => query(request).await,
        ("query", false) => Ok(Answer::Xml(format!(
            "<query xmlns='{}'>{}</query>",
            ns::MAM,
            forms::describe(ns::MAM, mam::FIELDS)
        ))),
        ("metadata", false) => metadata(request).await,
        ("prefs", false) => {
            let preferences = request.core.store.archive_preferences(request.session.address.bare()).await;
            Ok(Answer::Xml(preferences_xml(&preferences.map_err(|e| failed(&request, &e))?)))
        }
        ("prefs", true) => set_preferences(request).await,
        _ => Err(StanzaError::BAD_REQUEST),
    }
}

fn failed(request: &Request<'_>, error: &StoreError) -> StanzaError {
    match error {
        StoreError::UnknownMessage(_) => StanzaError::ITEM_NOT_FOUND,
        error => store_failed(request.core, "cannot read an archive", error),
    }
}

/// An identifier of a message in an archive; one that cannot be is not found there.
fn message_id(text: &str) -> Result<MessageId, StanzaError> {
    text.parse().map_err(|_| StanzaError::ITEM_NOT_FOUND)
}

fn to_store(query: &mam::Query, most: u32, bytes: usize) -> Result<ArchiveQuery, StanzaError> {
    let page = match (&query.page.before, &query.page.after) {
        (Some(before), _) if before.is_empty() => Page::Last,
        (Some(before), _) => Page::Before(message_id(before)?),
        (None, Some(after)) if !after.is_empty() => Page::After(message_id(after)?),
        _ => Page::First,
    };
    let optional = |id: &Option<String>| id.as_deref().map(message_id).transpose();
    let ids = query.ids.iter().map(|id| message_id(id)).collect::<Result<Vec<_>, _>>()?;
    Ok(ArchiveQuery {
        with: query.with.as_ref().map(|w| w.bare().to_owned()),
        start: query.start,
        end: query.end,
        after_id: optional(&query.after_id)?,
        before_id: optional(&query.before_id)?,
        ids: (!ids.is_empty()).then_some(ids),
        page,
        max: query.page.max.map_or(100, |max| u32::try_from(max).unwrap_or(u32::MAX)).min(most),
        count: true,
        flip: query.flip,
        bytes: Some(bytes),
    })
}

async fn query(request: Request<'_>) -> Result<Answer, StanzaError> {
    let (core, session) = (request.core, request.session);
    let query = mam::Query::read(request.payload)?;
    let limits = &core.config.limits;
    // A page fits into the outgoing queue with room for other things.
    let most = limits.archive_page.min(limits.unacknowledged_stanzas / 2) as u32;
    let bytes = (limits.outgoing_bytes as usize / 8).min(PAGE_BYTES);
    let wanted = to_store(&query, most, bytes)?;
    let page = core.store.query_archive(session.address.bare(), &wanted).await;
    let page = page.map_err(|e| failed(&request, &e))?;
    for message in &page.messages {
        let result =
            result(message, query.query_id.as_deref(), session.address.as_str(), session.address.bare());
        session.push(&result, None, Urgency::Now);
    }
    // The page's first and last are those of the archive's order, whichever way it is shown.
    let ids = page.messages.iter().map(|m| m.id);
    let set = rsm::Response {
        first: ids.clone().min().map(|id| id.to_string()),
        last: ids.max().map(|id| id.to_string()),
        count: page.count,
    };
    let complete = if page.complete { " complete='true'" } else { "" };
    Ok(Answer::Xml(format!("<fin xmlns='{}'{complete}>{}</fin>", ns::MAM, set.to_xml())))
}

/// One archived message as a result.
fn result(message: &ArchivedMessage, query_id: Option<&str>, to: &str, from: &str) -> Bytes {
    let text = std::str::from_utf8(&message.stanza).unwrap_or_default();
    let inner = text.strip_prefix("<message").unwrap_or_default();
    let mut out = String::with_capacity(text.len() + 400);
    out.push_str("<message");
    push_attr(&mut out, "to", to);
    push_attr(&mut out, "from", from);
    out.push_str(&format!("><result xmlns='{}' id='{}'", ns::MAM, message.id));
    if let Some(query_id) = query_id {
        push_attr(&mut out, "queryid", query_id);
    }
    out.push_str(&format!("><forwarded xmlns='{}'>", ns::FORWARD));
    out.push_str(&delay(from, message.id.timestamp_ms()));
    out.push_str(&format!("<message xmlns='{}'", ns::CLIENT));
    out.push_str(inner);
    out.push_str("</forwarded></result></message>");
    Bytes::from(out)
}

async fn metadata(request: Request<'_>) -> Result<Answer, StanzaError> {
    let bounds = request.core.store.archive_bounds(request.session.address.bare()).await;
    let inner = match bounds.map_err(|e| failed(&request, &e))? {
        Some((first, last)) => {
            let end = |name: &str, id: MessageId| {
                format!("<{name} id='{id}' timestamp='{}'/>", stamp(id.timestamp_ms()))
            };
            end("start", first) + &end("end", last)
        }
        None => String::new(),
    };
    Ok(Answer::Xml(format!("<metadata xmlns='{}'>{inner}</metadata>", ns::MAM)))
}

fn preferences_xml(preferences: &ArchivePreferences) -> String {
    let list = |name: &str, addresses: &[String]| {
        let jids: Vec<_> = addresses.iter().map(|a| format!("<jid>{}</jid>", escape(a))).collect();
        let jids = jids.concat();
        format!("<{name}>{jids}</{name}>")
    };
    format!(
        "<prefs xmlns='{}' default='{}'>{}{}</prefs>",
        ns::MAM,
        preferences.default.as_str(),
        list("always", &preferences.always),
        list("never", &preferences.never)
    )
}

async fn set_preferences(request: Request<'_>) -> Result<Answer, StanzaError> {
    let read_list = |name: &str| -> Result<Vec<String>, StanzaError> {
        let Some(list) = request.payload.child(name, ns::MAM) else { return Ok(Vec::new()) };
        list.children()
            .filter(|c| c.is("jid", ns::MAM))
            .map(|jid| {
                Address::parse(jid.text().trim())
                    .map(|a| a.to_string())
                    .map_err(|_| StanzaError::JID_MALFORMED)
            })
            .collect()
    };
    let default = request.payload.attr("default").and_then(DefaultPolicy::from_name);
    let preferences = ArchivePreferences {
        default: default.ok_or(StanzaError::BAD_REQUEST)?,
        always: read_list("always")?,
        never: read_list("never")?,
    };
    let owner = request.session.address.bare();
    let stored = request.core.store.set_archive_preferences(owner, &preferences).await;
    stored.map_err(|e| failed(&request, &e))?;
    request.session.user.forget();
    request.core.cluster.forget(request.core, owner);
    Ok(Answer::Xml(preferences_xml(&preferences)))
}
