//! Leaving no trace on a host that was refused: the agent's own copy and folders of ours that are empty.
//!
//! Nothing else is touched. A program that does not lie in the agent's folder (a checkout, a package) is left alone.

use crate::error::{Failure, Result};
use crate::files::parent;
use crate::scope::Scope;
use std::fs;
use std::path::{Path, PathBuf};

/// Removes the running copy, if it is one.
pub fn remove_self(scope: &Scope) -> Result<()> {
    let program = fs::read_link("/proc/self/exe").map_err(Failure::file("look at", "/proc/self/exe"))?;
    remove_copy(scope, &program)
}

/// The copy lies in a folder `agent` directly below one of our folders.
fn remove_copy(scope: &Scope, program: &Path) -> Result<()> {
    let folder = parent(program);
    let is_copy = scope.own_paths().iter().any(|own| folder == own.join("agent"));
    if is_copy {
        // The agent may have been removed already by an earlier request.
        match fs::remove_file(program) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::file("remove", program)(error));
            }
            _ => {}
        }
        // Temporaries of a broken transfer, which only we make here.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                let _ = fs::remove_file(entry.path());
            }
        }
        let _ = fs::remove_dir(folder);
    }
    // The deepest first; `remove_dir` refuses what is not empty, and that is the rule wanted here.
    let mut own: Vec<&PathBuf> = scope.own_paths().iter().collect();
    own.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in own {
        let _ = fs::remove_dir(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::remove_copy;
    use crate::scope::Scope;
    use std::fs;

    #[test]
    fn the_copy_goes_and_everything_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("opt");
        let agent = own.join("agent");
        fs::create_dir_all(&agent).unwrap();
        let copy = agent.join("0f3a");
        fs::write(&copy, b"x").unwrap();
        let elsewhere = folder.path().join("maxim-ctl");
        fs::write(&elsewhere, b"x").unwrap();
        let scope = Scope::new(&[own.display().to_string()], "/run/lock.json").unwrap();
        remove_copy(&scope, &elsewhere).unwrap();
        assert!(elsewhere.exists() && copy.exists());
        fs::write(own.join("data"), b"x").unwrap();
        remove_copy(&scope, &copy).unwrap();
        assert!(!agent.exists() && own.join("data").exists());
        fs::remove_file(own.join("data")).unwrap();
        remove_copy(&scope, &copy).unwrap();
        assert!(!own.exists());
    }
}
