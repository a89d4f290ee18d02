//! The way to an SSH server: a TCP connection, or a channel through a jump host.

use super::session::{CONNECT, Line, Target, Waited, refused};
use crate::error::EngineError;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// Connects.
pub fn tcp(target: &Target<'_>) -> Result<TcpStream, EngineError> {
    let (address, port) = (target.address, target.ssh.port);
    let place = format!("{address} port {port}");
    let resolved = (address, port).to_socket_addrs().map_err(|error| {
        refused(
            target,
            "access.unreachable",
            format!("{address} does not resolve: {error}"),
            "write an address into the topology, or add the name to DNS or /etc/hosts",
        )
    })?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for one in resolved {
        match TcpStream::connect_timeout(&one, CONNECT) {
            Ok(stream) => {
                let set = stream
                    .set_nodelay(true)
                    .and_then(|()| stream.set_nonblocking(true))
                    .and_then(|()| keep_alive(&stream).map_err(io::Error::from));
                set.map_err(|error| refused(target, "access.unreachable", error.to_string(), ""))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(match last.kind() {
        io::ErrorKind::ConnectionRefused => refused(
            target,
            "access.refused",
            format!("{place} refuses connections: no SSH server listens there"),
            "start it (`systemctl start ssh`), or set the right port with `ssh: {port: …}`",
        ),
        io::ErrorKind::TimedOut => refused(
            target,
            "access.unreachable",
            format!("{place} does not answer within 5 s"),
            "is the host up, and is the address right? a firewall may drop the port",
        ),
        _ => refused(
            target,
            "access.unreachable",
            format!("{place} cannot be reached: {last}"),
            "is the host up, and is there a route to it?",
        ),
    })
}

/// A host that was cut off is noticed within about ten seconds, idle or not.
fn keep_alive(stream: &TcpStream) -> nix::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &4)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &2)?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &10_000)
}

/// Opens a connection from a jump host to an address, and gives the near end of it as a stream. A thread carries the
/// bytes until either side ends.
pub fn through(jump: Line, target: &Target<'_>) -> Result<UnixStream, EngineError> {
    let at = |step: &str, what: String| {
        refused(
            target,
            step,
            what,
            "the jump host must be able to reach this address, and allow TCP forwarding",
        )
    };
    let failed = |what: String| at("access.jump", what);
    let place = format!("{} port {}", target.address, target.ssh.port);
    let channel = jump
        .drive(Instant::now() + CONNECT, || {
            jump.session().channel_direct_tcpip(target.address, target.ssh.port, None)
        })
        .map_err(|error| match error {
            Waited::Cancelled => EngineError::interrupted("connect").on(target.host),
            Waited::TooLong => {
                at("access.unreachable", format!("{place} did not answer the jump host within 5 s"))
            }
            Waited::Failed(error) => {
                // RFC 4254, 5.1: nobody listens there, or there is no way; anything else is the jump host's own refusal.
                let step =
                    if error.message().contains("connect failed") { "access.refused" } else { "access.jump" };
                at(step, format!("the jump host cannot reach {place} ({})", error.message()))
            }
        })?;
    let (near, far) = UnixStream::pair().map_err(|error| failed(error.to_string()))?;
    near.set_nonblocking(true).map_err(|error| failed(error.to_string()))?;
    far.set_nonblocking(true).map_err(|error| failed(error.to_string()))?;
    std::thread::Builder::new()
        .name(format!("jump-{}", target.host))
        .spawn(move || super::relay::relay(&jump, channel, far))
        .map_err(|error| failed(error.to_string()))?;
    Ok(near)
}
