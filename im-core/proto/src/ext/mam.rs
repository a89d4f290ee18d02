//! Message archive queries (XEP-0313), read into plain values.

use super::{delay::parse_stamp, forms::Form, rsm};
use crate::address::Address;
use crate::ns;
use crate::stanza::StanzaError;
use crate::xml::Element;

/// A query, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Echoed in results.
    pub query_id: Option<String>,
    /// Only messages with this address.
    pub with: Option<Address>,
    /// Not before, in milliseconds since 1970.
    pub start: Option<i64>,
    /// Not after, in milliseconds since 1970.
    pub end: Option<i64>,
    /// After this archive identifier (a form field, not paging).
    pub after_id: Option<String>,
    /// Before this archive identifier (a form field, not paging).
    pub before_id: Option<String>,
    /// Exactly these archive identifiers.
    pub ids: Vec<String>,
    /// Newest first within a page.
    pub flip: bool,
    /// The page.
    pub page: rsm::Request,
}

/// Fields that the form of [`Query`] knows, as `(type, name)`.
pub const FIELDS: &[(&str, &str)] = &[
    ("jid-single", "with"),
    ("text-single", "start"),
    ("text-single", "end"),
    ("text-single", "before-id"),
    ("text-single", "after-id"),
    ("list-multi", "ids"),
];

impl Query {
    /// Reads `<query/>`.
    ///
    /// # Errors
    /// `bad-request` or `jid-malformed` for values that cannot be understood, `feature-not-implemented` for
    /// unknown fields (XEP-0313 §4.1.1 wants them refused rather than ignored).
    pub fn read(query: &Element) -> Result<Self, StanzaError> {
        let mut out = Self {
            query_id: query.attr("queryid").map(Into::into),
            flip: query.child("flip-page", ns::MAM).is_some(),
            page: rsm::Request::read(query).ok_or(StanzaError::BAD_REQUEST)?,
            ..Self::default()
        };
        let Some(form) = Form::read(query, ns::MAM) else {
            return match query.child("x", ns::DATA_FORMS) {
                Some(_) => Err(StanzaError::BAD_REQUEST),
                None => Ok(out),
            };
        };
        for name in form.names() {
            let value = form.value(name).unwrap_or_default();
            match name {
                "FORM_TYPE" => {}
                "with" => out.with = Some(Address::parse(value).map_err(|_| StanzaError::JID_MALFORMED)?),
                "start" => out.start = Some(parse_stamp(value).ok_or(StanzaError::BAD_REQUEST)?),
                "end" => out.end = Some(parse_stamp(value).ok_or(StanzaError::BAD_REQUEST)?),
                "before-id" => out.before_id = Some(value.into()),
                "after-id" => out.after_id = Some(value.into()),
                "ids" => out.ids = form.values("ids").to_vec(),
                _ => return Err(StanzaError::FEATURE_NOT_IMPLEMENTED),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &str) -> Result<Query, StanzaError> {
        let raw = format!(
            "<query xmlns='{}' queryid='q'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>{0}</value></field>{fields}</x><flip-page/></query>",
            ns::MAM
        );
        Query::read(&Element::parse(&raw, "", &[]).unwrap())
    }

    #[test]
    fn reads_a_query() {
        let query = read("<field var='with'><value>A@x</value></field><field var='start'><value>2026-01-01T00:00:00Z</value></field>").unwrap();
        assert_eq!(query.with.unwrap().as_str(), "a@x");
        assert_eq!(query.start, Some(1_767_225_600_000));
        assert!(query.flip);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(
            read("<field var='colour'><value>red</value></field>"),
            Err(StanzaError::FEATURE_NOT_IMPLEMENTED)
        );
        assert_eq!(read("<field var='end'><value>soon</value></field>"), Err(StanzaError::BAD_REQUEST));
    }
}
