//! Compiles our programs so that they run on any Linux of this processor with glibc 2.17 or newer.
//!
//! `cargo zigbuild` links against the stubs of an old glibc that Zig carries. Paths of this machine are mapped to fixed
//! ones and times to a constant, so that the same sources and tools give the same bytes. What comes out is not
//! believed but looked at: processor, newest glibc version asked for, and libraries needed.

use crate::ARCHITECTURE;
use crate::command::{not_started, tail};
use crate::elf;
use crate::error::BuildError;
use crate::progress::Progress;
use maxim_model::bundle::header::MEMBER_TIME;
use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Oldest glibc that programs must run with.
pub const GLIBC: (u32, u32) = (2, 17);

/// Rust's name of the target, without the glibc version.
const TARGET: &str = "x86_64-unknown-linux-gnu";

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

/// Compiles all programs; gives their paths in the order of [`PROGRAMS`].
pub fn compile(checkout: &Path, cache: &Path, progress: &dyn Progress) -> Result<Vec<PathBuf>, BuildError> {
    let step = "compiling portable programs";
    let target_folder = cache.join("target-portable");
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let rust_maps = [
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        format!("--remap-path-prefix={}=/target", target_folder.display()),
    ];
    let c_maps = format!(
        "-ffile-prefix-map={}=/cargo -ffile-prefix-map={}=/target",
        cargo_home.display(),
        target_folder.display()
    );
    let mut command = Command::new("cargo");
    command
        .args(["zigbuild", "--release", "--locked", "--target"])
        .arg(format!("{TARGET}.{}.{}", GLIBC.0, GLIBC.1));
    for (package, _) in PROGRAMS {
        command.args(["-p", package]);
    }
    command
        .current_dir(checkout)
        .env("PATH", search_path(cache))
        .env("CARGO_TARGET_DIR", &target_folder)
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TERM_COLOR", "never")
        .env("SOURCE_DATE_EPOCH", MEMBER_TIME.to_string())
        .env("CARGO_ENCODED_RUSTFLAGS", rust_maps.join("\u{1f}"))
        .env(format!("CFLAGS_{}", TARGET.replace('-', "_")), c_maps)
        .env_remove("RUSTFLAGS");
    run(command, step, progress)?;
    let folder = target_folder.join(TARGET).join("release");
    PROGRAMS
        .iter()
        .map(|(_, program)| {
            let path = folder.join(program);
            verify(&path)?;
            Ok(path)
        })
        .collect()
}

/// The private Python environment of `tests/setup` first, where `cargo-zigbuild` and Zig are.
fn search_path(cache: &Path) -> OsString {
    let mut folders = vec![cache.join("venv/bin")];
    folders.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    env::join_paths(folders).unwrap_or_else(|_| env::var_os("PATH").unwrap_or_default())
}

/// Runs cargo, passing on which crate it is at.
fn run(mut command: Command, step: &str, progress: &dyn Progress) -> Result<(), BuildError> {
    let program = "cargo zigbuild".to_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_started("cargo", step, &error))?;
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
    let status = child.wait().map_err(|error| not_started("cargo", step, &error))?;
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
        let bytes = fs::read(env::current_exe().unwrap()).unwrap();
        let problem = check(&bytes).unwrap_err();
        assert!(problem.contains("libgcc_s") || problem.contains("glibc"), "{problem}");
        assert!(check(b"#!/bin/sh\n").unwrap_err().contains("not an ELF"));
    }
}
