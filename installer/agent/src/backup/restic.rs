//! Running restic. Only the commands that the protocol names; no free arguments.
//!
//! Passwords, keys and credentials are files of a private folder that lives as long as restic runs: nothing of them
//! stands in an argument or in the environment. A snapshot is made from a stream that must be whole (see
//! [`super::feed`]).

use super::aside::Aside;
use super::at_work::AtWork;
use super::child::{self, Running};
use super::memo::Memo;
use super::opening;
use super::program::{Program, program};
use super::storing::{self, Names};
use super::stream;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute, remove_any, write_atomic};
use crate::link::raw::Channel;
use crate::process::{describe, find};
use maxim_model::backup::manifest::{MANIFEST_FILE, TAG};
use maxim_model::backup::wire::{BackupReply, ResticCommand};
use maxim_model::backup::{Repository, RepositoryAccess};
use maxim_model::wire::Reply;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, ExitStatus};
use std::time::Duration;

/// Bytes kept of what restic says. A repository with ten thousand snapshots stays below.
const SAID: u64 = 24 << 20;
/// Opening a repository derives a key and reads the index, over a slow line too.
pub(super) const OPEN: Duration = Duration::from_mins(3);
/// Checks and prunes of large repositories take hours.
const LONG: Duration = Duration::from_hours(24);

/// A private folder for one run, removed when it is dropped.
pub(super) struct Private(PathBuf);

impl Private {
    fn make(run: &Path) -> Result<Self> {
        super::private(run)?;
        // Left over from agents that were killed.
        for entry in fs::read_dir(run).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner =
                name.strip_prefix("restic-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                remove_any(&entry.path());
            }
        }
        let path = run.join(format!("restic-{}-{:08x}", std::process::id(), rand::random::<u32>()));
        super::private(&path)?;
        Ok(Self(path))
    }

    /// Where something of this name lies.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn file(&self, name: &str, content: &str) -> Result<String> {
        let path = self.0.join(name);
        write_atomic(&path, content.as_bytes(), Ownership::mode(0o600))?;
        Ok(path.display().to_string())
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        remove_any(&self.0);
    }
}

