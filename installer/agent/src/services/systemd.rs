//! Services kept by the host's systemd, through `systemctl` with deadlines.
//!
//! One `systemctl show` tells the state of any number of units. Definitions are made known by one reload for a whole
//! batch. A failed start is reported with the unit's result and the last lines of its journal.

use super::{Action, Keeper, State};
use crate::deadline::Deadline;
use crate::error::{Failure, Result};
use crate::process::Invocation;
use crate::procfs;
use maxim_model::facts::UnitFact;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where our units are.
pub const UNITS: &str = "/etc/systemd/system";
/// What is asked of each unit.
const PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,Result,MainPID,NRestarts,ActiveEnterTimestampMonotonic,\
                          MemoryCurrent,NeedDaemonReload,UnitFileState,ExecMainStatus";
/// An answer of the manager that needs no work.
const SHORT: Duration = Duration::from_secs(20);
/// How long nobody may answer for systemd.
const AWAY: Duration = Duration::from_secs(5);

/// The host's systemd.
#[derive(Debug)]
pub struct Systemd;

/// A service's full unit name.
pub fn full_name(name: &str) -> String {
    const SUFFIXES: &[&str] = &[".service", ".target", ".timer", ".socket", ".slice", ".mount", ".path"];
    if SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}

fn check_name(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() < 200
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_@.:".contains(&byte));
    if fine { Ok(()) } else { Err(Failure::Invalid(format!("`{}` is not a unit name", name.escape_debug()))) }
}

fn systemctl(arguments: &[&str], names: &[String]) -> Result<Invocation> {
    let mut all = vec!["--no-pager", "--no-ask-password"];
    all.extend_from_slice(arguments);
    let full: Vec<String> = names.iter().map(|name| full_name(name)).collect();
    for name in &full {
        check_name(name)?;
    }
    if !full.is_empty() {
        all.push("--");
        all.extend(full.iter().map(String::as_str));
    }
    Invocation::new("systemctl", &all)
}

/// What `systemctl` answers, once systemd is there to be asked: it is away for a moment when it starts itself anew, and
/// the first to go on a host that is being switched off, which is no fault of a service.
fn answered<T>(ask: impl Fn() -> Result<T>) -> Result<T> {
    let until = Instant::now() + AWAY;
    loop {
        match ask() {
            Err(Failure::Command { tail, .. }) if is_away(&tail) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(100));
            }
            done => return done,
        }
    }
}

/// Whether these words of `systemctl` say that nobody answered it.
fn is_away(words: &str) -> bool {
    ["Transport endpoint is not connected", "Failed to connect to bus", "Connection reset by peer"]
        .iter()
        .any(|said| words.contains(said))
}

/// The blocks of `systemctl show`, as maps.
fn blocks(text: &str) -> Vec<HashMap<&str, &str>> {
    text.split("\n\n")
        .map(|block| block.lines().filter_map(|line| line.split_once('=')).collect::<HashMap<_, _>>())
        .filter(|block| !block.is_empty())
        .collect()
}

/// One block as state.
fn state(name: &str, block: &HashMap<&str, &str>, uptime: f64) -> State {
    let text = |key: &str| block.get(key).copied().unwrap_or_default();
    let number = |key: &str| text(key).parse::<u64>().unwrap_or(0);
    let loaded = text("LoadState");
    let pid = number("MainPID") as u32;
    let since = number("ActiveEnterTimestampMonotonic");
    let active = if loaded == "not-found" { "" } else { text("ActiveState") };
    let memory = match text("MemoryCurrent").parse::<u64>() {
        Ok(bytes) if bytes < u64::MAX / 2 && bytes > 0 => bytes,
        _ if pid != 0 => procfs::resident(pid),
        _ => 0,
    };
    let fact = UnitFact {
        name: name.to_owned(),
        active: active.to_owned(),
        pid,
        since_seconds: if active == "active" && since > 0 {
            (uptime - since as f64 / 1e6).max(0.0) as u64
        } else {
            0
        },
        restarts: number("NRestarts") as u32,
        memory: if active.is_empty() { 0 } else { memory },
        artefact: if pid == 0 { String::new() } else { procfs::artefact(pid) },
    };
    let enabled = matches!(
        text("UnitFileState"),
        "enabled" | "enabled-runtime" | "static" | "indirect" | "generated" | "alias" | "linked"
    );
    State { fact, enabled, stale: text("NeedDaemonReload") == "yes" }
}

