//! Compiles our programs so that they run on any Linux of this processor with glibc 2.17 or newer.
//!
//! The script `iso/build-programs` compiles, the same one that the launcher of a checkout calls, so that nothing is
//! compiled twice. What comes out is not believed but looked at: processor, newest glibc version asked for, and
//! libraries needed.

use crate::ARCHITECTURE;
use crate::command::{not_started, tail};
use crate::elf;
use crate::error::BuildError;
use crate::progress::Progress;
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Oldest glibc that programs must run with.
pub const GLIBC: (u32, u32) = (2, 17);

/// What compiles, from the root of the checkout; the launcher calls it too.
const SCRIPT: &str = "iso/build-programs";

/// Packages with the program that each makes.
pub const PROGRAMS: [(&str, &str); 3] =
    [("maxim-ctl", "maxim-ctl"), ("im-server", "maxim-im"), ("maxim-console", "maxim-console")];

/// Libraries of glibc, the only ones that are on every host.
const LIBRARIES: [&str; 8] = [
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libutil.so.1",
    "libresolv.so.2",
    "ld-linux-x86-64.so.2",
];

/// The programs just compiled. Their files go with it.
#[derive(Debug)]
pub struct Programs {
    /// Paths in the order of [`PROGRAMS`].
    pub paths: Vec<PathBuf>,
    _folder: TempDir,
}

/// Compiles all programs into a folder of their own, so that a build of another checkout does not swap them.
pub fn compile(checkout: &Path, cache: &Path, progress: &dyn Progress) -> Result<Programs, BuildError> {
    let folder = tempfile::Builder::new()
        .prefix("programs-")
        .tempdir_in(cache)
        .map_err(BuildError::file("cannot make a folder in", cache))?;
    let mut command = Command::new(checkout.join(SCRIPT));
    command
        .arg(folder.path())
        .current_dir(checkout)
        .env("MAXIM_CACHE", cache)
        .env("CARGO_TERM_COLOR", "never");
    run(command, "compiling portable programs", progress)?;
    let paths: Vec<PathBuf> = PROGRAMS.iter().map(|(_, program)| folder.path().join(program)).collect();
    for path in &paths {
        verify(path)?;
    }
    Ok(Programs { paths, _folder: folder })
}

/// Runs cargo, passing on which crate it is at.
fn run(mut command: Command, step: &str, progress: &dyn Progress) -> Result<(), BuildError> {
    let program = SCRIPT.to_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(SCRIPT, step, &error))?;
    let mut last: VecDeque<String> = VecDeque::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(package) = line.trim_start().strip_prefix("Compiling ") {
                progress.detail("programs", package);
            }
            if last.len() == 60 {
                last.pop_front();
            }
            last.push_back(line);
            if progress.cancelled() {
                // Cargo removes what is half done when it runs again.
                drop(child.kill());
                drop(child.wait());
                return Err(BuildError::Interrupted { step: step.to_owned() });
            }
        }
    }
    let status = child.wait().map_err(|error| not_started(SCRIPT, step, &error))?;
    if status.success() {
        return Ok(());
    }
    let output = last.into_iter().collect::<Vec<_>>().join("\n");
    if output.contains("no such command: `zigbuild`") {
        return Err(BuildError::MissingProgram {
            program: "cargo-zigbuild".to_owned(),
            step: step.to_owned(),
        });
    }
    Err(BuildError::Program {
        program,
        step: step.to_owned(),
        status: status.to_string(),
        output: tail(&output),
    })
}

/// Checks that a program runs on every host that we support.
pub fn verify(path: &Path) -> Result<(), BuildError> {
    let bytes = fs::read(path).map_err(BuildError::file("cannot read", path))?;
    check(&bytes).map_err(|problem| BuildError::NotPortable { path: path.to_owned(), problem })
}

fn check(bytes: &[u8]) -> Result<(), String> {
    let found = elf::parse(bytes)?;
    if found.machine != ARCHITECTURE {
        return Err(format!("it is for {} and not for {ARCHITECTURE}", found.machine));
    }
    if let Some(library) = found.needed.iter().find(|library| !LIBRARIES.contains(&library.as_str())) {
        return Err(format!("it needs {library}, which is not on every host"));
    }
    match found.newest_glibc() {
        Some(newest) if newest > GLIBC => {
            Err(format!("it needs glibc {}.{}, newer than {}.{}", newest.0, newest.1, GLIBC.0, GLIBC.1))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_this_machine_is_refused() {
        // The test itself is linked against the glibc of the machine that builds, which is newer than 2.17, and
        // against libgcc_s.
        let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        let problem = check(&bytes).unwrap_err();
        assert!(problem.contains("libgcc_s") || problem.contains("glibc"), "{problem}");
        assert!(check(b"#!/bin/sh\n").unwrap_err().contains("not an ELF"));
    }
}
