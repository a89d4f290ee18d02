//! One client's connection as bytes: TCP, TLS or WebSocket, read without buffers of its own.
//!
//! Reading goes through one scratch buffer per thread, and what is written is freed once it is gone, so that an
//! idle connection holds next to nothing. Everything here is poll-shaped; the tasks are elsewhere.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use crate::framing::{Framing, WebSocketInput, close_frame, frame};

/// What a WebSocket runs on.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The byte stream under a connection.
pub enum Transport {
    /// Not encrypted.
    Tcp(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// What an HTTP upgrade left.
    Upgraded(Box<dyn Io>),
    /// Taken away, to be replaced by TLS on top of it.
    Gone,
}

impl Transport {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(io) => Pin::new(io).poll_read(context, buffer),
            Self::Tls(io) => Pin::new(io).poll_read(context, buffer),
            Self::Upgraded(io) => Pin::new(io).poll_read(context, buffer),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(io) => Pin::new(io).poll_write(context, bytes),
            Self::Tls(io) => Pin::new(io).poll_write(context, bytes),
            Self::Upgraded(io) => Pin::new(io).poll_write(context, bytes),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(io) => Pin::new(io).poll_flush(context),
            Self::Upgraded(io) => Pin::new(io).poll_flush(context),
            Self::Tcp(_) | Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(context),
            Self::Tls(io) => Pin::new(io).poll_shutdown(context),
            Self::Upgraded(io) => Pin::new(io).poll_shutdown(context),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

const SCRATCH: usize = 32 * 1024;
/// While a WebSocket peer has this many bytes to take, nothing more is read from it: every ping has an answer.
const UNWRITTEN: usize = 64 * 1024;
/// A client that takes nothing for so long, with something to take, is gone.
const STALLED: Duration = Duration::from_mins(1);
/// How long a peer may take to hear that the stream has ended, and to end its own side.
const LINGER: Duration = Duration::from_millis(500);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// A connection: a transport with what was read and not yet used, and what is to be written.
pub struct Link {
    /// The byte stream.
    pub transport: Transport,
    /// How elements are framed.
    pub framing: Framing,
    /// Bytes read; those before `used` are done with.
    pub input: Vec<u8>,
    /// How much of `input` was used.
    pub used: usize,
    web: Option<Box<WebSocketInput>>,
    output: Vec<u8>,
    written: usize,
    needs_flush: bool,
    stall: Option<Pin<Box<Sleep>>>,
}

impl Link {
    /// A link over this transport.
    pub fn new(transport: Transport, framing: Framing) -> Self {
        Self {
            transport,
            framing,
            input: Vec::new(),
            used: 0,
            web: (framing == Framing::Messages).then(Box::default),
            output: Vec::new(),
            written: 0,
            needs_flush: false,
            stall: None,
        }
    }

    /// What was read and not yet used.
    pub fn unread(&self) -> &[u8] {
        &self.input[self.used..]
    }

    /// Says that `n` more bytes were used.
    pub fn consume(&mut self, n: usize) {
        self.used += n;
        if self.used == self.input.len() {
            self.input = Vec::new();
            self.used = 0;
        }
    }

    /// Reads what is there; 0 is the end.
    pub fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.used > 0 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        BUFFER.with_borrow_mut(|scratch| {
            loop {
                if self.web.is_some() && self.output.len() - self.written > UNWRITTEN {
                    ready!(self.poll_write(context))?;
                    // Who waits for room in the output is asked again.
                    context.waker().wake_by_ref();
                }
                let mut buffer = ReadBuf::new(scratch);
                ready!(self.transport.poll_read(context, &mut buffer))?;
                let bytes = buffer.filled();
                if bytes.is_empty() {
                    return Poll::Ready(Ok(0));
                }
                let Some(web) = &mut self.web else {
                    self.input.extend_from_slice(bytes);
                    return Poll::Ready(Ok(bytes.len()));
                };
                let before = self.input.len();
                if let Err(status) = web.feed(bytes, &mut self.input, &mut self.output) {
                    close_frame(&mut self.output, status);
                    return Poll::Ready(Ok(0));
                }
                if self.input.len() > before {
                    return Poll::Ready(Ok(self.input.len() - before));
                }
                if web.closed {
                    return Poll::Ready(Ok(0));
                }
                // Only control frames: their answers are written, then there may be more to read.
                if let Poll::Ready(Err(error)) = self.poll_write(context) {
                    return Poll::Ready(Err(error));
                }
            }
        })
    }

