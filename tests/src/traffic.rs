//! Message traffic through faults, with books: what a server acknowledged, what it refused, what arrived.
//!
//! [`Sender`] sends numbered messages and asks for acknowledgements (XEP-0198) all the time; when its connection
//! dies it signs in anew and goes on. [`Receiver`] does the same at the other end, with or without
//! acknowledgements. Both run in a thread of their own until told to end, are bounded in number and time, and give
//! their books. [`archived`] reads what is in an account's archive (XEP-0313).
//!
//! It deliberately never resumes a stream nor sends a message twice: each body stands for one decision of the
//! server, so "acknowledged" and "arrived" can be compared as sets.

use crate::chat::{Chat, attribute, between};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const NAMESPACE: &str = "urn:xmpp:sm:3";
/// Messages under way that are not acknowledged yet.
const WINDOW: usize = 16;
/// Between two looks at the connection; with the window it bounds the rate to about 800 messages a second.
const PACE: Duration = Duration::from_millis(20);
/// A connection on which nothing was acknowledged for so long is dead, although nobody closed it.
const SILENCE: Duration = Duration::from_secs(15);
/// A server that does not let anybody in for so long does not come back.
const PATIENCE: Duration = Duration::from_mins(2);
/// No scenario needs more.
const MOST: usize = 100_000;

/// Opens a connection that is bound and has sent no presence, on whichever node there is.
pub type Open = Box<dyn FnMut() -> Result<Chat> + Send>;

/// What a sender knows at its end.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Bodies that the server took responsibility for.
    pub acknowledged: BTreeSet<String>,
    /// Bodies that it sent back with an error: it did not take them.
    pub refused: BTreeSet<String>,
    /// Bodies whose fate nobody told before the connection died.
    pub unknown: BTreeSet<String>,
    /// Times it signed in.
    pub connections: usize,
    /// The longest time between two acknowledgements, while it had something to say.
    pub longest_pause: Duration,
}

/// What a receiver has seen at its end: bodies with how often each came.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Bodies with how often each came.
    pub bodies: BTreeMap<String, usize>,
    /// Times it signed in.
    pub connections: usize,
}

/// A thread that sends until it is ended.
pub struct Sender {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    thread: JoinHandle<Result<Sent>>,
}

/// Bodies that both threads know of.
fn shared(bodies: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
    bodies.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sender {
    /// Sends `WORD-0`, `WORD-1`, … to the address `to`.
    pub fn start(to: &str, word: &str, mut open: Open) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<BTreeSet<_>>>::default());
        let (to, word) = (to.to_owned(), word.to_owned());
        let (told, taken) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let thread = std::thread::spawn(move || {
            let mut books = Sent::default();
            let mut next = 0;
            let mut last = None;
            while !told.load(Ordering::Relaxed) {
                let Some(mut chat) = sign_in(&mut open, &told)? else { break };
                books.connections += 1;
                let mut pending = VecDeque::new();
                // How the connection died is what the scenario does; what counts is what it said before.
                send_on(
                    &mut chat,
                    &to,
                    &word,
                    &mut next,
                    &mut pending,
                    &mut books,
                    &mut last,
                    (&told, &taken),
                )
                .ok();
                books.unknown.extend(pending);
            }
            books.acknowledged.clone_from(&shared(&taken));
            for body in &books.refused {
                books.acknowledged.remove(body);
            }
            Ok(books)
        });
        Self { stop, acknowledged, thread }
    }

    /// How many were acknowledged until now.
    pub fn acknowledged(&self) -> usize {
        shared(&self.acknowledged).len()
    }

    /// Which were acknowledged until now.
    pub fn acknowledged_bodies(&self) -> BTreeSet<String> {
        shared(&self.acknowledged).clone()
    }

    /// Waits for the last acknowledgements and gives the books.
    ///
    /// # Panics
    ///
    /// When its thread panicked.
    pub fn end(self) -> Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sender's thread does not panic")
    }
}

