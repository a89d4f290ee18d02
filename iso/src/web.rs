//! The web chat: made by its own script from the npm lock file, packed like an image.

use crate::command::run;
use crate::error::BuildError;
use crate::tree::{Packed, Tree};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The web chat as an archive in the cache.
#[derive(Debug, Clone)]
pub struct Web {
    /// The archive.
    pub path: PathBuf,
    /// Its hash and sizes.
    pub packed: Packed,
}

/// Makes and packs it.
///
/// # Errors
/// When npm is missing or the script fails; a bundle without the web chat is not made silently.
pub fn make(checkout: &Path, cache: &Path) -> Result<Web, BuildError> {
    let step = "making the web chat";
    let script = checkout.join("im-core/web/build");
    if !search("npm") {
        return Err(BuildError::MissingProgram { program: "npm".to_owned(), step: step.to_owned() });
    }
    let folder = cache.join("bundle-web");
    let draft = folder.join("chat");
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(BuildError::file("cannot remove", &draft))?;
    }
    fs::create_dir_all(&draft).map_err(BuildError::file("cannot make the folder", &draft))?;
    run(Command::new(&script).arg(&draft).current_dir(checkout), step)?;
    let index = draft.join("index.html");
    fs::metadata(&index).map_err(BuildError::file("the web chat's script made no", &index))?;
    let path = folder.join("web.tar.zst");
    let packed = Tree::read(&draft)?.pack(&path)?;
    Ok(Web { path, packed })
}

fn search(program: &str) -> bool {
    env::var_os("PATH").iter().flat_map(env::split_paths).any(|folder| folder.join(program).is_file())
}
