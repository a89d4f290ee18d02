//! The agent of one host as seen from here: requests out, replies in, content when it is asked for.
//!
//! One request at a time. A reply line that is no protocol, a version that differs, a silence longer than the
//! deadline, or the end of the stream are errors that name host and step.

mod raw;

use super::{SLICE, Stream};
use crate::context::CancelFlag;
use crate::error::EngineError;
use maxim_model::wire::{Access, AgentError, ContentHeader, Reply, Request, WIRE_VERSION};
use std::io::{self, Read};
use std::time::{Duration, Instant};

/// The step of an error that another program of ours would not have.
pub(super) const OTHER_PROTOCOL: &str = "access.protocol";
/// Of which sources the agent of this program is made: one of the same version that is made of others is another.
pub(crate) const SOURCES: &str = env!("MAXIM_AGENT_SOURCES");
/// The longest reply line: facts and plans of a host are far below.
const LINE_LIMIT: usize = 64 << 20;
/// Content goes out in pieces of this size.
const PIECE: usize = 512 * 1024;
/// A small request must be taken by the transport within this time.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// What is owed is waited for so long before another request: it was late, and may be there any moment.
const CATCH_UP: Duration = Duration::from_secs(10);

/// A connection to an agent.
pub struct Agent {
    host: String,
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    scanned: usize,
    cancel: CancelFlag,
    /// What it said it may do.
    granted: Access,
    /// Requests whose last answer has not come: whoever asked did not wait any longer.
    owed: usize,
}

impl Agent {
    /// Says hello on a fresh stream.
    pub fn greet(
        host: &str,
        mut stream: Box<dyn Stream>,
        access: Access,
        cancel: CancelFlag,
        deadline: Duration,
    ) -> Result<Self, EngineError> {
        let mut line = serde_json::to_vec(&Request::Hello)
            .map_err(|error| EngineError::failed("connect", error.to_string()).on(host))?;
        line.push(b'\n');
        // An agent that cannot be written to has ended; reading its answer says why.
        let _ = stream.write_all(&line, Instant::now() + deadline);
        Self::greeted(host, stream, access, cancel, deadline)
    }

    /// Takes the answer to a hello that was sent already.
    pub fn greeted(
        host: &str,
        stream: Box<dyn Stream>,
        access: Access,
        cancel: CancelFlag,
        deadline: Duration,
    ) -> Result<Self, EngineError> {
        let mut agent = Self {
            host: host.into(),
            stream,
            received: Vec::new(),
            scanned: 0,
            cancel,
            granted: access,
            owed: 0,
        };
        agent.hello(access, deadline)?;
        Ok(agent)
    }

    /// Makes a read-only agent that was started for it one that may change things. It forgets its scope.
    pub fn promote(&mut self, deadline: Duration) -> Result<(), EngineError> {
        if self.granted == Access::Backup {
            // What it may do is fixed by the line in `authorized_keys`.
            return Ok(());
        }
        self.request("connect", &Request::Promote, deadline, |_| {})?;
        self.send("connect", &Request::Hello)?;
        self.hello(Access::Full, deadline)
    }

    fn hello(&mut self, access: Access, deadline: Duration) -> Result<(), EngineError> {
        let mut hello = None;
        let until = Instant::now() + deadline;
        while let Some(reply) = self.next("connect", until)? {
            if let Reply::Hello { wire, version, sources, access, .. } = reply {
                hello = Some((wire, version, sources, access));
            }
        }
        match hello {
            // The very same program: a task that one end does not know would be misunderstood.
            Some((WIRE_VERSION, version, sources, granted))
                if sources == SOURCES
                    && (granted == access
                        || granted == Access::Backup
                        || (access, granted) == (Access::ReadOnly, Access::Observe))
                    && version == env!("CARGO_PKG_VERSION") =>
            {
                self.granted = granted;
                Ok(())
            }
            Some((wire, version, sources, granted)) => Err(EngineError::failed(
                OTHER_PROTOCOL,
                format!(
                    "the agent speaks protocol {wire} (version {version}, sources {sources:?}, {granted:?}); {WIRE_VERSION}, {SOURCES:?} with {access:?} was expected"
                ),
            )
            .on(&self.host)
            .hint("run the command with the same maxim.ctl again; it copies itself to the host")),
            None => Err(self.broken("connect", "the agent did not say hello")),
        }
    }

    /// Whether it was started for one purpose alone, and reads no files of the state.
    pub fn is_limited(&self) -> bool {
        !matches!(self.granted, Access::ReadOnly | Access::Full)
    }

    /// Whether an answer that somebody has waited for has not come yet.
    pub const fn owes(&self) -> bool {
        self.owed > 0
    }

