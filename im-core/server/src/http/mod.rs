//! HTTP: the web chat and the WebSocket over TLS, metrics and health on loopback.
//!
//! One module per surface; the HTTP API of later versions is another one, reached from [`public`].

pub mod assets;
pub mod host_meta;
pub mod monitoring;
pub mod public;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};

/// A body that is there in one piece.
pub type Body = http_body::Full;

/// Bodies without streaming.
pub mod http_body {
    use super::Bytes;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// One piece of bytes.
    #[derive(Debug, Default)]
    pub struct Full(Option<Bytes>);

    impl Full {
        /// This piece.
        pub fn new(bytes: Bytes) -> Self {
            Self((!bytes.is_empty()).then_some(bytes))
        }
    }

    impl hyper::body::Body for Full {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(hyper::body::Frame::data(bytes))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_none()
        }

        fn size_hint(&self) -> hyper::body::SizeHint {
            hyper::body::SizeHint::with_exact(self.0.as_ref().map_or(0, |b| b.len() as u64))
        }
    }
}

/// A response with a text.
pub fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// "There is nothing here."
pub fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "There is nothing at this address.\n")
}

/// "This path takes other methods."
pub fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response =
        text(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "This method is not used here.\n");
    response.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The body of a request, when it is at most `limit` bytes.
///
/// # Errors
/// The status that tells the client.
pub async fn read_body(request: Request<Incoming>, limit: usize) -> Result<Vec<u8>, StatusCode> {
    use hyper::body::Body as _;
    let mut body = std::pin::pin!(request.into_body());
    let mut out = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        if let Some(data) = frame.data_ref() {
            if out.len() + data.len() > limit {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            out.extend_from_slice(data);
        }
    }
    Ok(out)
}
