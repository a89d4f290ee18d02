//! One HTTP/1.1 exchange as bytes (RFC 9112), without I/O: as much of it as the socket's own server speaks.
//!
//! Requests carry `Content-Length` and `Connection: close`. Responses may be framed by `Content-Length`, by
//! chunks, or by the end of the connection, and are at most 16 MB. Not here: redirects, compression, keep-alive.

use crate::types::{ApiError, ErrorCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Larger responses are refused: the largest list of 1000 users is well below.
const MAX_RESPONSE: usize = 16 * 1024 * 1024;

/// A request, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Request {
    // The body may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = self.bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        write!(f, "Request({})", String::from_utf8_lossy(line))
    }
}

impl Request {
    /// `GET` of a path of [`paths`](crate::paths).
    pub fn get(path: &str) -> Self {
        Self { bytes: head("GET", path, 0).into_bytes() }
    }

    /// `POST` of a JSON body to a path of [`paths`](crate::paths).
    pub fn post(path: &str, body: &impl Serialize) -> Result<Self, serde_json::Error> {
        let body = serde_json::to_vec(body)?;
        let mut bytes = head("POST", path, body.len()).into_bytes();
        bytes.extend_from_slice(&body);
        Ok(Self { bytes })
    }

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn head(method: &str, path: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: maxim-im\r\nConnection: close\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// A response that makes no sense, or that says no.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not a response of the administration socket.
    #[error("the administration socket answered with what is not HTTP: {0}")]
    Malformed(&'static str),
    /// The connection ended before the response did.
    #[error("the administration socket closed the connection before its answer was complete")]
    Incomplete,
    /// The body is not what the path answers with.
    #[error("the administration socket answered with status {status} and a body that is not understood")]
    Body {
        /// HTTP status.
        status: u16,
        /// What is wrong with the body.
        #[source]
        source: serde_json::Error,
    },
    /// The IM core refused.
    #[error("the IM core refused ({status})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        #[source]
        error: ApiError,
    },
}

impl DecodeError {
    /// The code of a refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        if let Self::Refused { error, .. } = self { Some(error.code) } else { None }
    }
}

/// A response taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// HTTP status.
    pub status: u16,
    /// The body without its framing.
    pub body: Vec<u8>,
}

enum Framing {
    Length(usize),
    Chunks,
    UntilEnd,
}

struct Head {
    status: u16,
    framing: Framing,
    body_at: usize,
}

/// Whether the bytes received so far are a whole response, so that reading can stop. Also true when they can
/// never become one.
pub fn response_is_complete(bytes: &[u8]) -> bool {
    match parse(bytes, false) {
        Ok(parsed) => parsed.is_some(),
        Err(_) => true,
    }
}

impl HttpResponse {
    /// Takes apart all bytes of a connection that has ended.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        parse(bytes, true)?.ok_or(DecodeError::Incomplete)
    }
}

/// The response to a request, or what was refused. A status of 503 whose body is the expected answer is the
/// answer (readiness).
pub fn decode_response<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let HttpResponse { status, body } = HttpResponse::parse(bytes)?;
    let value = serde_json::from_slice(&body);
    if (200..300).contains(&status) {
        return value.map_err(|source| DecodeError::Body { status, source });
    }
    match (serde_json::from_slice::<ApiError>(&body), value) {
        (Ok(error), _) => Err(DecodeError::Refused { status, error }),
        (Err(_), Ok(value)) if status == 503 => Ok(value),
        (Err(source), _) => Err(DecodeError::Body { status, source }),
    }
}

