//! The canary against a small server of this test's own: TLS, SCRAM and routing are real, everything else is not.

use super::{exchange, scram};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maxim_model::Secret;
use maxim_model::wire::CanaryRequest;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

const PASSWORD: &str = "correct-horse-7";

/// An authority and a certificate for `localhost` that it signed.
struct Certificates {
    authority: String,
    certificate: String,
    config: Arc<ServerConfig>,
}

fn certificates() -> Certificates {
    let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let chain = vec![CertificateDer::from(leaf.der().to_vec())];
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .unwrap();
    Certificates { authority: authority.pem(), certificate: leaf.pem(), config: Arc::new(config) }
}

fn read_until(stream: &mut impl Read, end: &str) -> String {
    let mut text = String::new();
    let mut byte = [0; 1];
    while !text.ends_with(end) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "the client closed after {text}");
        text.push(byte[0] as char);
    }
    text
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(found, _)| found)
}

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' from='localhost' id='1' version='1.0' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

/// Plays one connection; messages go into `sent`, those to deliver come from `deliver`.
fn play(
    mut socket: TcpStream,
    config: &Arc<ServerConfig>,
    sent: &Sender<String>,
    deliver: &Mutex<Receiver<String>>,
) -> std::io::Result<()> {
    read_until(&mut socket, "streams'>");
    write!(
        socket,
        "{HEADER}<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
    )?;
    read_until(&mut socket, "/>");
    write!(socket, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")?;
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), socket);
    // A client that does not trust us ends here.
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    read_until(&mut stream, "streams'>");
    write!(
        stream,
        "{HEADER}<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-256</mechanism>\
         </mechanisms></stream:features>"
    )?;
    stream.flush()?;
    let auth = read_until(&mut stream, "</auth>");
    let first = String::from_utf8(STANDARD.decode(between(&auth, "'>", "</auth>")).unwrap()).unwrap();
    let bare = first.strip_prefix("n,,").unwrap();
    let nonce = format!("{}server", bare.split_once("r=").unwrap().1);
    let challenge = format!("r={nonce},s={},i=4096", STANDARD.encode(b"salty salt"));
    write!(
        stream,
        "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</challenge>",
        STANDARD.encode(&challenge)
    )?;
    stream.flush()?;
    let response = read_until(&mut stream, "</response>");
    let answer =
        String::from_utf8(STANDARD.decode(between(&response, "'>", "</response>")).unwrap()).unwrap();
    let (without_proof, proof) = answer.split_once(",p=").unwrap();
    let signed = format!("{bare},{challenge},{without_proof}");
    let salted = scram::salted(PASSWORD, b"salty salt", NonZeroU32::new(4096).unwrap());
    let mut key = STANDARD.decode(proof).unwrap();
    let stored = scram::stored_key(&*salted);
    for (byte, mask) in key.iter_mut().zip(scram::sign(&stored, signed.as_bytes())) {
        *byte ^= mask;
    }
    if ring::digest::digest(&ring::digest::SHA256, &key).as_ref() != stored {
        write!(stream, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>")?;
        return stream.flush();
    }
    let signature = scram::sign(&scram::sign(&*salted, b"Server Key"), signed.as_bytes());
    let proof = STANDARD.encode(format!("v={}", STANDARD.encode(signature)));
    write!(stream, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{proof}</success>")?;
    stream.flush()?;
    read_until(&mut stream, "streams'>");
    write!(
        stream,
        "{HEADER}<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>"
    )?;
    stream.flush()?;
    read_until(&mut stream, "</iq>");
    write!(
        stream,
        "<iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>x@localhost/1</jid></bind></iq>"
    )?;
    stream.flush()?;
    if between(bare, "n=", ",") == "canary-a" {
        let message = read_until(&mut stream, "</message>");
        assert!(!message.contains("<presence"), "the sender shows itself: {message}");
        sent.send(message).unwrap();
        return Ok(());
    }
    read_until(&mut stream, "</iq>");
    write!(stream, "<presence from='x@localhost/1'/><iq type='result' id='ready'/>")?;
    stream.flush()?;
    if let Ok(message) = deliver.lock().unwrap().recv() {
        stream.write_all(message.as_bytes())?;
        stream.flush()?;
        // Stays until the client has read it.
        let _ = stream.read(&mut [0; 64]);
    }
    Ok(())
}

/// Serves two connections.
fn serve(config: Arc<ServerConfig>) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let handle = std::thread::spawn(move || {
        let (sender, receiver) = channel();
        let deliver = Arc::new(Mutex::new(receiver));
        let mut players = Vec::new();
        for _ in 0..2 {
            let Ok((socket, _)) = listener.accept() else { return };
            // The call that only wakes this thread at the end of a test.
            if socket.peer_addr().is_err() {
                return;
            }
            let (config, sender, deliver) = (Arc::clone(&config), sender.clone(), Arc::clone(&deliver));
            players.push(std::thread::spawn(move || {
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    play(socket, &config, &sender, &deliver)
                }));
            }));
        }
        drop(sender);
        for player in players {
            let _ = player.join();
        }
    });
    (address, handle)
}

fn request(address: &str, certificates: &Certificates) -> CanaryRequest {
    CanaryRequest {
        domain: "localhost".into(),
        from: address.into(),
        to: address.into(),
        sender: "canary-a".into(),
        sender_password: Secret::new(PASSWORD),
        receiver: "canary-b".into(),
        receiver_password: Secret::new(PASSWORD),
        ca_certificate: certificates.authority.clone(),
        pinned_certificate: String::new(),
        deadline_seconds: 20,
    }
}

#[test]
fn a_message_goes_through() {
    let certificates = certificates();
    let (address, handle) = serve(Arc::clone(&certificates.config));
    exchange(&request(&address, &certificates)).unwrap();
    handle.join().unwrap();
    let (address, handle) = serve(Arc::clone(&certificates.config));
    let pinned = CanaryRequest {
        ca_certificate: String::new(),
        pinned_certificate: certificates.certificate.clone(),
        ..request(&address, &certificates)
    };
    exchange(&pinned).unwrap();
    handle.join().unwrap();
}

#[test]
fn a_wrong_password_a_strange_certificate_and_silence_are_errors() {
    let (own, strange) = (certificates(), certificates());
    let (address, _server) = serve(Arc::clone(&own.config));
    let wrong = CanaryRequest { receiver_password: Secret::new("planted-wrong"), ..request(&address, &own) };
    let failure = exchange(&wrong).unwrap_err().to_string();
    assert!(
        failure.contains("not-authorized") && failure.contains(&address) && !failure.contains("planted"),
        "{failure}"
    );
    let (address, _server) = serve(Arc::clone(&own.config));
    let failure = exchange(&request(&address, &strange)).unwrap_err().to_string();
    assert!(failure.contains("certificate"), "{failure}");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let patient = CanaryRequest { deadline_seconds: 1, ..request(&address, &own) };
    let failure = exchange(&patient).unwrap_err().to_string();
    assert!(failure.contains("waited 1 s"), "{failure}");
}
