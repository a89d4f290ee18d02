//! Where clients find the WebSocket (RFC 7395 §4, XEP-0156).

use im_proto::xml::escape;

const RELATION: &str = "urn:xmpp:alt-connections:websocket";

/// host-meta as XRD.
pub fn xml(host: &str) -> String {
    format!(
        "<?xml version='1.0' encoding='UTF-8'?>\n<XRD xmlns='http://docs.oasis-open.org/ns/xri/xrd-1.0'>\
         <Link rel='{RELATION}' href='wss://{}/xmpp-websocket'/></XRD>\n",
        escape(host)
    )
}

/// host-meta as JSON.
pub fn json(host: &str) -> String {
    let link = serde_json::json!({"rel": RELATION, "href": format!("wss://{host}/xmpp-websocket")});
    serde_json::json!({"links": [link]}).to_string()
}