impl Systemd {
    fn show(names: &[String]) -> Result<Vec<State>> {
        let output = answered(|| systemctl(&["show", "-p", PROPERTIES], names)?.check(SHORT))?;
        let blocks = blocks(&output.stdout);
        if blocks.len() != names.len() {
            return Err(Failure::Command {
                program: "systemctl show".into(),
                outcome: format!("told of {} units, asked for {}", blocks.len(), names.len()),
                tail: output.tail(),
            });
        }
        let uptime = procfs::uptime();
        Ok(names.iter().zip(&blocks).map(|(name, block)| state(name, block, uptime)).collect())
    }

    fn trouble(&self, name: &str, what: String) -> Failure {
        let log = self.log(name, 15).unwrap_or_default().join("\n");
        Failure::Service { service: name.to_owned(), what, log }
    }
}

impl Keeper for Systemd {
    fn definition(&self, name: &str) -> PathBuf {
        Path::new(UNITS).join(full_name(name))
    }

    fn states(&self, names: &[String]) -> Result<Vec<State>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        if !Path::new("/run/systemd/system").exists() {
            let unknown = |name: &String| State {
                fact: UnitFact { name: name.clone(), ..UnitFact::default() },
                ..State::default()
            };
            return Ok(names.iter().map(unknown).collect());
        }
        Self::show(names)
    }

    fn publish(&self, enable: &[String], disable: &[String], deadline: &Deadline) -> Result<()> {
        // Each of these reloads the manager's definitions; a reload of its own is only needed without them.
        if !disable.is_empty() {
            systemctl(&["disable", "--quiet"], disable)?.check(deadline.left())?;
        }
        if !enable.is_empty() {
            systemctl(&["enable", "--quiet"], enable)?.check(deadline.left())?;
        }
        if enable.is_empty() && disable.is_empty() {
            systemctl(&["daemon-reload"], &[])?.check(deadline.left())?;
        }
        Ok(())
    }

    fn act(&self, action: Action, name: &str, deadline: &Deadline) -> Result<()> {
        let names = [name.to_owned()];
        if matches!(action, Action::Start | Action::Restart) {
            // A unit that failed too often refuses to start until it is forgiven; an unknown one says so below.
            let _ = systemctl(&["reset-failed"], &names)?.run(SHORT);
        }
        let verb = if action == Action::Reload { "reload-or-restart" } else { action.name() };
        let outcome = systemctl(&[verb], &names)?.run(deadline.left());
        let output = match outcome {
            Ok(output) => output,
            Err(Failure::Command { outcome, .. }) => {
                return Err(self.trouble(name, format!("`systemctl {verb}` {outcome}")));
            }
            Err(other) => return Err(other),
        };
        if !output.status.success() {
            let said = output.tail();
            // What systemctl advises to look at is appended as the log itself.
            let said = said.split(" See \"").next().unwrap_or_default().trim().to_owned();
            return Err(self.trouble(name, format!("could not {}: {said}", action.name())));
        }
        if action == Action::Stop {
            return Ok(());
        }
        // A unit of type simple counts as started before its program has run: look again.
        let what = format!("{name} to be active");
        let seen = deadline.poll(&what, || match Self::show(&names).map(|mut states| states.pop()) {
            Ok(Some(state)) if state.is_active() => Ok(Ok(())),
            Ok(Some(state)) if state.fact.active == "failed" => {
                Ok(Err("it failed right after its start".to_owned()))
            }
            Ok(Some(state)) => Err(state.fact.active),
            Ok(None) => Err("unknown".to_owned()),
            Err(failure) => Err(failure.to_string()),
        });
        match seen {
            Ok(Ok(())) => Ok(()),
            Ok(Err(what)) => Err(self.trouble(name, what)),
            Err(failure) => Err(self.trouble(name, failure.to_string())),
        }
    }

    fn log(&self, name: &str, lines: u32) -> Result<Vec<String>> {
        check_name(name)?;
        let unit = full_name(name);
        let lines = lines.min(10_000).to_string();
        let arguments = ["--no-pager", "--quiet", "-o", "short-iso", "-n", &lines, "-u", &unit];
        let output = Invocation::new("journalctl", &arguments)?.check(SHORT)?;
        Ok(output.stdout.lines().map(str::to_owned).collect())
    }

    fn remove(&self, name: &str, deadline: &Deadline) -> Result<bool> {
        check_name(name)?;
        let names = [name.to_owned()];
        let path = self.definition(name);
        let loaded = self.states(&names)?.pop().is_some_and(|state| !state.fact.active.is_empty());
        let drop_ins = PathBuf::from(format!("{}.d", path.display()));
        if !loaded && !path.exists() && !drop_ins.exists() {
            return Ok(false);
        }
        if loaded {
            systemctl(&["stop"], &names)?.check(deadline.left())?;
        }
        if path.exists() {
            systemctl(&["disable", "--quiet"], &names)?.check(deadline.left())?;
            fs::remove_file(&path).map_err(Failure::file("remove", &path))?;
        }
        if drop_ins.exists() {
            fs::remove_dir_all(&drop_ins).map_err(Failure::file("remove", &drop_ins))?;
        }
        systemctl(&["daemon-reload"], &[])?.check(deadline.left())?;
        let _ = systemctl(&["reset-failed"], &names)?.run(SHORT);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::{answered, blocks, check_name, full_name, state};
    use crate::error::Failure;

    #[test]
    fn the_answer_of_show_is_read() {
        let text = "MainPID=812\nNRestarts=2\nActiveEnterTimestampMonotonic=10000000\nMemoryCurrent=1048576\n\
                    Id=maxim-im.service\nLoadState=loaded\nActiveState=active\nNeedDaemonReload=no\nUnitFileState=enabled\n\n\
                    MainPID=0\nMemoryCurrent=[not set]\nId=x.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n";
        let found = blocks(text);
        assert_eq!(found.len(), 2);
        let first = state("maxim-im", &found[0], 25.0);
        assert!(first.is_active() && first.enabled && !first.stale);
        assert_eq!((first.fact.pid, first.fact.restarts, first.fact.since_seconds), (812, 2, 15));
        assert_eq!(first.fact.memory, 1_048_576);
        let second = state("x", &found[1], 25.0);
        assert_eq!((second.fact.active.as_str(), second.enabled, second.fact.memory), ("", false, 0));
    }

    #[test]
    fn a_manager_that_is_away_is_asked_again() {
        let away = |tail: &str| Failure::Command {
            program: "systemctl".into(),
            outcome: String::new(),
            tail: tail.into(),
        };
        let asked = std::cell::Cell::new(0);
        let answer = answered(|| {
            asked.set(asked.get() + 1);
            let words = "Failed to get properties: Transport endpoint is not connected";
            if asked.get() < 3 { Err(away(words)) } else { Ok(asked.get()) }
        });
        assert_eq!(answer.unwrap(), 3);
        assert!(answered(|| Err::<(), _>(away("Unit x.service not found."))).is_err());
    }

    #[test]
    fn names() {
        assert_eq!(full_name("maxim-im"), "maxim-im.service");
        assert_eq!(full_name("maxim.target"), "maxim.target");
        for wrong in ["", "--now", "a b", "a/b", ".x"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