/// restic with an opened repository's arguments.
pub struct Restic {
    program: Program,
    pub(super) private: Private,
    pub(super) memo: Memo,
    pub(super) at_work: AtWork,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Restic {
    /// For one repository; needs a restic that can be run.
    pub fn open(access: &RepositoryAccess) -> Result<Self> {
        let program = program(&access.images)?;
        let (work, run) = (absolute(&access.work)?, absolute(&access.run)?);
        super::private(&work)?;
        let private = Private::make(&run)?;
        let temporary = work.join("tmp");
        super::private(&temporary)?;
        let mut arguments = vec![
            "-r".into(),
            access.repository.location(),
            "--password-file".into(),
            private.file("password", access.password.expose())?,
            "--json".into(),
            "--retry-lock=2m".into(),
        ];
        let mut environment = vec![
            ("HOME", work.display().to_string()),
            ("TMPDIR", temporary.display().to_string()),
            // Soft bounds of its garbage collector: it and we stay within 300 MB.
            ("GOMEMLIMIT", "160MiB".to_owned()),
            ("GOGC", "50".to_owned()),
        ];
        match &access.repository {
            // Its own files are as near as a cache.
            Repository::Local { .. } => arguments.push("--no-cache".into()),
            Repository::Sftp { .. } => {
                arguments.push(format!("--cache-dir={}", work.join("cache").display()));
                let mut ssh =
                    "-oBatchMode=yes -oConnectTimeout=15 -oServerAliveInterval=10 -oServerAliveCountMax=3"
                        .to_owned();
                if !access.ssh_key.is_empty() {
                    let key = private.file("key", access.ssh_key.expose())?;
                    ssh.push_str(&format!(" -oIdentitiesOnly=yes -i '{key}'"));
                }
                if !access.known_hosts.is_empty() {
                    let known = private.file("known_hosts", &access.known_hosts)?;
                    ssh.push_str(&format!(" -oStrictHostKeyChecking=yes '-oUserKnownHostsFile={known}'"));
                }
                if find("ssh").is_none() {
                    return Err(Failure::refused(
                        "a repository by SFTP needs `ssh` on the host that runs restic, and it is not there",
                        "install the OpenSSH client there, or use another kind of repository",
                    ));
                }
                arguments.push("-o".into());
                arguments.push(format!("sftp.args={ssh}"));
            }
            Repository::S3 { region, .. } => {
                arguments.push(format!("--cache-dir={}", work.join("cache").display()));
                if !region.is_empty() {
                    arguments.push("-o".into());
                    arguments.push(format!("s3.region={region}"));
                }
                if !access.credentials.is_empty() {
                    let file = private.file("credentials", access.credentials.expose())?;
                    environment.push(("AWS_SHARED_CREDENTIALS_FILE", file));
                }
                environment.push(("AWS_EC2_METADATA_DISABLED", "true".into()));
            }
        }
        let at_work = AtWork::join(&work)?;
        Ok(Self { program, private, memo: Memo::of(&work, access), at_work, arguments, environment })
    }

    /// Where the repository is, as restic has it.
    pub(super) fn place(&self) -> &str {
        self.arguments.get(1).map_or("", String::as_str)
    }

    /// One that is not restic, for tests.
    #[cfg(test)]
    pub(super) fn stand_in(program: Program, place: &str, memo: Memo, run: &Path) -> Self {
        let private = Private::make(run).unwrap();
        let at_work = AtWork::join(run).unwrap();
        let arguments = vec!["-r".into(), place.into()];
        Self { program, private, memo, at_work, arguments, environment: Vec::new() }
    }

    pub(super) fn start(&self, command: &[String]) -> Result<Running> {
        let arguments: Vec<String> =
            self.program.before.iter().chain(&self.arguments).chain(command).cloned().collect();
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let title = format!("restic {}", command.first().map_or("", String::as_str));
        let _aside = Aside::step();
        child::start_behind(&title, &self.program.path, &arguments, &environment, self.at_work.shared()?)
    }

    /// Waits until what a killed run may have left at work is gone: true when it is.
    pub(super) fn outlast(&self, channel: &dyn Channel) -> bool {
        self.memo.settled().is_some() || self.at_work.alone(|| !channel.is_gone())
    }

    /// Runs a command to its end; what it said, as JSON objects.
    pub(super) fn run(
        &self,
        channel: &dyn Channel,
        command: &[&str],
        patience: Duration,
    ) -> Result<(ExitStatus, Vec<Value>)> {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        let mut running = self.start(&command)?;
        let output = running.stdout()?;
        let reader = std::thread::spawn(move || said(output));
        let (status, words) = running.wait(patience, || !channel.is_gone())?;
        let mut all = reader.join().unwrap_or_default();
        all.extend(lines(&words));
        Ok((status, all))
    }

    /// The same; an exit status that is not 0 is a failure in restic's own words.
    pub(super) fn check(
        &self,
        channel: &dyn Channel,
        command: &[&str],
        patience: Duration,
    ) -> Result<Vec<Value>> {
        let (status, said) = self.run(channel, command, patience)?;
        if status.success() {
            Ok(said)
        } else {
            Err(self.failure(command.first().unwrap_or(&""), status, &said))
        }
    }

    pub(super) fn failure(&self, command: &str, status: ExitStatus, said: &[Value]) -> Failure {
        let mut texts: Vec<String> = said.iter().filter_map(text).collect();
        texts.dedup();
        let kept = texts.len().saturating_sub(6);
        let words = texts[kept..].join("; ");
        let place = self.place();
        match status.code() {
            Some(10) if self.memo.known().is_some() => opening::gone(
                format!("the repository that was at {place} is gone: {words}"),
                self.memo.path(),
            ),
            Some(10) => Failure::refused(
                format!("there is no repository at {place}: {words}"),
                "is the place right, and mounted? `maxim.ctl backup create` makes a repository that is new",
            ),
            Some(11) => Failure::refused(
                format!("the repository {place} is in use: {words}"),
                "wait until the other run is done, then run the command again",
            ),
            Some(12) => Failure::refused(
                format!("the repository {place} does not open with this key: {words}"),
                "the recovery kit of this cluster has the right password; is it the repository of another cluster?",
            ),
            _ if words.contains("no space left") => Failure::refused(
                format!("the repository {place} has no room: {words}"),
                "free space there, or prune with `maxim.ctl backup prune`, and run the command again; the sets that \
                 are there are whole",
            ),
            _ if tells_of_damage(&words) => Failure::Content {
                what: format!("`restic {command}` {}: {words}", describe(status)),
                hint: "the repository is damaged: make a new set now (`maxim.ctl backup create`), and look at the disk that \
                       holds the repository; `restic repair` tells what can be saved"
                    .into(),
            },
            _ => Failure::Command {
                program: format!("restic {command}"),
                outcome: describe(status),
                tail: words,
            },
        }
    }
}

/// Whether restic found that data is not what was stored (0.14 to 0.18: cmd_check.go, repository.go, blob.go). That it
/// could not look, because the place is away or somebody else is at work there, says nothing of the data.
fn tells_of_damage(words: &str) -> bool {
    [
        "repository contains errors",
        "ciphertext verification failed",
        "invalid data returned",
        "does not match",
        "not found in index",
        "not found in repository",
        "hash mismatch",
    ]
    .iter()
    .any(|damage| words.contains(damage))
}

/// JSON objects of standard output, bounded.
pub(super) fn said(output: impl Read) -> Vec<Value> {
    let mut reader = BufReader::new(output.take(SAID));
    let mut all = Vec::new();
    let mut line = String::new();
    while matches!(reader.read_line(&mut line), Ok(count) if count > 0) {
        all.extend(lines(&line));
        line.clear();
    }
    let _ = std::io::copy(&mut reader.into_inner().into_inner(), &mut std::io::sink());
    all
}

pub(super) fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| match serde_json::from_str::<Value>(line) {
            Ok(value) if value.is_object() || value.is_array() => value,
            _ => serde_json::json!({"message_type": "text", "message": line}),
        })
        .filter(|value| value["message_type"] != "status")
        .collect()
}

