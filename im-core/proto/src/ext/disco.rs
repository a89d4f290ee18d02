//! Service discovery (XEP-0030): answers from a list of identities and features.

use crate::ns;
use crate::xml::escape;

/// What an entity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Category, as `server`.
    pub category: &'static str,
    /// Type, as `im`.
    pub kind: &'static str,
    /// Name for people.
    pub name: &'static str,
}

/// Writes the `<query/>` of a disco#info answer.
pub fn info(node: Option<&str>, identities: &[Identity], features: &[&str], forms: &str) -> String {
    let mut out = format!("<query xmlns='{}'", ns::DISCO_INFO);
    push_node(&mut out, node);
    out.push('>');
    for identity in identities {
        out.push_str(&format!("<identity category='{}' type='{}'", identity.category, identity.kind));
        if !identity.name.is_empty() {
            out.push_str(&format!(" name='{}'", escape(identity.name)));
        }
        out.push_str("/>");
    }
    for feature in features {
        out.push_str("<feature var='");
        out.push_str(&escape(feature));
        out.push_str("'/>");
    }
    out.push_str(forms);
    out.push_str("</query>");
    out
}

/// Writes the `<query/>` of a disco#items answer from `(address, node, name)`.
pub fn items<'a>(node: Option<&str>, items: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> String {
    let mut out = format!("<query xmlns='{}'", ns::DISCO_ITEMS);
    push_node(&mut out, node);
    out.push('>');
    for (jid, item_node, name) in items {
        out.push_str(&format!("<item jid='{}'", escape(jid)));
        push_node(&mut out, (!item_node.is_empty()).then_some(item_node));
        if !name.is_empty() {
            out.push_str(&format!(" name='{}'", escape(name)));
        }
        out.push_str("/>");
    }
    out.push_str("</query>");
    out
}

fn push_node(out: &mut String, node: Option<&str>) {
    if let Some(node) = node {
        out.push_str(&format!(" node='{}'", escape(node)));
    }
}