/// Sends on one connection until it dies or the end comes. `heard`: when something was acknowledged last, on whichever
/// connection.
#[expect(clippy::too_many_arguments, reason = "what one connection hands to the next")]
fn send_on(
    chat: &mut Chat,
    to: &str,
    word: &str,
    next: &mut usize,
    pending: &mut VecDeque<String>,
    books: &mut Sent,
    heard: &mut Option<Instant>,
    (stop, taken): (&AtomicBool, &Mutex<BTreeSet<String>>),
) -> Result<()> {
    manage(chat)?;
    let (mut handled, mut incoming, mut last) = (0, 0, Instant::now());
    loop {
        let ending = stop.load(Ordering::Relaxed) || *next >= MOST;
        if ending && pending.is_empty() {
            return Ok(());
        }
        let mut out = String::new();
        while !ending && pending.len() < WINDOW {
            let body = format!("{word}-{next}");
            *next += 1;
            out.push_str(&format!(
                "<message type='chat' to='{to}' id='{body}'><body>{body}</body></message>"
            ));
            pending.push_back(body);
        }
        out.push_str(&format!("<r xmlns='{NAMESPACE}'/>"));
        chat.send(&out)?;
        let until = Instant::now() + PACE;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Some(stanza) = chat.poll(left)? else { continue };
            if let Some(told) = acknowledgement(&stanza) {
                ensure!(
                    told >= handled && told - handled <= pending.len(),
                    "h went from {handled} to {told}"
                );
                for body in pending.drain(..told - handled) {
                    let before = heard.replace(Instant::now());
                    let pause = before.map_or(Duration::ZERO, |before| before.elapsed());
                    books.longest_pause = books.longest_pause.max(pause);
                    shared(taken).insert(body);
                    last = Instant::now();
                }
                handled = told;
                continue;
            }
            if stanza.starts_with("<message") && attribute(&stanza, "type") == Some("error") {
                books.refused.extend(attribute(&stanza, "id").map(str::to_owned));
            }
            answer(chat, &stanza, &mut incoming)?;
        }
        ensure!(last.elapsed() < SILENCE, "nothing was acknowledged for {SILENCE:?}");
    }
}

/// A thread that receives until it is ended.
pub struct Receiver {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Result<Received>>,
}

impl Receiver {
    /// Receives with acknowledgements (`managed`) or without.
    pub fn start(managed: bool, mut open: Open) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            let mut books = Received::default();
            while !told.load(Ordering::Relaxed) {
                let Some(mut chat) = sign_in(&mut open, &told)? else { break };
                books.connections += 1;
                receive_on(&mut chat, managed, &mut books, &told, &counted).ok();
            }
            Ok(books)
        });
        Self { stop, count, thread }
    }

    /// How many different bodies came until now.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends the session and gives the books.
    ///
    /// # Panics
    ///
    /// When its thread panicked.
    pub fn end(self) -> Result<Received> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the receiver's thread does not panic")
    }
}

/// Receives on one connection until it dies or the end comes.
fn receive_on(
    chat: &mut Chat,
    managed: bool,
    books: &mut Received,
    stop: &AtomicBool,
    count: &AtomicUsize,
) -> Result<()> {
    if managed {
        manage(chat)?;
    }
    chat.send("<presence/>")?;
    let (mut incoming, mut heard, mut asked) = (0, Instant::now(), None::<Instant>);
    while !stop.load(Ordering::Relaxed) {
        if let Some(stanza) = chat.poll(PACE)? {
            (heard, asked) = (Instant::now(), None);
            if stanza.starts_with("</stream:stream") {
                // A server that goes in good order is told what came until then.
                if managed {
                    chat.send(&format!("<a xmlns='{NAMESPACE}' h='{incoming}'/>"))?;
                }
                return chat.send("</stream:stream>");
            }
            if let Some(body) = between(&stanza, "<body>", "</body>") {
                *books.bodies.entry(body.to_owned()).or_default() += 1;
                count.store(books.bodies.len(), Ordering::Relaxed);
            }
            answer(chat, &stanza, &mut incoming)?;
        } else if let Some(asked) = asked {
            ensure!(asked.elapsed() < SILENCE, "nobody answers");
        } else if heard.elapsed() > SILENCE / 3 {
            // Is anybody there? A host without power does not say that it went. The answer is a stanza as any other: it
            // is counted, and what comes before it is not dropped.
            chat.send("<iq type='get' id='there'><ping xmlns='urn:xmpp:ping'/></iq>")?;
            asked = Some(Instant::now());
        }
    }
    if managed {
        chat.send(&format!("<a xmlns='{NAMESPACE}' h='{incoming}'/>"))?;
    }
    chat.send("<presence type='unavailable'/></stream:stream>")
}

