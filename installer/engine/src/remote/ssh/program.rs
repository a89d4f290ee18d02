//! The program that is put on hosts as the agent: which one, its digest, its bytes, and why a host may not run it.
//!
//! With a bundle it is the bundle's own `maxim.ctl`, when that is of this version: the console and later runs want
//! exactly that file on hosts, so a host gets it once. Without one it is what the last install put there, and else the
//! running program. A file that turns out not to speak this program's protocol is passed over for the next.

use crate::delivery::{Delivery, OpenBundle};
use crate::error::EngineError;
use crate::state::AgentProgram;
use maxim_model::manifest::MEMBER_CTL;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::OnceLock;

const PIECE: usize = 512 * 1024;

/// A program by digest, and where its bytes are.
pub struct Program {
    source: Source,
    digest: OnceLock<Result<(String, u64), String>>,
}

enum Source {
    /// The running program.
    File(PathBuf),
    /// A member of a bundle.
    Bundle(OpenBundle),
    /// On hosts only.
    Hosts,
}

impl Program {
    /// The running program. Nothing is read before the first host needs it.
    fn running(path: PathBuf) -> Self {
        Self { source: Source::File(path), digest: OnceLock::new() }
    }

    fn known(source: Source, sha256: &str, size: u64) -> Self {
        Self { source, digest: Ok((sha256.to_owned(), size)).into() }
    }

    /// SHA-256 in hex, and size.
    pub fn digest(&self) -> Result<(String, u64), String> {
        self.digest
            .get_or_init(|| {
                let Source::File(path) = &self.source else { return Err("no digest is known".into()) };
                let wrong = |error: io::Error| format!("{}: {error}", path.display());
                let mut file = File::open(path).map_err(wrong)?;
                let mut digest = Sha256::new();
                let mut piece = vec![0; PIECE];
                let mut size = 0;
                loop {
                    let count = file.read(&mut piece).map_err(wrong)?;
                    if count == 0 {
                        return Ok((hex::encode(digest.finalize()), size));
                    }
                    digest.update(&piece[..count]);
                    size += count as u64;
                }
            })
            .clone()
    }

    /// Its bytes; none when they are only on hosts. What comes from a bundle is checked against the manifest: the
    /// reader fails at its end when it differs.
    pub fn open(&self) -> Option<Result<Box<dyn Read + Send>, EngineError>> {
        match &self.source {
            Source::File(path) => Some(match File::open(path) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) => Err(EngineError::failed("connect", format!("{}: {error}", path.display()))),
            }),
            Source::Bundle(bundle) => Some(bundle.program()),
            Source::Hosts => None,
        }
    }
}

/// Which programs may be the agent, best first. The programs of a group are alternatives of which any that is on the
/// host will do; the next group is for a host on which those of the group before speak another protocol.
pub struct Programs(Vec<Vec<Program>>);

impl Programs {
    /// For a delivery; `installed`: what the last install put on hosts; `running`: this program.
    pub fn choose(delivery: &Delivery, installed: Option<AgentProgram>, running: PathBuf) -> Self {
        let last = Program::running(running.clone());
        let first = match delivery {
            Delivery::Bundle(bundle) => bundle
                .manifest()
                .members
                .iter()
                .find(|member| member.path == MEMBER_CTL && member.version == env!("CARGO_PKG_VERSION"))
                .map(|member| {
                    vec![Program::known(Source::Bundle(bundle.clone()), &member.sha256, member.size)]
                }),
            _ => installed.filter(|program| program.version == env!("CARGO_PKG_VERSION")).map(|program| {
                vec![Program::known(Source::Hosts, &program.sha256, program.size), Program::running(running)]
            }),
        };
        Self(first.into_iter().chain([vec![last]]).collect())
    }

    /// The groups.
    pub fn groups(&self) -> &[Vec<Program>] {
        &self.0
    }

