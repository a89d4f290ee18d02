//! Playbooks and templates as texts: those embedded in this program, or those of the bundle in use.
//!
//! The embedded ones are what the checkout had when the program was built; a bundle brings its own, so that an older
//! `maxim.ctl` installs exactly what the bundle was built and tested with.

use crate::error::EngineError;
use include_dir::{Dir, include_dir};
use maxim_model::names::{Profile, Role};
use maxim_model::playbook::Playbook;
use std::collections::BTreeMap;
use std::path::Path;

static PLAYBOOKS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../playbooks");
static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../templates");

/// The order in which components are installed on a host within a stage.
const ORDER: [&str; 7] = ["host", "mariadb", "postgresql", "redis", "im", "console", "backup"];

/// All playbooks and templates.
#[derive(Debug, Clone)]
pub struct Library {
    /// Parsed playbooks with their path (`standard/mariadb.yaml`), in order of installation.
    playbooks: Vec<(String, Playbook)>,
    /// Texts by path (`mariadb/my.cnf`).
    templates: BTreeMap<String, String>,
    /// Texts of the playbooks, to be searched for names of secrets.
    texts: Vec<String>,
}

impl Library {
    /// Those that this program carries.
    pub fn embedded() -> Result<Self, EngineError> {
        Self::from_texts(texts_below(&PLAYBOOKS), texts_below(&TEMPLATES))
    }

    /// From texts by path relative to `playbooks/` and `templates/`.
    pub fn from_texts(
        playbooks: impl IntoIterator<Item = (String, String)>,
        templates: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, EngineError> {
        let mut library =
            Self { playbooks: Vec::new(), templates: templates.into_iter().collect(), texts: Vec::new() };
        for (path, text) in playbooks {
            if Path::new(&path).extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let playbook: Playbook = serde_yaml::from_str(&text)
                .map_err(|error| EngineError::failed("playbooks", format!("playbooks/{path}: {error}")))?;
            if !ORDER.contains(&playbook.component.as_str()) {
                return Err(EngineError::failed(
                    "playbooks",
                    format!("playbooks/{path}: unknown component `{}`", playbook.component),
                ));
            }
            library.texts.push(text);
            library.playbooks.push((path, playbook));
        }
        library.playbooks.sort_by_key(|(path, playbook)| {
            (ORDER.iter().position(|name| *name == playbook.component), path.clone())
        });
        Ok(library)
    }

    /// Playbooks of a profile that a host with these roles runs, in order of installation.
    pub fn for_host<'a>(
        &'a self,
        profile: Profile,
        roles: &'a [Role],
    ) -> impl DoubleEndedIterator<Item = (&'a str, &'a Playbook)> {
        self.playbooks
            .iter()
            .filter(move |(_, playbook)| {
                playbook.profiles.contains(&profile)
                    && (playbook.roles.is_empty() || playbook.roles.iter().any(|role| roles.contains(role)))
            })
            .map(|(path, playbook)| (path.as_str(), playbook))
    }

    /// All playbooks.
    pub fn playbooks(&self) -> impl Iterator<Item = (&str, &Playbook)> {
        self.playbooks.iter().map(|(path, playbook)| (path.as_str(), playbook))
    }

    /// All templates by path.
    pub fn templates(&self) -> &BTreeMap<String, String> {
        &self.templates
    }

    /// Names `x` of every `secrets.x` in playbooks and templates, in order.
    pub fn secret_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .texts
            .iter()
            .chain(self.templates.values())
            .flat_map(|text| text.split("secrets.").skip(1))
            .map(|rest| {
                rest.chars()
                    .take_while(|letter| {
                        letter.is_ascii_lowercase() || letter.is_ascii_digit() || *letter == '_'
                    })
                    .collect::<String>()
            })
            .filter(|name| !name.is_empty())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Every UTF-8 file below an embedded folder, by path relative to it.
fn texts_below(folder: &Dir<'_>) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    let mut open = vec![folder];
    while let Some(folder) = open.pop() {
        open.extend(folder.dirs());
        for file in folder.files() {
            if let Some(text) = file.contents_utf8() {
                texts.push((file.path().to_string_lossy().into_owned(), text.to_owned()));
            }
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::Library;

    #[test]
    fn names_of_secrets_are_found_in_playbooks_and_templates() {
        let library = Library::from_texts(
            [(
                "standard/redis.yaml".to_owned(),
                "component: redis\nprofiles: [standard]\ninstall: [{id: a, wait: {until: {socket: '{{ secrets.one }}'}}}]".to_owned(),
            )],
            [("redis/redis.conf".to_owned(), "requirepass {{ secrets.redis_password }} {{secrets.one}}".to_owned())],
        )
        .unwrap();
        assert_eq!(library.secret_names(), ["one", "redis_password"]);
    }

    #[test]
    fn a_playbook_that_is_wrong_is_named() {
        let wrong = [("embedded/im.yaml".to_owned(), "component: im\nprofile: [embedded]".to_owned())];
        let error = Library::from_texts(wrong, []).unwrap_err();
        assert!(error.cause.contains("playbooks/embedded/im.yaml"), "{error}");
        let unknown = [("x.yaml".to_owned(), "component: nginx\nprofiles: []\ninstall: []".to_owned())];
        assert!(Library::from_texts(unknown, []).unwrap_err().cause.contains("nginx"));
    }

    #[test]
    fn the_embedded_library_parses() {
        assert!(Library::embedded().unwrap().playbooks().count() > 0);
    }
}
