//! One HTTP/1.1 request over a unix socket or a TCP port, without TLS: the IM core's administration and health.
//!
//! Each request has a connection of its own (`Connection: close`). Answers are bounded; chunked bodies are joined.

use crate::error::{Failure, Result};
use crate::{unix, wait};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};
use zeroize::Zeroize;

/// Bytes of an answer at most.
const BOUND: u64 = 8 << 20;

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// Sends one request to `tcp:HOST:PORT` or a socket's path; a body is sent as JSON.
pub fn exchange(to: &str, method: &str, path: &str, body: &str, patience: Duration) -> Result<Response> {
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain(method) || !plain(path) || !path.starts_with('/') {
        return Err(Failure::Invalid(format!("`{}` is not an HTTP request path", path.escape_debug())));
    }
    let end = Instant::now() + patience;
    let talk = |what: std::io::Error| {
        let said =
            if what.kind() == std::io::ErrorKind::WouldBlock || what.kind() == std::io::ErrorKind::TimedOut {
                format!("{method} {path}: no answer within {} ms", patience.as_millis())
            } else {
                format!("{method} {path}: {what}")
            };
        Failure::talk(to, said)
    };
    match to.strip_prefix("tcp:") {
        Some(target) => {
            let address = wait::resolve(target).map_err(|what| Failure::talk(to, what))?;
            let stream = TcpStream::connect_timeout(&address, patience).map_err(talk)?;
            stream.set_read_timeout(Some(patience)).map_err(talk)?;
            stream.set_write_timeout(Some(patience)).map_err(talk)?;
            converse(stream, target, method, path, body, end).map_err(talk)
        }
        None => {
            let stream = unix::connect(Path::new(to))?;
            stream.set_read_timeout(Some(patience)).map_err(talk)?;
            stream.set_write_timeout(Some(patience)).map_err(talk)?;
            converse(stream, "localhost", method, path, body, end).map_err(talk)
        }
    }
}

fn converse(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
    body: &str,
    end: Instant,
) -> std::io::Result<Response> {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n"
    );
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    request.push_str(body);
    let sent = stream.write_all(request.as_bytes()).and_then(|()| stream.flush());
    request.zeroize();
    sent?;
    let mut reader = BufReader::new(stream.take(BOUND));
    let (status, length, chunked) = head(&mut reader)?;
    let mut body = Vec::new();
    if status == 204 || status == 304 || method == "HEAD" {
        return Ok(Response { status, body });
    }
    if chunked {
        loop {
            in_time(end)?;
            let size = line(&mut reader)?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| malformed("a chunk's size"))?;
            if size == 0 {
                break;
            }
            let before = body.len() as u64;
            (&mut reader).take(size).read_to_end(&mut body)?;
            if body.len() as u64 - before != size {
                return Err(malformed("a chunk that ends early"));
            }
            line(&mut reader)?;
        }
    } else if let Some(length) = length {
        reader.take(length).read_to_end(&mut body)?;
        if body.len() as u64 != length {
            return Err(malformed("a body that ends early"));
        }
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(Response { status, body })
}

fn head(reader: &mut impl BufRead) -> std::io::Result<(u16, Option<u64>, bool)> {
    let first = line(reader)?;
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| malformed("a first line that is not HTTP/1"))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        let header = line(reader)?;
        if header.is_empty() {
            return Ok((status, length, chunked));
        }
        let Some((name, value)) = header.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse().map_err(|_| malformed("a content length"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.to_ascii_lowercase().contains("chunked");
        }
    }
}

fn line(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut text = Vec::new();
    reader.take(16 << 10).read_until(b'\n', &mut text)?;
    if text.last() != Some(&b'\n') {
        return Err(malformed("an answer that ends early"));
    }
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

fn malformed(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, format!("the server sent {what}"))
}

fn in_time(end: Instant) -> std::io::Result<()> {
    if Instant::now() < end { Ok(()) } else { Err(std::io::ErrorKind::TimedOut.into()) }
}

#[cfg(test)]
mod tests {
    use super::exchange;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    /// Serves one canned answer and returns what was asked.
    fn serve(answer: &'static [u8]) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = format!("tcp:{}", listener.local_addr().unwrap());
        let handle = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0; 1];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            stream.write_all(answer).unwrap();
            String::from_utf8(request).unwrap()
        });
        (to, handle)
    }

    #[test]
    fn length_chunks_and_open_end_are_read() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloEXTRA"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nhello",
        ] {
            let (to, handle) = serve(answer);
            let response = exchange(&to, "GET", "/readyz", "", Duration::from_secs(5)).unwrap();
            assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
            assert!(handle.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
        }
    }

    #[test]
    fn broken_answers_and_silence_are_errors() {
        for answer in [&b"SSH-2.0\r\n"[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", b""] {
            let (to, handle) = serve(answer);
            assert!(exchange(&to, "GET", "/", "", Duration::from_secs(5)).is_err());
            handle.join().unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = format!("tcp:{}", listener.local_addr().unwrap());
        let silence = exchange(&to, "GET", "/", "", Duration::from_millis(50)).unwrap_err().to_string();
        assert!(silence.contains("no answer within 50 ms"), "{silence}");
        assert!(exchange(&to, "GET", "/a\r\nX: y", "", Duration::from_secs(1)).is_err());
    }
}
