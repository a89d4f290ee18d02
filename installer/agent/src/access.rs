//! What an agent may be asked for, by the access it was started with. Decided here, in one place, before anything else
//! looks at a request.

mod backup_only;

pub(crate) use backup_only::Folders;

use maxim_model::wire::{Access, Request};
use std::str::FromStr;

/// One page of health on the host's loopback that a console may read: `9280/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    port: u16,
    path: String,
}

impl FromStr for Health {
    type Err = String;

    /// `PORT/PATH`; the path without query, of letters, digits, `/`, `-`, `_` and `.`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is not PORT/PATH, as in 9280/readyz", text.escape_debug());
        let (port, _) = text.split_once('/').ok_or_else(wrong)?;
        let path = &text[port.len()..];
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.');
        if path.len() < 2 || !path.bytes().all(plain) {
            return Err(wrong());
        }
        Ok(Self { port, path: path.to_owned() })
    }
}

impl Health {
    /// Whether exactly this is asked for.
    fn is(&self, socket: &str, path: &str) -> bool {
        let port = socket.strip_prefix("tcp:127.0.0.1:").or_else(|| socket.strip_prefix("tcp:[::1]:"));
        port == Some(self.port.to_string().as_str()) && path == self.path
    }
}

/// Whether a request changes the host. Everything not named here only looks.
pub fn mutates(request: &Request) -> bool {
    match request {
        Request::Apply { .. }
        | Request::Lock { .. }
        | Request::Unlock
        | Request::BreakLock { .. }
        | Request::Service { .. }
        | Request::Canary(_) => true,
        // Health is looked at by GET; anything else may add or remove accounts.
        Request::Http { method, .. } => method != "GET" && method != "HEAD",
        Request::Backup(request) => request.mutates(),
        // Removes the agent's own copy, which is what a refused host is owed.
        Request::RemoveSelf
        // Changes nothing itself, and is granted only to an agent that was started for it.
        | Request::Promote
        | Request::Hello
        | Request::Scope { .. }
        | Request::Facts(_)
        | Request::Listen { .. }
        | Request::Connect { .. }
        // Nothing of this host; and what is made in a database is gone again at once.
        | Request::Externals { .. }
        | Request::Check { .. }
        | Request::LockOwner
        | Request::Units { .. }
        | Request::Logs { .. }
        | Request::ReadFile { .. } => false,
    }
}

/// Whether an agent with this access may do what is asked, and in which words it is refused.
/// `health` counts for [`Access::Observe`] alone, `folders` for [`Access::Backup`].
pub(crate) fn refusal(
    access: Access,
    health: &[Health],
    folders: Option<&Folders>,
    request: &Request,
) -> Option<&'static str> {
    match access {
        Access::Full => None,
        Access::Backup => (!folders.is_some_and(|folders| folders.allow(request)))
            .then_some("is not for backups, and this agent was started for nothing else"),
        Access::ReadOnly => {
            mutates(request).then_some("changes things, and this agent was started read-only")
        }
        Access::Observe => {
            let allowed = match request {
                Request::Hello | Request::Scope { .. } | Request::Units { .. } => true,
                // The probe writes, even if into a file without a name.
                Request::Facts(query) => query.disk_probe.is_none(),
                Request::Http { socket, method, path, .. } => {
                    method == "GET" && health.iter().any(|one| one.is(socket, path))
                }
                _ => false,
            };
            (!allowed).then_some("is not for a console, and this agent was started to be looked at only")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, refusal};
    use maxim_model::Secret;
    use maxim_model::wire::{Access, Request};

    #[test]
    fn a_console_reads_the_named_page_and_no_other() {
        let health: Vec<Health> = vec!["9280/readyz".parse().unwrap()];
        let refused = |health: &[Health], socket: &str, method: &str, path: &str| {
            let request = Request::Http {
                socket: socket.into(),
                method: method.into(),
                path: path.into(),
                body: Secret::default(),
            };
            refusal(Access::Observe, health, None, &request).is_some()
        };
        assert!(!refused(&health, "tcp:127.0.0.1:9280", "GET", "/readyz"));
        assert!(!refused(&health, "tcp:[::1]:9280", "GET", "/readyz"));
        for (socket, method, path) in [
            ("tcp:127.0.0.1:9281", "GET", "/readyz"),
            ("tcp:127.0.0.1:09280", "GET", "/readyz"),
            ("tcp:127.0.0.1:9280", "GET", "/metrics"),
            ("tcp:127.0.0.1:9280", "GET", "/readyz?x=1"),
            ("tcp:127.0.0.1:9280", "GET", "/readyz/../metrics"),
            ("tcp:127.0.0.1:9280", "HEAD", "/readyz"),
            ("tcp:127.0.0.1:9280", "POST", "/readyz"),
            ("tcp:localhost:9280", "GET", "/readyz"),
            ("tcp:10.0.0.1:9280", "GET", "/readyz"),
            ("/run/maxim/admin.sock", "GET", "/readyz"),
        ] {
            assert!(refused(&health, socket, method, path), "{method} {socket} {path}");
        }
        assert!(refused(&[], "tcp:127.0.0.1:9280", "GET", "/readyz"), "nothing was named");
    }

    #[test]
    fn what_is_no_page_is_refused_when_the_agent_is_started() {
        for text in
            ["", "9280", "/readyz", "0/readyz", "x/readyz", "9280/", "9280/a?b", "9280/a b", "70000/readyz"]
        {
            assert!(text.parse::<Health>().is_err(), "{text}");
        }
    }
}