/// The words in one of its objects.
pub(super) fn text(value: &Value) -> Option<String> {
    let kind = value["message_type"].as_str().unwrap_or_default();
    match kind {
        "exit_error" | "text" => value["message"].as_str().map(str::to_owned),
        "error" => {
            value["error"]["message"].as_str().or_else(|| value["message"].as_str()).map(str::to_owned)
        }
        _ => None,
    }
}

/// Does what the engine asks for.
pub fn answer(channel: &mut dyn Channel, access: &RepositoryAccess, command: &ResticCommand) -> Result<()> {
    if matches!(command, ResticCommand::Version) {
        let found = program(&access.images)?;
        let said = serde_json::json!({"program": found.shown});
        return channel.reply(&Reply::Backup(BackupReply::Restic { said: vec![said] }));
    }
    let restic = Restic::open(access)?;
    let said = match command {
        ResticCommand::Version => Vec::new(),
        ResticCommand::Init => opening::init(channel, &restic)?,
        ResticCommand::Snapshots { settled } => {
            if *settled {
                restic.outlast(channel);
            }
            restic.check(channel, &["snapshots", "--no-lock", "--tag", TAG], OPEN)?
        }
        ResticCommand::Size => {
            restic.check(channel, &["stats", "--no-lock", "--mode", "raw-data"], Duration::from_mins(30))?
        }
        ResticCommand::Backup { file, tags, host } => {
            let said = storing::backup(channel, &restic, &Names { file, tags, host })?;
            if file == MANIFEST_FILE {
                // The last of a set.
                opening::settle(channel, &restic)?;
            }
            said
        }
        ResticCommand::Dump { snapshot, file } => return dump(channel, &restic, snapshot, file),
        ResticCommand::Tag { snapshot, add, remove } => {
            let mut words = vec!["tag"];
            for tag in add {
                words.extend(["--add", tag.as_str()]);
            }
            for tag in remove {
                words.extend(["--remove", tag.as_str()]);
            }
            words.push(identifier(snapshot)?);
            change(channel, &restic, &words, OPEN)?
        }
        ResticCommand::Check { percent } => {
            let share = format!("--read-data-subset={}%", percent.min(&100));
            let mut words = vec!["check"];
            if *percent >= 100 {
                words.push("--read-data");
            } else if *percent > 0 {
                words.push(&share);
            }
            change(channel, &restic, &words, LONG)?
        }
        ResticCommand::Forget { snapshots } => {
            let mut words = vec!["forget"];
            for snapshot in snapshots {
                words.push(identifier(snapshot)?);
            }
            if snapshots.is_empty() {
                Vec::new()
            } else {
                change(channel, &restic, &words, Duration::from_mins(30))?
            }
        }
        ResticCommand::Prune => change(channel, &restic, &["prune"], LONG)?,
    };
    channel.reply(&Reply::Backup(BackupReply::Restic { said }))
}