    /// Hashes the running program now, while hosts are being reached.
    pub fn hash_early(&self) {
        for program in self.0.first().into_iter().flatten() {
            // Whoever needs the digest gets the same error.
            let _ = program.digest();
        }
    }
}

/// What a host says when it cannot run the agent's file at all, as cause and remedy; none when it is something else.
pub fn unfit(said: &str) -> Option<(String, &'static str)> {
    let line = |words: &[&str]| said.lines().find(|line| words.iter().any(|word| line.contains(word)));
    if let Some(missing) =
        line(&["' not found (required by", "GLIBC_", "error while loading shared libraries"])
    {
        let wanted: Vec<&str> =
            missing.split(['`', '\'']).filter(|part| part.starts_with("GLIBC_")).collect();
        let cause = if let [wanted, ..] = wanted[..] {
            format!(
                "this maxim.ctl was built for a newer system: it needs {}, which the host does not have ({})",
                wanted.replace('_', " "),
                missing.trim()
            )
        } else {
            format!("this maxim.ctl needs a library that the host does not have ({})", missing.trim())
        };
        return Some((
            cause,
            "use the maxim.ctl of the bundle, which runs on glibc 2.17 and newer: `tar xf BUNDLE maxim.ctl`, then the same command with that ./maxim.ctl and --bundle BUNDLE",
        ));
    }
    if let Some(line) =
        line(&["Exec format error", "cannot execute binary file", "cannot execute: required file"])
    {
        return Some((
            format!("this maxim.ctl is for another processor or system than the host's ({})", line.trim()),
            "hosts need Linux on x86-64 with glibc 2.17 or newer; see `uname -m` on the host",
        ));
    }
    if let Some(line) = line(&["/proc/self/fd/3: not found", "/proc/self/fd/3: No such file"]) {
        return Some((
            format!("the host has no glibc to run this maxim.ctl with ({})", line.trim()),
            "hosts need a Linux distribution with glibc 2.17 or newer; those with musl (Alpine) are not supported",
        ));
    }
    line(&["/proc/self/fd/3: Permission denied", "/proc/self/fd/3: cannot execute: Permission"]).map(|line| {
        (
            format!("the host may not run programs from the software folder ({})", line.trim()),
            "the file system of the software folder must not be mounted noexec; set `paths.software` to one that is not",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{Programs, unfit};
    use crate::delivery::Delivery;
    use crate::state::AgentProgram;

    #[test]
    fn a_host_that_cannot_run_the_program_says_why() {
        let old = "/proc/self/fd/3: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.32' not found (required by /proc/self/fd/3)";
        let (cause, hint) = unfit(&format!("Warning: noise\n{old}\n")).unwrap();
        assert!(
            cause.contains("needs GLIBC 2.32") && hint.contains("tar xf BUNDLE maxim.ctl"),
            "{cause} {hint}"
        );
        assert!(unfit("sh: 1: exec: /proc/self/fd/3: Exec format error").unwrap().0.contains("processor"));
        assert!(unfit("sh: 1: exec: /proc/self/fd/3: not found").unwrap().0.contains("no glibc"));
        assert!(unfit("sh: 1: exec: /proc/self/fd/3: Permission denied").unwrap().1.contains("noexec"));
        assert_eq!(unfit("Killed"), None);
    }

    #[test]
    fn what_hosts_have_is_looked_for_before_the_running_program() {
        let running = std::env::current_exe().unwrap();
        let installed =
            AgentProgram { version: env!("CARGO_PKG_VERSION").into(), sha256: "0f3a".into(), size: 7 };
        let programs = Programs::choose(&Delivery::None, Some(installed.clone()), running.clone());
        let first = &programs.groups()[0];
        assert_eq!((first[0].digest().unwrap(), first.len()), (("0f3a".to_owned(), 7), 2));
        assert!(first[0].open().is_none() && first[1].open().is_some());
        let older = AgentProgram { version: "0.0.1".into(), ..installed };
        assert_eq!(Programs::choose(&Delivery::None, Some(older), running).groups().len(), 1);
    }
}
