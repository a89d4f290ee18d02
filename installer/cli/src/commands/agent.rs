//! `agent [--read-only [--promotable] | --observe [--peer USER] [--get PORT/PATH]…]` (hidden): what the engine starts on a
//! host. Speaks the wire protocol on its standard streams; says anything else on standard error only. `--peer`: standard
//! input is a socket, and only this user may be at its other end. `--get`: a page on loopback that may be read.
//! `agent --backup-only DATA RUN`: folders of the deployment, fixed by who wrote the line in `authorized_keys`.

use maxim_agent::Health;
use maxim_model::wire::Access;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// How an agent is started.
#[derive(Debug, PartialEq, Eq)]
struct Start {
    access: Access,
    promotable: bool,
    peer: Option<String>,
    health: Vec<Health>,
}

/// Reads the arguments; none: they are wrong. Nothing is passed over: a word that is not understood could be one that
/// was meant to take rights away.
fn parse(arguments: &[OsString]) -> Option<Start> {
    let mut words = arguments.iter().map(|word| word.to_str());
    let mut start = Start { access: Access::Full, promotable: false, peer: None, health: Vec::new() };
    let Some(first) = words.next() else { return Some(start) };
    start.access = match first? {
        "--read-only" => Access::ReadOnly,
        "--observe" => Access::Observe,
        _ => return None,
    };
    while let Some(word) = words.next() {
        match (start.access, word?) {
            (Access::ReadOnly, "--promotable") if !start.promotable => {
                start.promotable = true;
            }
            (Access::Observe, "--peer") if start.peer.is_none() => {
                start.peer = Some(words.next()??.to_owned());
            }
            (Access::Observe, "--get") => {
                start.health.push(words.next()??.parse().ok()?);
            }
            _ => return None,
        }
    }
    Some(start)
}

/// Serves until the input ends.
pub(super) fn run(arguments: &[OsString]) -> ExitCode {
    if let [flag, data, run] = arguments
        && flag == "--backup-only"
        && let (Some(data), Some(run)) = (data.to_str(), run.to_str())
    {
        return ended(maxim_agent::serve_backups(data, run));
    }
    let Some(start) = parse(arguments) else {
        let _ = writeln!(
            std::io::stderr(),
            "usage: maxim.ctl agent [--read-only [--promotable] | --observe [--peer USER] [--get PORT/PATH]... | --backup-only DATA RUN]"
        );
        return ExitCode::from(2);
    };
    ended(maxim_agent::serve_standard(start.access, start.promotable, start.peer.as_deref(), start.health))
}

fn ended(outcome: Result<(), maxim_agent::Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "agent: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use maxim_model::wire::Access;
    use std::ffi::OsString;

    #[test]
    fn only_what_is_wholly_understood_starts_an_agent() {
        let read = |line: &str| parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(read("").unwrap().access, Access::Full);
        assert!(read("--read-only --promotable").unwrap().promotable);
        let observe = read("--observe --get 9280/readyz --peer maxim-console").unwrap();
        assert_eq!(
            (observe.access, observe.peer.as_deref(), observe.health.len()),
            (Access::Observe, Some("maxim-console"), 1)
        );
        for wrong in [
            "--full",
            "--promotable",
            "--observe --promotable",
            "--read-only --get 9280/readyz",
            "--observe --peer",
            "--observe --get",
            "--observe --get 9280",
            "--observe --peer a --peer b",
            "--read-only --observe",
        ] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}