/// A snapshot's identifier and nothing that restic would take for something else.
fn identifier(text: &str) -> Result<&str> {
    let fine = (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fine { Ok(text) } else { Err(Failure::Invalid(format!("`{}` is no snapshot", text.escape_debug()))) }
}

/// Runs a command that locks the repository. First takes away locks of runs that are dead (never those of living ones; what
/// a killed one left at work is waited for).
fn change(channel: &dyn Channel, restic: &Restic, words: &[&str], patience: Duration) -> Result<Vec<Value>> {
    let settled = restic.memo.busy()?;
    if !settled {
        restic.outlast(channel);
    }
    restic.check(channel, &["unlock"], OPEN)?;
    let said = restic.check(channel, words, patience)?;
    if settled {
        restic.memo.settle()?;
    }
    Ok(said)
}

/// Begins to read a file of a snapshot.
pub fn reading(restic: &Restic, snapshot: &str, file: &str) -> Result<(Running, ChildStdout)> {
    let command = ["dump", "--no-lock", identifier(snapshot)?, &format!("/{}", file.trim_start_matches('/'))]
        .map(str::to_owned);
    let mut running = restic.start(&command)?;
    let output = running.stdout()?;
    Ok((running, output))
}

/// What was read is whole when restic says so.
pub fn read_whole(restic: &Restic, mut running: Running) -> Result<()> {
    let (status, words) = running.wait(OPEN, || true)?;
    if status.success() { Ok(()) } else { Err(restic.failure("dump", status, &lines(&words))) }
}

/// A file of a snapshot, to the engine.
fn dump(channel: &mut dyn Channel, restic: &Restic, snapshot: &str, file: &str) -> Result<()> {
    let (running, mut output) = reading(restic, snapshot, file)?;
    let bytes = stream::send(channel, &mut output, "restic")?;
    drop(output);
    read_whole(restic, running)?;
    channel.reply(&stream::sent(bytes, bytes, Vec::new(), String::new(), 0))
}

#[cfg(test)]
mod tests {
    use super::{identifier, lines, tells_of_damage, text};

    #[test]
    fn what_could_not_be_looked_at_is_not_damaged() {
        assert!(tells_of_damage(
            "pack ab: ciphertext verification failed; Fatal: repository contains errors"
        ));
        for words in
            ["Fatal: unable to open repository: EOF", "connection lost", "repository is already locked"]
        {
            assert!(!tells_of_damage(words), "{words}");
        }
    }

    #[test]
    fn its_words_are_found_in_all_their_forms() {
        let said = lines(
            "{\"message_type\":\"status\"}\n{\"message_type\":\"exit_error\",\"code\":1,\"message\":\"Fatal: x\"}\nplain\n[]\n\
             {\"message_type\":\"error\",\"error\":{\"message\":\"pack ab\"}}\n",
        );
        let texts: Vec<String> = said.iter().filter_map(text).collect();
        assert_eq!(texts, ["Fatal: x", "plain", "pack ab"]);
    }

    #[test]
    fn only_identifiers_reach_its_arguments() {
        assert!(identifier("0123abcd").is_ok());
        for wrong in ["latest", "--no-lock", "", "0123abcg", &"a".repeat(65)] {
            assert!(identifier(wrong).is_err(), "{wrong}");
        }
    }
}
