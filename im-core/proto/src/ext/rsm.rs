//! Result set management (XEP-0059): which page is wanted, which page is given.

use crate::ns;
use crate::xml::{Element, escape};

/// The wanted page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Most items to return.
    pub max: Option<usize>,
    /// Items after this one; empty means from the start.
    pub after: Option<String>,
    /// Items before this one; empty means the last page.
    pub before: Option<String>,
}

impl Request {
    /// Reads `<set/>` inside `parent`; a missing one asks for the first page. `None` when `max` is no number.
    pub fn read(parent: &Element) -> Option<Self> {
        let Some(set) = parent.child("set", ns::RSM) else { return Some(Self::default()) };
        let max = match set.child("max", ns::RSM) {
            Some(max) => Some(max.text().trim().parse().ok()?),
            None => None,
        };
        let text = |name| set.child(name, ns::RSM).map(Element::text);
        Some(Self { max, after: text("after"), before: text("before") })
    }
}

/// The page that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// Identifier of the first item.
    pub first: Option<String>,
    /// Identifier of the last item.
    pub last: Option<String>,
    /// Items in the whole result.
    pub count: Option<u64>,
}

impl Response {
    /// Writes `<set/>`.
    pub fn to_xml(&self) -> String {
        let mut out = format!("<set xmlns='{}'>", ns::RSM);
        if let Some(first) = &self.first {
            out.push_str(&format!("<first>{}</first>", escape(first)));
        }
        if let Some(last) = &self.last {
            out.push_str(&format!("<last>{}</last>", escape(last)));
        }
        if let Some(count) = self.count {
            out.push_str(&format!("<count>{count}</count>"));
        }
        out.push_str("</set>");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_page_request() {
        let parse = |x: &str| {
            Request::read(
                &Element::parse(&format!("<q><set xmlns='{}'>{x}</set></q>", ns::RSM), "", &[]).unwrap(),
            )
        };
        let page = parse("<max>10</max><before/>").unwrap();
        assert_eq!((page.max, page.before.as_deref(), page.after), (Some(10), Some(""), None));
        assert_eq!(parse("<max>ten</max>"), None);
        assert_eq!(parse("<max>-1</max>"), None);
    }

    #[test]
    fn writes_a_page() {
        let page = Response { first: Some("a&".into()), last: Some("b".into()), count: Some(2) };
        assert_eq!(
            page.to_xml(),
            "<set xmlns='http://jabber.org/protocol/rsm'><first>a&amp;</first><last>b</last><count>2</count></set>"
        );
    }
}
