//! Looking once whether something answers: a port, a unix socket, an HTTP page. Each says what it saw instead.

use crate::http;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

/// What was seen instead of an answer.
pub type Seen = std::result::Result<(), String>;

/// Resolves `address:port`.
pub fn resolve(target: &str) -> std::result::Result<SocketAddr, String> {
    target
        .to_socket_addrs()
        .map_err(|error| format!("{target}: {error}"))?
        .next()
        .ok_or_else(|| format!("{target} has no address"))
}

/// A TCP connection is accepted.
pub fn port(target: &str, patience: Duration) -> Seen {
    TcpStream::connect_timeout(&resolve(target)?, patience)
        .map(drop)
        .map_err(|error| format!("{target}: {error}"))
}

/// A unix socket accepts a connection.
pub fn socket(path: &Path) -> Seen {
    crate::unix::connect(path).map(drop).map_err(|error| error.to_string())
}

/// A plain HTTP GET answers 200.
pub fn http(url: &str, patience: Duration) -> Seen {
    let Some((host, path)) =
        url.strip_prefix("http://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))
    else {
        return Err(format!("{url} is not an http:// address"));
    };
    let response = http::exchange(&format!("tcp:{host}"), "GET", &format!("/{path}"), "", patience)
        .map_err(|failure| failure.to_string())?;
    if response.status == 200 {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&response.body);
    let first: String = body.lines().next().unwrap_or_default().chars().take(200).collect();
    Err(format!("{url} answers {} {first}", response.status))
}
