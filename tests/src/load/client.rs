//! A client under test: from the connection to the first presence.

use super::scram::{Cache, Hash, Scram};
use super::splitter::{Found, Splitter};
use super::{Mechanism, Target, Tls, tls};
use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::ServerName;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A connection, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What one read takes at most.
const READ: usize = 8192;

/// The receiving half.
pub struct Reader {
    stream: ReadHalf<Box<dyn Stream>>,
    splitter: Splitter,
}

impl Reader {
    async fn found(&mut self) -> Result<Found> {
        loop {
            if let Some(found) = self.splitter.next() {
                return Ok(found);
            }
            let buffer = self.splitter.buffer();
            buffer.reserve(READ);
            ensure!(self.stream.read_buf(buffer).await? > 0, "the server closed the connection");
        }
    }

    /// The next stanza.
    pub async fn stanza(&mut self) -> Result<&[u8]> {
        match self.found().await? {
            Found::Stanza { start, end } => Ok(self.splitter.slice(start, end)),
            Found::Opened => bail!("the stream was opened twice"),
            Found::Closed => bail!("the server closed the stream"),
        }
    }

    async fn text(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(self.stanza().await?).into_owned())
    }

    async fn answer(&mut self, id: &str) -> Result<String> {
        loop {
            let stanza = self.text().await?;
            if stanza.starts_with("<iq") && attribute(&stanza, "id") == Some(id) {
                return Ok(stanza);
            }
        }
    }

    /// Reads until the server ends the stream; gives memory back while nothing comes.
    pub async fn drain(&mut self) {
        self.splitter.shrink();
        while self.stanza().await.is_ok() {}
    }
}

/// An attribute of a stanza's own tag.
fn attribute<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    let tag = &stanza[..stanza.find('>')?];
    let (_, rest) = tag.split_once(&format!(" {name}="))?;
    let quote = rest.chars().next()?;
    rest[1..].split(quote).next()
}

/// A signed-in client.
pub struct Client {
    /// What it receives.
    pub reader: Reader,
    /// Where it sends.
    pub writer: WriteHalf<Box<dyn Stream>>,
    /// Its full address.
    pub address: String,
}

impl Client {
    /// Ends the stream and waits for the server to do so, five seconds at most.
    pub async fn close(mut self) {
        if self.writer.write_all(b"</stream:stream>").await.is_ok() {
            // Closed or not: nothing depends on it any more.
            let _ = timeout(Duration::from_secs(5), self.reader.drain()).await;
        }
    }
}

/// The accounts of a target.
#[derive(Clone)]
pub struct Clients {
    target: Arc<Target>,
    cache: Cache,
}

/// What came of many sign-ins.
pub struct SignedIn {
    /// Those that succeeded.
    pub clients: Vec<Client>,
    /// How long each took, in microseconds.
    pub micros: Vec<u64>,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, usize>,
    /// How long all of them took.
    pub elapsed: Duration,
}

