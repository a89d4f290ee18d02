//! Tests of the framer: what it takes, what it refuses, and that it agrees with an independent parser.

use super::*;

const OPEN: &str = "<?xml version='1.0'?><stream:stream to='im.example' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:x='urn:x'>";

/// Feeds `bytes` in pieces that end at `cuts` and returns the raw stanzas.
fn feed(bytes: &[u8], step: usize, mode: Mode) -> Result<Vec<String>, XmlError> {
    let mut framer = Framer::new(mode, Limits::default());
    let (mut attrs, mut out, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    for chunk in bytes.chunks(step) {
        buffer.extend_from_slice(chunk);
        while let Some((item, used)) = framer.next(&buffer, &mut attrs)? {
            let raw = String::from_utf8(buffer.drain(..used).collect()).unwrap();
            match item {
                Item::Open(header) => out.push(format!("open {}", header.to.unwrap_or_default())),
                Item::Stanza(head) => out.push(raw[head.tag.start as usize..].to_owned()),
                Item::Close => out.push("close".into()),
            }
        }
        let space = framer.skip_space(&buffer);
        buffer.drain(..space);
    }
    if buffer.is_empty() { Ok(out) } else { Ok([out, vec!["incomplete".into()]].concat()) }
}

#[test]
fn cuts_a_stream_at_any_boundary() {
    let stanzas = [
        "<message to='a@b'><body>x ]] &gt; &#x6C49; 汉 \"'</body></message>",
        "<presence/>",
        "<iq id='1' type=\"get\"\n><query xmlns='jabber:iq:roster' /></iq >",
        "<message><![CDATA[<not a tag> ]] ]]]></message>",
        "<x:y xml:lang='en'/>",
    ];
    let text = format!("{OPEN} {} \n {}\n</stream:stream>", stanzas[..2].concat(), stanzas[2..].concat());
    let mut want = vec!["open im.example".to_owned()];
    want.extend(stanzas.iter().map(|s| (*s).to_owned()));
    want.push("close".into());
    for step in [1, 2, 3, 7, 64, text.len()] {
        assert_eq!(feed(text.as_bytes(), step, Mode::Stream).unwrap(), want, "step {step}");
    }
}

#[test]
fn tells_what_a_stanza_holds() {
    let raw = "<message to='b@x' type='chat' id='7'><body>hi</body><active xmlns='http://jabber.org/protocol/chatstates'/><x:e><in/></x:e></message>";
    let mut framer = Framer::new(Mode::Stream, Limits::default());
    let mut attrs = Vec::new();
    framer.next(OPEN.as_bytes(), &mut attrs).unwrap().unwrap();
    let Some((Item::Stanza(head), _)) = framer.next(raw.as_bytes(), &mut attrs).unwrap() else { panic!() };
    assert_eq!(head.kind, StanzaKind::Message);
    assert_eq!(head.to.unwrap().str(raw), "b@x");
    assert_eq!(head.children.len(), 3);
    assert_eq!(head.children[0].whole.str(raw), "<body>hi</body>");
    assert!(head.child(raw, "active", ns::CHAT_STATES).is_some());
    assert_eq!(head.children[2].whole.str(raw), "<x:e><in/></x:e>");
    assert_eq!(head.child_ns(&head.children[2], raw), "");
    assert_eq!(framer.prefixes()[head.inherited[0] as usize].0.as_ref(), "x");
}

#[test]
fn messages_need_their_own_namespace() {
    let ok = "<message xmlns='jabber:client'><body/></message>";
    let mut framer = Framer::new(Mode::Messages, Limits::default());
    let mut attrs = Vec::new();
    let Some((Item::Stanza(head), _)) = framer.next(ok.as_bytes(), &mut attrs).unwrap() else { panic!() };
    assert_eq!((head.kind, head.child_ns(&head.children[0], ok)), (StanzaKind::Message, ns::CLIENT));
    let Some((Item::Stanza(head), _)) = framer.next(b"<message/>", &mut attrs).unwrap() else { panic!() };
    assert_eq!(head.kind, StanzaKind::Other);
}

#[test]
fn refuses_hostile_input() {
    let deep = "<a>".repeat(100);
    let wide = format!("<a {}/>", (0..100).map(|i| format!("a{i}=''")).collect::<Vec<_>>().join(" "));
    let long = format!("<a>{}", "x".repeat(300_000));
    let tag = format!("<a b='{}", "x".repeat(20_000));
    let cases: &[(&str, &str)] = &[
        ("<a><!-- c --></a>", "restricted-xml"),
        ("<!DOCTYPE a>", "restricted-xml"),
        ("<?pi x?>", "restricted-xml"),
        ("<a>&nbsp;</a>", "restricted-xml"),
        ("<a>&#0;</a>", "not-well-formed"),
        ("<a>& b</a>", "not-well-formed"),
        ("<a>]]></a>", "not-well-formed"),
        ("<a b='<'/>", "not-well-formed"),
        ("<a b=''c=''/>", "not-well-formed"),
        ("<a b='1' b='2'/>", "not-well-formed"),
        ("<a xmlns:p='u' xmlns:q='u' p:b='1' q:b='2'/>", "not-well-formed"),
        ("<a></b>", "not-well-formed"),
        ("<a:b:c/>", "not-well-formed"),
        ("<1a/>", "not-well-formed"),
        ("<a>\u{1}</a>", "not-well-formed"),
        ("<a>\u{ffff}</a>", "not-well-formed"),
        ("text", "not-well-formed"),
        ("<p:a/>", "bad-namespace-prefix"),
        ("<a p:b=''/>", "bad-namespace-prefix"),
        ("<a xmlns:xml='urn:no'/>", "bad-namespace-prefix"),
        ("<a xmlns:p=''/>", "bad-namespace-prefix"),
        (&deep, "policy-violation"),
        (&wide, "policy-violation"),
        (&long, "policy-violation"),
        (&tag, "policy-violation"),
    ];
    for (text, condition) in cases {
        for step in [1, 4096] {
            let result = feed(format!("{OPEN}{text}").as_bytes(), step, Mode::Stream);
            let name = &text[..text.len().min(40)];
            assert_eq!(result.map_err(XmlError::condition).unwrap_err(), *condition, "{name}");
        }
    }
    let mut bad = OPEN.as_bytes().to_vec();
    bad.extend_from_slice(b"<a>\xff\xfe</a>");
    assert_eq!(feed(&bad, 4096, Mode::Stream), Err(XmlError::Encoding));
    for header in [
        "<stream xmlns='jabber:client'>",
        "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams'>",
        "<?xml version='1.0' encoding='latin1'?><stream:stream>",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        assert!(feed(header.as_bytes(), 1, Mode::Stream).is_err(), "{header}");
    }
}

/// The verdict of an independent strict parser on what stands between the tags of a stream. Text between
/// stanzas is well-formed to it, but not allowed in XMPP.
fn oracle(text: &str) -> bool {
    use rxml::{Event, Parse as _};
    let mut parser = rxml::Parser::new();
    let document = format!("<r xmlns='jabber:client' xmlns:x='urn:x'>{text}</r>");
    let mut bytes = document.as_bytes();
    let mut depth = 0;
    loop {
        match parser.parse(&mut bytes, true) {
            Ok(Some(Event::StartElement(..))) => depth += 1,
            Ok(Some(Event::EndElement(..))) => depth -= 1,
            Ok(Some(Event::Text(_, text))) if depth == 1 && !text.trim().is_empty() => return false,
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Random documents, mutated: framer and oracle must agree on every one, whatever the chunk size.
#[test]
fn agrees_with_an_independent_parser() {
    use rand::{RngExt as _, SeedableRng as _};
    const PARTS: &[&str] = &[
        "<a>",
        "</a>",
        "<b/>",
        "<x:c>",
        "</x:c>",
        "<d e='f'/>",
        "<d e=\"&lt;'\" xmlns='urn:d'>",
        "</d>",
        "text",
        "&amp;",
        "&#65;",
        "<![CDATA[",
        "]]>",
        "汉",
        "]]",
        "&",
        "<",
        ">",
        "'",
        "\"",
        " ",
        "/",
        "=",
        "<p:q/>",
        "<p:q xmlns:p='urn:p'/>",
        "<d x:e='' e=''/>",
        "\n",
        "<é/>",
        "<a:/>",
        "<:a/>",
        "\u{b7}",
        "<a\u{b7}/>",
        "<\u{b7}a/>",
    ];
    let mut rng = rand::rngs::StdRng::seed_from_u64(11);
    let (mut good, mut bad) = (0, 0);
    for round in 0..5_000 {
        let mut inner = String::new();
        for _ in 0..rng.random_range(0..5) {
            inner.push_str(PARTS[rng.random_range(0..PARTS.len())]);
        }
        let text = format!("<a>{inner}</a>");
        let want = oracle(&text);
        for step in [1, 5, text.len()] {
            let got = feed(format!("{OPEN}{text}").as_bytes(), step, Mode::Stream);
            let accepted =
                got.as_ref().is_ok_and(|items| items.last().is_none_or(|last| last != "incomplete"));
            assert_eq!(accepted, want, "round {round}, step {step}: {text:?} gave {got:?}");
        }
        if want { good += 1 } else { bad += 1 }
    }
    assert!(good > 300 && bad > 300, "{good} good, {bad} bad");
}