    /// Waits until something was read; 0 is the end.
    pub async fn read(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_read(context)).await
    }

    /// Puts an element into the output, framed.
    pub fn put(&mut self, xml: &str) {
        frame(self.framing, &mut self.output, xml);
    }

    /// The output, when all of it was written; for the session's outbox to swap its bytes in.
    pub fn free_output(&mut self) -> Option<&mut Vec<u8>> {
        self.output.is_empty().then_some(&mut self.output)
    }

    /// Writes the output. Ready when all of it is with the system.
    ///
    /// # Errors
    /// When the transport fails, or takes nothing for [`STALLED`].
    pub fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            match self.transport.poll_write(context, &self.output[self.written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    self.written += n;
                    self.needs_flush = true;
                    self.stall = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_stalled(context),
            }
        }
        if self.written > 0 {
            self.output = Vec::new();
            self.written = 0;
        }
        if self.needs_flush {
            match self.transport.poll_flush(context)? {
                Poll::Ready(()) => self.needs_flush = false,
                Poll::Pending => return self.poll_stalled(context),
            }
        }
        self.stall = None;
        Poll::Ready(Ok(()))
    }

    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes all output.
    pub async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_write(context)).await
    }

    /// Says goodbye and closes; at most two seconds. What the peer was still sending is read and dropped for a moment: a
    /// socket that is closed with something unread is reset, and the peer then loses what was said last, the
    /// acknowledgement of its messages for one.
    pub async fn close(&mut self) {
        match self.framing {
            Framing::Stream => self.put("</stream:stream>"),
            Framing::Messages => {
                self.put("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>");
                close_frame(&mut self.output, 1000);
            }
        }
        let all = async {
            let _ = self.flush().await;
            let _ = std::future::poll_fn(|context| self.transport.poll_shutdown(context)).await;
            let _ =
                tokio::time::timeout(LINGER, std::future::poll_fn(|context| self.poll_drop(context))).await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), all).await;
    }

    /// Reads and drops; ready at the peer's end.
    fn poll_drop(&mut self, context: &mut Context<'_>) -> Poll<()> {
        BUFFER.with_borrow_mut(|scratch| {
            loop {
                let mut buffer = ReadBuf::new(scratch);
                match ready!(self.transport.poll_read(context, &mut buffer)) {
                    Ok(()) if !buffer.filled().is_empty() => {}
                    _ => return Poll::Ready(()),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pongs that a peer does not take must not pile up; once it takes them, reading goes on.
    #[tokio::test]
    async fn a_websocket_that_takes_no_answers_is_not_read() {
        const PINGS: usize = 2_000;
        let (near, mut far) = tokio::io::duplex(4096);
        let mut link = Link::new(Transport::Upgraded(Box::new(near)), Framing::Messages);
        let ping = [&[0x89, 0xfd, 0, 0, 0, 0][..], &[b'x'; 125]].concat();
        let wire = ping.repeat(PINGS);
        let answers = (2 + 125) * PINGS;
        assert!(answers > 2 * (UNWRITTEN + SCRATCH), "too few to see anything");
        let (mut sent, mut taken, mut most) = (0, 0, 0);
        let mut context = Context::from_waker(std::task::Waker::noop());
        for round in 0..4_000 {
            if let Poll::Ready(n) = Pin::new(&mut far).poll_write(&mut context, &wire[sent..]) {
                sent += n.unwrap();
            }
            assert!(link.poll_read(&mut context).is_pending());
            most = most.max(link.output.len() - link.written);
            if round >= 1_000 {
                assert!(round > 1_000 || sent < wire.len(), "all was read though no answer was taken");
                let mut bytes = [0; 4096];
                let mut buffer = ReadBuf::new(&mut bytes);
                if Pin::new(&mut far).poll_read(&mut context, &mut buffer).is_ready() {
                    taken += buffer.filled().len();
                }
                let _ = link.poll_write(&mut context).map(Result::unwrap);
            }
            // A fresh budget of the runtime, or everything would say that it is not ready.
            tokio::task::yield_now().await;
        }
        assert!(most <= UNWRITTEN + SCRATCH, "{most} bytes waited");
        assert_eq!((sent, taken), (wire.len(), answers));
    }
}