fn parse(bytes: &[u8], ended: bool) -> Result<Option<HttpResponse>, DecodeError> {
    if bytes.len() > MAX_RESPONSE {
        return Err(DecodeError::Malformed("the answer is larger than 16 MB"));
    }
    let Some(head) = parse_head(bytes)? else { return Ok(None) };
    let rest = &bytes[head.body_at..];
    let body = match head.framing {
        Framing::Length(length) => rest.get(..length).map(<[u8]>::to_vec),
        Framing::Chunks => unchunk(rest)?,
        Framing::UntilEnd => ended.then(|| rest.to_vec()),
    };
    Ok(body.map(|body| HttpResponse { status: head.status, body }))
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>, DecodeError> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > 16 * 1024 {
            Err(DecodeError::Malformed("its head has no end"))
        } else {
            Ok(None)
        };
    };
    let text =
        std::str::from_utf8(&bytes[..end]).map_err(|_| DecodeError::Malformed("its head is not text"))?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.get(2..5))
        .and_then(|code| code.parse().ok())
        .ok_or(DecodeError::Malformed("its first line"))?;
    let mut framing = Framing::UntilEnd;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(DecodeError::Malformed("a header line"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(DecodeError::Malformed("its transfer encoding"));
            }
            framing = Framing::Chunks;
        } else if name.eq_ignore_ascii_case("content-length") && !matches!(framing, Framing::Chunks) {
            framing = Framing::Length(value.parse().map_err(|_| DecodeError::Malformed("its length"))?);
        }
    }
    Ok(Some(Head { status, framing, body_at: end + 4 }))
}

fn unchunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
    let wrong = || DecodeError::Malformed("a chunk");
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&rest[..line]).map_err(|_| wrong())?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|_| wrong())?;
        if size > MAX_RESPONSE {
            return Err(wrong());
        }
        let (from, to) = (line + 2, line + 2 + size);
        let Some(after) = rest.get(to..to + 2) else { return Ok(None) };
        if after != b"\r\n" {
            return Err(wrong());
        }
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&rest[from..to]);
        rest = &rest[to + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;
    use crate::types::{CreateUser, Empty, Password, Readiness, User};

    const USER: &str = r#"{"address":"a@x","disabled":false,"created_at":1,"new_field":true}"#;

    #[test]
    fn a_request_is_whole_and_its_debug_output_hides_the_password() {
        let body = CreateUser { address: "a".into(), password: Password::new("hunter2"), name: None };
        let request = Request::post(paths::USER_CREATE, &body).unwrap();
        let text = String::from_utf8(request.as_bytes().to_vec()).unwrap();
        let (head, sent) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/users/create HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", sent.len())), "{head}");
        assert_eq!(sent, r#"{"address":"a","password":"hunter2"}"#);
        assert_eq!(format!("{request:?}{body:?}").matches("hunter2").count(), 0);
    }

    #[test]
    fn three_framings_give_the_same_answer_and_no_prefix_does() {
        let whole = [
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{USER}", USER.len()),
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\r\n{:x};x=y\r\n{}\r\n0\r\n\r\n",
                &USER[..3],
                USER.len() - 3,
                &USER[3..]
            ),
        ];
        for text in &whole {
            let user: User = decode_response(text.as_bytes()).unwrap();
            assert_eq!(user.address, "a@x");
            assert!(response_is_complete(text.as_bytes()));
            for cut in 0..text.len() {
                assert!(!response_is_complete(&text.as_bytes()[..cut]), "{cut}");
                assert!(decode_response::<User>(&text.as_bytes()[..cut]).is_err(), "{cut}");
            }
        }
        let open = format!("HTTP/1.1 200 OK\r\n\r\n{USER}");
        assert!(!response_is_complete(open.as_bytes()));
        assert_eq!(decode_response::<User>(open.as_bytes()).unwrap().created_at, 1);
    }

    #[test]
    fn a_refusal_keeps_its_code_and_a_503_can_be_an_answer() {
        let error = r#"{"code":"user_exists","message":"a@x is taken","hint":"choose another"}"#;
        let text = format!("HTTP/1.1 409 Conflict\r\nContent-Length: {}\r\n\r\n{error}", error.len());
        assert_eq!(
            decode_response::<Empty>(text.as_bytes()).unwrap_err().code(),
            Some(ErrorCode::UserExists)
        );

        let newer = r#"{"code":"something_new","message":"no"}"#;
        let text = format!("HTTP/1.1 400 Bad\r\nContent-Length: {}\r\n\r\n{newer}", newer.len());
        assert_eq!(decode_response::<Empty>(text.as_bytes()).unwrap_err().code(), Some(ErrorCode::Unknown));

        let ready = r#"{"ready":false,"version":"1","checks":[]}"#;
        let text = format!("HTTP/1.1 503 No\r\nContent-Length: {}\r\n\r\n{ready}", ready.len());
        assert!(!decode_response::<Readiness>(text.as_bytes()).unwrap().ready);
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        ] {
            assert!(decode_response::<User>(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
