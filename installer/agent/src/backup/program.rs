//! Which restic is run: ours from an image, by the image's own loader and libraries so that no root is needed, else one
//! of the machine.

use crate::error::{Failure, Result};
use crate::process::find;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first version that can take a stream from a command.
const OLDEST: (u32, u32) = (0, 17);

/// A restic that can be run.
pub struct Program {
    /// What is started.
    pub path: String,
    /// Its arguments before those of restic.
    pub before: Vec<String>,
    /// Where restic is, for who reads.
    pub shown: String,
}

/// Ours from an image below `images`, else the machine's own.
pub fn program(images: &str) -> Result<Program> {
    let mut found: Vec<PathBuf> = fs::read_dir(images)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("restic-"))
        .map(|entry| entry.path())
        .filter(|path| !crate::tasks::completed(path).is_empty())
        .collect();
    found.sort();
    for image in found.iter().rev() {
        if let Some(program) = from_image(image) {
            return Ok(program);
        }
    }
    let Some(path) = find("restic") else {
        return Err(absent("there is no restic on this host"));
    };
    let path = path.display().to_string();
    let output = crate::process::Invocation::new(&path, &["version"])?.check(Duration::from_secs(20))?;
    let version = output.stdout.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
        return Err(absent(&format!("{path} is version {version}, and 0.17 is needed")));
    }
    Ok(Program { path: path.clone(), before: Vec::new(), shown: path })
}

fn absent(what: &str) -> Failure {
    Failure::refused(
        what.to_owned(),
        "install this deployment from a bundle (`maxim.ctl install --bundle FILE`), which brings restic along, or \
         install restic 0.17 or newer by the machine's own means",
    )
}

/// The image's program by the image's loader.
fn from_image(image: &Path) -> Option<Program> {
    let restic = image.join("usr/bin/restic");
    if !restic.is_file() {
        return None;
    }
    let libraries = fs::read_dir(image.join("usr/lib")).ok()?.flatten().map(|entry| entry.path());
    for folder in libraries {
        let loader =
            fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                name.starts_with("ld-linux") || name.starts_with("ld64")
            });
        if let Some(loader) = loader {
            return Some(Program {
                path: loader.display().to_string(),
                before: vec![
                    "--library-path".into(),
                    folder.display().to_string(),
                    restic.display().to_string(),
                ],
                shown: restic.display().to_string(),
            });
        }
    }
    None
}
