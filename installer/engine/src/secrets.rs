//! Secrets of a cluster: generated once, by name, on first use.
//!
//! They live in `secrets.json` (0600) of the state folder. A store can be used without being saved: a dry run makes
//! what it needs in memory and forgets it.

use crate::error::EngineError;
use crate::files;
use maxim_model::Secret;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Letters and digits without those that look alike (0 O o, 1 I l).
const ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";

/// The secrets of one cluster.
#[derive(Debug)]
pub struct Secrets {
    path: PathBuf,
    values: BTreeMap<String, Secret>,
    changed: bool,
}

impl Secrets {
    /// Reads those that exist.
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        let values = match files::read_optional(path)? {
            Some(text) => serde_json::from_str(&text).map_err(|error| {
                EngineError::failed("state", format!("{}: {error}", path.display()))
                    .hint("restore the file from a copy; without it the cluster's passwords are lost")
            })?,
            None => BTreeMap::new(),
        };
        Ok(Self { path: path.to_owned(), values, changed: false })
    }

    /// The secret of this name, made now if there is none yet. Passwords that a person may type
    /// (`…_admin_password`, `initial_account_password`) have 20 characters, others 40.
    pub fn get_or_make(&mut self, name: &str) -> Secret {
        if let Some(value) = self.values.get(name) {
            return value.clone();
        }
        let typed_by_people = name.ends_with("_admin_password") || name == "initial_account_password";
        let value = Secret::new(random_text(if typed_by_people { 20 } else { 40 }));
        self.values.insert(name.to_owned(), value.clone());
        self.changed = true;
        value
    }

    /// The secret of this name.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.values.get(name)
    }

    /// Sets a secret that was given or made elsewhere.
    pub fn set(&mut self, name: &str, value: Secret) {
        if self.values.get(name) != Some(&value) {
            self.values.insert(name.to_owned(), value);
            self.changed = true;
        }
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Writes them when something is new. Must happen before any of them reaches a host.
    pub fn save(&mut self) -> Result<(), EngineError> {
        if self.changed {
            let text = serde_json::to_string_pretty(&self.values)
                .map_err(|error| EngineError::failed("state", error.to_string()))?;
            files::write_whole(&self.path, text.as_bytes(), 0o600)?;
            self.changed = false;
        }
        Ok(())
    }
}

/// Random text of letters and digits that do not look alike.
pub(crate) fn random_text(length: usize) -> String {
    (0..length).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::Secrets;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.json");
        let mut secrets = Secrets::load(&path).unwrap();
        let first = secrets.get_or_make("redis_password");
        assert_eq!(first.expose().len(), 40);
        assert_eq!(secrets.get_or_make("console_admin_password").expose().len(), 20);
        assert!(!path.exists(), "nothing is written before save");
        secrets.save().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mut again = Secrets::load(&path).unwrap();
        assert_eq!(again.get_or_make("redis_password"), first);
        assert!(!again.changed);
    }

    #[test]
    fn a_broken_file_is_refused_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.json");
        std::fs::write(&path, "{").unwrap();
        assert!(Secrets::load(&path).unwrap_err().cause.contains("secrets.json"));
    }
}