    /// Host name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sends a request and hands every reply but the last to `on_reply`.
    pub fn request(
        &mut self,
        step: &str,
        request: &Request,
        deadline: Duration,
        mut on_reply: impl FnMut(Reply),
    ) -> Result<(), EngineError> {
        self.send(step, request)?;
        let until = Instant::now() + deadline;
        while let Some(reply) = self.next(step, until)? {
            on_reply(reply);
        }
        Ok(())
    }

    /// Sends a request that is answered by exactly one value.
    pub fn ask<T>(
        &mut self,
        step: &str,
        request: &Request,
        deadline: Duration,
        pick: impl Fn(Reply) -> Option<T>,
    ) -> Result<T, EngineError> {
        let mut found = None;
        self.request(step, request, deadline, |reply| {
            if let Some(value) = pick(reply) {
                found = Some(value);
            }
        })?;
        found.ok_or_else(|| self.broken(step, "the agent answered something else"))
    }

    /// Sends a request; replies are then read by [`Agent::next`]. Answers that nobody waited for any longer are awaited
    /// first, so that none of them is taken for the answer to this one.
    pub fn send(&mut self, step: &str, request: &Request) -> Result<(), EngineError> {
        let until = Instant::now() + CATCH_UP;
        while self.owed > 0 {
            let line = self.line(step, until)?;
            match serde_json::from_slice(&line) {
                Ok(Reply::Done | Reply::Error(_)) => self.owed -= 1,
                Ok(_) => {}
                Err(_) => return Err(self.broken(step, "the agent is in the middle of something else")),
            }
        }
        let mut line = serde_json::to_vec(request)
            .map_err(|error| EngineError::failed(step, error.to_string()).on(&self.host))?;
        line.push(b'\n');
        let written = self.stream.write_all(&line, Instant::now() + WRITE_DEADLINE);
        // The line may hold secrets: do not leave it in freed memory.
        zeroize::Zeroize::zeroize(&mut line);
        written.map_err(|error| self.write_failed(step, &error))?;
        self.owed += 1;
        Ok(())
    }

    /// The next reply; none when the request is done. An error of the agent is returned as an error.
    pub fn next(&mut self, step: &str, until: Instant) -> Result<Option<Reply>, EngineError> {
        let line = self.line(step, until)?;
        let reply: Reply = match serde_json::from_slice(&line) {
            Ok(reply) => reply,
            Err(error) => {
                let shown: String = String::from_utf8_lossy(&line).chars().take(200).collect();
                return Err(self.broken(step, &format!("the agent said what is no reply ({error}): {shown}")));
            }
        };
        match reply {
            Reply::Done => {
                self.owed = self.owed.saturating_sub(1);
                Ok(None)
            }
            Reply::Error(AgentError { step: at, cause, hint }) => {
                self.owed = self.owed.saturating_sub(1);
                let step = if at.is_empty() { step.to_owned() } else { at };
                Err(EngineError::failed(step, cause).on(&self.host).hint(hint))
            }
            other => Ok(Some(other)),
        }
    }

