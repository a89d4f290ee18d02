//! Hashes the sources that an agent is made of, for the build scripts of agent and engine: two programs of one version
//! that differ in them are two agents, and must not be taken for each other.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Tells the compiler `MAXIM_AGENT_SOURCES`, and cargo what it depends on. `installer`: the folder of both crates.
pub fn tell(installer: &Path) -> std::io::Result<()> {
    let mut files = Vec::new();
    for folder in ["agent/src", "model/src"] {
        println!("cargo::rerun-if-changed={}", installer.join(folder).display());
        collect(&installer.join(folder), Path::new(folder), &mut files)?;
    }
    files.sort();
    let mut digest = Sha256::new();
    for (name, path) in files {
        let content = std::fs::read(path)?;
        for part in [name.as_bytes(), &content] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    let digest = digest.finalize();
    let (first, _) = digest.split_at(16);
    let number = first.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    println!("cargo::rustc-env=MAXIM_AGENT_SOURCES={number:032x}");
    Ok(())
}

/// Files below a folder by a name that is the same in every checkout.
fn collect(folder: &Path, name: &Path, files: &mut Vec<(String, PathBuf)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = name.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &name, files)?;
        } else {
            files.push((name.to_string_lossy().into_owned(), entry.path()));
        }
    }
    Ok(())
}