impl Clients {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { target, cache: Cache::default() }
    }

    /// Signs in accounts number `first` to `first + count`.
    pub async fn sign_in_many(&self, first: usize, count: usize) -> SignedIn {
        let places = Arc::new(Semaphore::new(self.target.concurrency));
        let began = Instant::now();
        let tasks: Vec<_> = (first..first + count)
            .map(|number| {
                let (clients, places) = (self.clone(), Arc::clone(&places));
                tokio::spawn(async move {
                    let _place = places.acquire_owned().await?;
                    let began = Instant::now();
                    let client = clients.sign_in(number).await?;
                    anyhow::Ok((client, began.elapsed().as_micros() as u64))
                })
            })
            .collect();
        let mut signed_in = SignedIn {
            clients: Vec::new(),
            micros: Vec::new(),
            errors: BTreeMap::new(),
            elapsed: Duration::ZERO,
        };
        for task in tasks {
            match task.await.context("a client panicked").and_then(|outcome| outcome) {
                Ok((client, micros)) => {
                    signed_in.clients.push(client);
                    signed_in.micros.push(micros);
                }
                Err(error) => *signed_in.errors.entry(format!("{error:#}")).or_default() += 1,
            }
        }
        signed_in.elapsed = began.elapsed();
        signed_in
    }

    /// Connects, authenticates, binds, reads the roster, and is present when its own presence comes back.
    pub async fn sign_in(&self, number: usize) -> Result<Client> {
        timeout(self.target.deadline(), self.steps(number)).await.context("the sign-in took too long")?
    }

    async fn steps(&self, number: usize) -> Result<Client> {
        let (mut reader, mut writer, features) = self.connect().await?;
        self.authenticate(number, &features, &mut reader, &mut writer).await?;
        let features = self.open(&mut reader, &mut writer).await?;
        send(&mut writer, "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>load</resource></bind></iq>").await?;
        let bound = reader.answer("bind").await?;
        let address =
            between(&bound, "<jid>", "</jid>").with_context(|| format!("not bound: {bound}"))?.to_owned();
        if features.contains("ietf:params:xml:ns:xmpp-session") && !features.contains("<optional") {
            send(
                &mut writer,
                "<iq type='set' id='session'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>",
            )
            .await?;
            reader.answer("session").await?;
        }
        send(&mut writer, "<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq><presence/>")
            .await?;
        let (mut roster, mut presence) = (false, false);
        while !(roster && presence) {
            let stanza = reader.text().await?;
            roster |= stanza.starts_with("<iq") && attribute(&stanza, "id") == Some("roster");
            presence |= stanza.starts_with("<presence");
        }
        Ok(Client { reader, writer, address })
    }

    /// Makes an account by in-band registration; one that is there already is as good.
    pub async fn register(&self, number: usize) -> Result<()> {
        let steps = async {
            let (mut reader, mut writer, _) = self.connect().await?;
            let request = format!(
                "<iq type='set' id='register' to='{}'><query xmlns='jabber:iq:register'><username>{}</username>\
                 <password>{}</password></query></iq>",
                self.target.domain,
                self.target.user_name(number),
                self.target.password(number)
            );
            send(&mut writer, &request).await?;
            let answer = reader.answer("register").await?;
            let done = attribute(&answer, "type") == Some("result") || answer.contains("<conflict");
            ensure!(done, "not registered: {answer}");
            send(&mut writer, "</stream:stream>").await
        };
        timeout(self.target.deadline(), steps).await.context("the registration took too long")?
    }

    async fn connect(&self) -> Result<(Reader, WriteHalf<Box<dyn Stream>>, String)> {
        let target = &self.target;
        let mut socket = TcpStream::connect((target.host, target.port)).await.context("connect")?;
        socket.set_nodelay(true)?;
        if target.tls == Tls::Starttls {
            socket = self.ask_for_tls(socket).await?;
        }
        let stream: Box<dyn Stream> = if target.tls == Tls::None {
            Box::new(socket)
        } else {
            let name = ServerName::try_from(target.domain.clone())?;
            Box::new(tls::connector()?.connect(name, socket).await.context("TLS")?)
        };
        let (stream, mut writer) = tokio::io::split(stream);
        let mut reader = Reader { stream, splitter: Splitter::new() };
        let features = self.open(&mut reader, &mut writer).await?;
        Ok((reader, writer, features))
    }

    /// On the bare socket, so that nothing of what follows is read too early.
    async fn ask_for_tls(&self, mut socket: TcpStream) -> Result<TcpStream> {
        let mut splitter = Splitter::new();
        socket.write_all(self.header().as_bytes()).await?;
        let mut asked = false;
        loop {
            match splitter.next() {
                Some(Found::Stanza { start, end }) => {
                    let stanza = String::from_utf8_lossy(splitter.slice(start, end)).into_owned();
                    if !asked {
                        ensure!(
                            stanza.contains("urn:ietf:params:xml:ns:xmpp-tls"),
                            "STARTTLS is not offered: {stanza}"
                        );
                        asked = true;
                        socket.write_all(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await?;
                    } else if stanza.starts_with("<proceed") {
                        return Ok(socket);
                    } else {
                        bail!("no TLS: {stanza}");
                    }
                }
                Some(Found::Opened) => {}
                Some(Found::Closed) => bail!("the server closed the stream"),
                None => {
                    let read = socket.read_buf(splitter.buffer()).await?;
                    ensure!(read > 0, "the server closed the connection");
                }
            }
        }
    }

    fn header(&self) -> String {
        format!(
            "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>",
            self.target.domain
        )
    }

    /// Opens a stream and reads its features.
    async fn open(&self, reader: &mut Reader, writer: &mut WriteHalf<Box<dyn Stream>>) -> Result<String> {
        reader.splitter = Splitter::new();
        send(writer, &self.header()).await?;
        ensure!(reader.found().await? == Found::Opened, "no stream was opened");
        reader.text().await
    }

    async fn authenticate(
        &self,
        number: usize,
        features: &str,
        reader: &mut Reader,
        writer: &mut WriteHalf<Box<dyn Stream>>,
    ) -> Result<()> {
        let (user, password) = (self.target.user_name(number), self.target.password(number));
        let (name, hash) = match self.target.mechanism {
            Mechanism::Plain => ("PLAIN", None),
            Mechanism::ScramSha1 => ("SCRAM-SHA-1", Some(Hash::Sha1)),
            Mechanism::ScramSha256 => ("SCRAM-SHA-256", Some(Hash::Sha256)),
        };
        ensure!(features.contains(&format!(">{name}<")), "{name} is not offered: {features}");
        let sasl = "urn:ietf:params:xml:ns:xmpp-sasl";
        let Some(hash) = hash else {
            let proof = BASE64.encode(format!("\0{user}\0{password}"));
            send(writer, &format!("<auth xmlns='{sasl}' mechanism='{name}'>{proof}</auth>")).await?;
            let answer = reader.text().await?;
            ensure!(answer.starts_with("<success"), "not authenticated: {answer}");
            return Ok(());
        };
        let mut scram = Scram::new(hash, user, password, Arc::clone(&self.cache));
        send(writer, &format!("<auth xmlns='{sasl}' mechanism='{name}'>{}</auth>", scram.first())).await?;
        let challenge = reader.text().await?;
        ensure!(challenge.starts_with("<challenge"), "no challenge: {challenge}");
        let answer = scram.answer(between(&challenge, ">", "</").unwrap_or_default().trim())?;
        send(writer, &format!("<response xmlns='{sasl}'>{answer}</response>")).await?;
        let success = reader.text().await?;
        ensure!(success.starts_with("<success"), "not authenticated: {success}");
        scram.verify(between(&success, ">", "</").unwrap_or_default())
    }
}

async fn send(writer: &mut WriteHalf<Box<dyn Stream>>, text: &str) -> Result<()> {
    Ok(writer.write_all(text.as_bytes()).await?)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}
