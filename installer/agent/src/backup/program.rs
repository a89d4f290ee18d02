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
    choose(images, || find("restic"))
}

/// The same; `installed` says where the machine's own is.
fn choose(images: &str, installed: impl FnOnce() -> Option<PathBuf>) -> Result<Program> {
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
    let Some(path) = installed() else {
        return Err(absent("there is no restic on this host"));
    };
    let path = path.display().to_string();
    let output = crate::process::Invocation::new(&path, &["version"])?.check(Duration::from_secs(20))?;
    own(path, &output.stdout)
}

/// The machine's own, when it is new enough by what it says of itself.
fn own(path: String, said: &str) -> Result<Program> {
    let version = said.split_whitespace().nth(1).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::{choose, own};
    use std::fs;
    use std::path::Path;

    const COMPLETE: &str = ".maxim-complete";

    /// An image that is complete: restic and a loader beside its libraries, each unless it is left out.
    fn image(images: &Path, name: &str, restic: bool, loader: bool) {
        let libraries = images.join(name).join("usr/lib/x86_64-linux-gnu");
        fs::create_dir_all(&libraries).unwrap();
        fs::create_dir_all(images.join(name).join("usr/bin")).unwrap();
        if restic {
            fs::write(images.join(name).join("usr/bin/restic"), "").unwrap();
        }
        if loader {
            fs::write(libraries.join("ld-linux-x86-64.so.2"), "").unwrap();
        }
        fs::write(images.join(name).join(COMPLETE), "12ab\n").unwrap();
    }

    #[test]
    fn the_newest_whole_image_goes_before_what_the_machine_has() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        let shown = images.display().to_string();
        image(&images, "restic-1", true, true);
        image(&images, "restic-2", true, true);
        image(&images, "restic-3", true, false);
        image(&images, "restic-4", false, true);
        image(&images, "restic-5", true, true);
        fs::remove_file(images.join("restic-5").join(COMPLETE)).unwrap();
        image(&images, "other-6", true, true);
        let found = choose(&shown, || panic!("the machine's own is not looked for")).unwrap();
        let libraries = images.join("restic-2/usr/lib/x86_64-linux-gnu").display().to_string();
        let restic = images.join("restic-2/usr/bin/restic").display().to_string();
        assert_eq!(found.path, format!("{libraries}/ld-linux-x86-64.so.2"));
        assert_eq!(found.before, ["--library-path", libraries.as_str(), restic.as_str()]);
        assert_eq!(found.shown, restic);
    }

    #[test]
    fn the_machines_own_is_taken_when_it_is_new_enough() {
        let found =
            |version: &str| own("/usr/bin/restic".into(), &format!("restic {version} compiled with go\n"));
        for version in ["0.17.3", "0.18.0", "1.0.0"] {
            let found = found(version).unwrap();
            assert_eq!((found.path.as_str(), found.before.len()), ("/usr/bin/restic", 0), "{version}");
        }
        let old = found("0.16.5").err().unwrap();
        assert!(old.to_string().contains("0.16.5") && old.to_string().contains("0.17 is needed"), "{old}");
        let folder = tempfile::tempdir().unwrap();
        let none = choose(&folder.path().display().to_string(), || None).err().unwrap();
        assert!(none.to_string().contains("no restic on this host"), "{none}");
        for refused in [old, found("").err().unwrap(), none] {
            let hint = refused.hint();
            assert!(hint.contains("--bundle") && hint.contains("restic 0.17"), "{hint}");
        }
    }
}
