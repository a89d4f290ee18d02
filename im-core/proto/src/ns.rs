//! Namespace names of the protocols spoken here, each with the document that defines it.
//!
//! Only constants: a name is written once, so that a typing error cannot make two of it.

macro_rules! namespaces {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => { $($(#[$doc])* pub const $name: &str = $value;)* };
}

namespaces! {
    /// RFC 6120: content of a client stream.
    CLIENT = "jabber:client";
    /// RFC 6120: the stream itself.
    STREAM = "http://etherx.jabber.org/streams";
    /// RFC 6120 §4.9: stream error conditions.
    STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams";
    /// RFC 6120 §8.3: stanza error conditions.
    STANZA_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas";
    /// RFC 6120 §5: STARTTLS.
    TLS = "urn:ietf:params:xml:ns:xmpp-tls";
    /// RFC 6120 §6: SASL.
    SASL = "urn:ietf:params:xml:ns:xmpp-sasl";
    /// RFC 6120 §7: resource binding.
    BIND = "urn:ietf:params:xml:ns:xmpp-bind";
    /// RFC 3921 §3: session establishment, a no-op today.
    SESSION = "urn:ietf:params:xml:ns:xmpp-session";
    /// RFC 7395: framing over WebSocket.
    FRAMING = "urn:ietf:params:xml:ns:xmpp-framing";
    /// RFC 6121 §2: roster.
    ROSTER = "jabber:iq:roster";
    /// XEP-0237 (RFC 6121 §2.6): roster versioning feature.
    ROSTER_VERSIONING = "urn:xmpp:features:rosterver";
    /// RFC 6121 §3.4: pre-approval feature.
    PRE_APPROVAL = "urn:xmpp:features:pre-approval";
    /// XEP-0012: last activity.
    LAST = "jabber:iq:last";
    /// XEP-0030: discovery of identity and features.
    DISCO_INFO = "http://jabber.org/protocol/disco#info";
    /// XEP-0030: discovery of items.
    DISCO_ITEMS = "http://jabber.org/protocol/disco#items";
    /// XEP-0004: data forms.
    DATA_FORMS = "jabber:x:data";
    /// XEP-0049: private XML storage.
    PRIVATE = "jabber:iq:private";
    /// XEP-0054: vCard.
    VCARD = "vcard-temp";
    /// XEP-0059: result set management.
    RSM = "http://jabber.org/protocol/rsm";
    /// XEP-0060: publish-subscribe.
    PUBSUB = "http://jabber.org/protocol/pubsub";
    /// XEP-0060: publish-subscribe events.
    PUBSUB_EVENT = "http://jabber.org/protocol/pubsub#event";
    /// XEP-0060: publish-subscribe errors.
    PUBSUB_ERRORS = "http://jabber.org/protocol/pubsub#errors";
    /// XEP-0060: publish-subscribe node owner.
    PUBSUB_OWNER = "http://jabber.org/protocol/pubsub#owner";
    /// XEP-0060 §7.1.5: publish options.
    PUBLISH_OPTIONS = "http://jabber.org/protocol/pubsub#publish-options";
    /// XEP-0077: in-band registration.
    REGISTER = "jabber:iq:register";
    /// XEP-0077: stream feature of in-band registration.
    REGISTER_FEATURE = "http://jabber.org/features/iq-register";
    /// XEP-0085: chat states.
    CHAT_STATES = "http://jabber.org/protocol/chatstates";
    /// XEP-0092: software version.
    VERSION = "jabber:iq:version";
    /// XEP-0115: entity capabilities.
    CAPS = "http://jabber.org/protocol/caps";
    /// XEP-0160: offline messages, as a feature.
    OFFLINE_FEATURE = "msgoffline";
    /// XEP-0184: delivery receipts.
    RECEIPTS = "urn:xmpp:receipts";
    /// XEP-0191: blocking.
    BLOCKING = "urn:xmpp:blocking";
    /// XEP-0191: blocking errors.
    BLOCKING_ERRORS = "urn:xmpp:blocking:errors";
    /// XEP-0198: stream management.
    SM = "urn:xmpp:sm:3";
    /// XEP-0199: ping.
    PING = "urn:xmpp:ping";
    /// XEP-0202: entity time.
    TIME = "urn:xmpp:time";
    /// XEP-0203: delayed delivery.
    DELAY = "urn:xmpp:delay";
    /// XEP-0280: carbons.
    CARBONS = "urn:xmpp:carbons:2";
    /// XEP-0280: rules for carbons, as a feature.
    CARBONS_RULES = "urn:xmpp:carbons:rules:0";
    /// XEP-0297: forwarding.
    FORWARD = "urn:xmpp:forward:0";
    /// XEP-0313: message archive.
    MAM = "urn:xmpp:mam:2";
    /// XEP-0313: extended archive queries.
    MAM_EXTENDED = "urn:xmpp:mam:2#extended";
    /// XEP-0334: processing hints.
    HINTS = "urn:xmpp:hints";
    /// XEP-0352: client state indication.
    CSI = "urn:xmpp:csi:0";
    /// XEP-0359: stanza identifiers.
    STANZA_ID = "urn:xmpp:sid:0";
    /// XEP-0398: avatar conversion between vCard and personal eventing.
    AVATAR_CONVERSION = "urn:xmpp:pep-vcard-conversion:0";
    /// XEP-0440: channel-binding types offered with SASL.
    SASL_CB = "urn:xmpp:sasl-cb:0";
    /// XEP-0045: group chat.
    MUC_USER = "http://jabber.org/protocol/muc#user";
}