    fn line(&mut self, step: &str, until: Instant) -> Result<Vec<u8>, EngineError> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(end) = self.received[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(self.scanned + end + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                self.scanned = 0;
                return Ok(line);
            }
            self.scanned = self.received.len();
            if self.received.len() > LINE_LIMIT {
                return Err(self.broken(step, "the agent sent a line that does not end"));
            }
            self.cancel.check(step).map_err(|error| error.on(&self.host))?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(EngineError::failed(step, "no answer from the agent within the deadline")
                    .on(&self.host)
                    .hint("look at the load of the host and at its network, then run the command again"));
            }
            match self.stream.read(&mut buffer, left.min(SLICE)) {
                Ok(0) => return Err(self.broken(step, "the agent ended")),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => return Err(self.broken(step, &format!("the connection broke ({error})"))),
            }
        }
    }

    /// Answers `NeedContent`: the header line, then exactly that many bytes.
    pub fn send_content(
        &mut self,
        step: &str,
        content: crate::delivery::Content,
        idle: Duration,
        mut progress: impl FnMut(u64),
    ) -> Result<(), EngineError> {
        let crate::delivery::Content { size, mut reader } = content;
        self.send_header(step, &ContentHeader { size: Some(size), refused: None })?;
        let mut piece = vec![0; PIECE];
        let mut sent = 0;
        while sent < size {
            self.cancel.check(step).map_err(|error| error.on(&self.host))?;
            let wanted = PIECE.min(usize::try_from(size - sent).unwrap_or(PIECE));
            let mut filled = 0;
            while filled < wanted {
                match reader.read(&mut piece[filled..wanted]) {
                    Ok(0) => {
                        return Err(EngineError::refused(step, "the content ends early").on(&self.host));
                    }
                    Ok(count) => filled += count,
                    Err(error) => return Err(EngineError::refused(step, error.to_string()).on(&self.host)),
                }
            }
            self.stream
                .write_all(&piece[..wanted], Instant::now() + idle)
                .map_err(|error| self.write_failed(step, &error))?;
            sent += wanted as u64;
            progress(sent);
        }
        // The digest of a member is known to be right only when its reader has said that it is at its end.
        match reader.read(&mut piece[..1]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(EngineError::refused(step, "the content is longer than announced").on(&self.host)),
            Err(error) => Err(EngineError::refused(step, error.to_string()).on(&self.host)),
        }
    }

    /// Answers `NeedContent` when there is none.
    pub fn refuse_content(&mut self, step: &str, why: &str) -> Result<(), EngineError> {
        self.send_header(step, &ContentHeader { size: None, refused: Some(why.into()) })
    }

    fn send_header(&mut self, step: &str, header: &ContentHeader) -> Result<(), EngineError> {
        let mut line = serde_json::to_vec(header)
            .map_err(|error| EngineError::failed(step, error.to_string()).on(&self.host))?;
        line.push(b'\n');
        self.stream
            .write_all(&line, Instant::now() + WRITE_DEADLINE)
            .map_err(|error| self.write_failed(step, &error))
    }

    /// Ends the agent: after the task in hand it releases its lock and goes. Waits for that, so that a host is not
    /// left while something is half done.
    pub fn finish(mut self, wait: Duration) {
        self.stream.close_input();
        let until = Instant::now() + wait;
        let mut buffer = [0; 4096];
        while Instant::now() < until {
            match self.stream.read(&mut buffer, SLICE) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(_) => return,
            }
        }
    }

    fn write_failed(&mut self, step: &str, error: &io::Error) -> EngineError {
        // An agent that refuses to go on says why before it ends: that is the better message.
        let until = Instant::now() + Duration::from_millis(200);
        while let Ok(line) = self.line(step, until) {
            if let Ok(Reply::Error(AgentError { step: at, cause, hint })) = serde_json::from_slice(&line) {
                return EngineError::failed(at, cause).on(&self.host).hint(hint);
            }
        }
        self.broken(step, &format!("the connection broke ({error})"))
    }

    fn broken(&mut self, step: &str, what: &str) -> EngineError {
        let said = self.stream.diagnosis();
        let cause = if said.is_empty() { what.to_owned() } else { format!("{what}; it said: {said}") };
        EngineError::failed(step, cause)
            .on(&self.host)
            .hint("when the host is up again, run the same command again; what is done is not done twice")
    }
}

#[cfg(test)]
mod tests {
    use super::Agent;
    use crate::context::CancelFlag;
    use crate::remote::Stream;
    use maxim_model::Secret;
    use maxim_model::wire::{Access, Reply, Request};
    use std::io;
    use std::time::{Duration, Instant};

    /// An agent that answers a request when the next one has come, or when it is looked for again.
    struct Late {
        asked: u32,
        answers: Vec<u8>,
        awaited: u32,
    }

    impl Stream for Late {
        fn write_all(&mut self, _bytes: &[u8], _deadline: Instant) -> io::Result<()> {
            self.asked += 1;
            Ok(())
        }

        fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
            if self.answers.is_empty() {
                self.awaited += 1;
                // The first look is in vain.
                if self.awaited % 2 == 1 {
                    std::thread::sleep(wait);
                    return Err(io::ErrorKind::TimedOut.into());
                }
                let status = self.asked;
                for reply in [Reply::Http { status: status as u16, body: Secret::default() }, Reply::Done] {
                    self.answers.extend(serde_json::to_vec(&reply).unwrap());
                    self.answers.push(b'\n');
                }
            }
            let count = buffer.len().min(self.answers.len());
            buffer[..count].copy_from_slice(&self.answers[..count]);
            self.answers.drain(..count);
            Ok(count)
        }

        fn close_input(&mut self) {}

        fn diagnosis(&mut self) -> String {
            String::new()
        }
    }

    #[test]
    fn a_late_answer_is_not_taken_for_that_to_the_next_request() {
        let stream = Box::new(Late { asked: 0, answers: Vec::new(), awaited: 0 });
        let mut agent = Agent {
            host: "a".into(),
            stream,
            received: Vec::new(),
            scanned: 0,
            cancel: CancelFlag::new(),
            granted: Access::Full,
            owed: 0,
        };
        let mut ask = |deadline| {
            agent.ask("status", &Request::Hello, Duration::from_millis(deadline), |reply| match reply {
                Reply::Http { status, .. } => Some(status),
                _ => None,
            })
        };
        assert!(ask(10).unwrap_err().cause.contains("within the deadline"));
        assert!(ask(10).unwrap_err().cause.contains("within the deadline"), "its own is late too");
        assert_eq!(ask(5000).unwrap(), 3);
    }
}