/// A new connection, tried for as long as it may take a node to come back; none when the end came first.
fn sign_in(open: &mut Open, stop: &AtomicBool) -> Result<Option<Chat>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match open() {
            Ok(chat) => return Ok(Some(chat)),
            Err(_) if stop.load(Ordering::Relaxed) => return Ok(None),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("nobody was let in for {PATIENCE:?}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Turns acknowledgements on; what is counted counts from here.
fn manage(chat: &mut Chat) -> Result<()> {
    chat.send(&format!("<enable xmlns='{NAMESPACE}'/>"))?;
    let answer = chat.wait("leave to acknowledge", Duration::from_secs(20), |stanza| {
        stanza.starts_with("<enabled") || stanza.starts_with("<failed")
    })?;
    ensure!(answer.starts_with("<enabled"), "no stream management: {answer}");
    Ok(())
}

/// How many stanzas the server says it has handled, when this is its acknowledgement.
fn acknowledgement(stanza: &str) -> Option<usize> {
    (stanza.starts_with("<a ") && stanza.contains(NAMESPACE)).then(|| attribute(stanza, "h")?.parse().ok())?
}

/// Counts what counts, and answers the server's own question.
fn answer(chat: &mut Chat, stanza: &str, incoming: &mut u32) -> Result<()> {
    if ["<message", "<presence", "<iq"].iter().any(|name| stanza.starts_with(name)) {
        *incoming = incoming.wrapping_add(1);
    } else if stanza.starts_with("<r ") || stanza.starts_with("<r/") {
        chat.send(&format!("<a xmlns='{NAMESPACE}' h='{incoming}'/>"))?;
    }
    Ok(())
}

/// All bodies in the archive of the account that is signed in.
pub fn archived(chat: &mut Chat) -> Result<BTreeSet<String>> {
    let (mut bodies, mut after) = (BTreeSet::new(), String::new());
    for page in 0..MOST {
        let id = format!("archive-{page}");
        let from = if after.is_empty() { String::new() } else { format!("<after>{after}</after>") };
        chat.send(&format!(
            "<iq type='set' id='{id}'><query xmlns='urn:xmpp:mam:2'>\
             <set xmlns='http://jabber.org/protocol/rsm'><max>200</max>{from}</set></query></iq>"
        ))?;
        let end = loop {
            let stanza = chat.wait("a page of the archive", Duration::from_secs(20), |_| true)?;
            if stanza.starts_with("<iq") && attribute(&stanza, "id") == Some(&id) {
                break stanza;
            }
            if stanza.contains("<result") {
                bodies.extend(between(&stanza, "<body>", "</body>").map(str::to_owned));
            }
        };
        ensure!(attribute(&end, "type") == Some("result"), "the archive is refused: {end}");
        if end.contains("complete='true'") || end.contains("complete=\"true\"") {
            return Ok(bodies);
        }
        let last =
            between(&end, "<last>", "</last>").context("a page that is not the last has a last entry")?;
        ensure!(last != after, "the archive does not advance: {end}");
        last.clone_into(&mut after);
    }
    bail!("the archive has no end")
}

#[cfg(test)]
mod tests {
    use super::acknowledgement;

    #[test]
    fn an_acknowledgement_is_told_from_a_stanza() {
        assert_eq!(acknowledgement("<a xmlns='urn:xmpp:sm:3' h='17'/>"), Some(17));
        assert_eq!(acknowledgement("<a h=\"0\" xmlns=\"urn:xmpp:sm:3\"/>"), Some(0));
        assert_eq!(acknowledgement("<message h='1'><body>urn:xmpp:sm:3</body></message>"), None);
        assert_eq!(acknowledgement("<a xmlns='other' h='1'/>"), None);
    }
}
