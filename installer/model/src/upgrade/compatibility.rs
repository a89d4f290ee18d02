//! The compatibility matrix of a bundle, and why a bundle cannot follow what is installed.

use super::Version;
use crate::manifest::{Manifest, MemberKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a bundle says it can follow (`compatibility` in the manifest).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compatibility {
    /// Versions that can be upgraded to this one directly, as series (`0.1`) or exactly (`0.1.3`).
    pub upgrades_from: Vec<String>,
    /// Schemas of the database.
    pub schema: SchemaRange,
}

/// Numbers of the migrations of the database's schema that a version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRange {
    /// The oldest schema that this version can start on.
    pub oldest: u32,
    /// Up to where it expands the schema when it starts. The version before still works on the result.
    pub expanded: u32,
    /// Where the schema is once the upgrade is finalized: from there on the version before cannot run. Equal to
    /// `expanded` when there is nothing to finalize.
    pub finalized: u32,
}

/// Why a bundle cannot follow what is installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is older.
    #[error("the bundle holds version {bundle}, older than {installed}, which is installed")]
    Older {
        /// Version of the bundle.
        bundle: String,
        /// Version that is installed.
        installed: String,
    },
    /// Its matrix does not name what is installed.
    #[error("version {bundle} cannot follow {installed}: it can be upgraded to from {from}")]
    Skips {
        /// Version of the bundle.
        bundle: String,
        /// Version that is installed.
        installed: String,
        /// What it can follow, in words.
        from: String,
    },
    /// It says nothing about upgrades.
    #[error("the bundle of version {0} does not say which versions can be upgraded to it")]
    Silent(String),
    /// A version cannot be read.
    #[error("{0}")]
    Version(String),
    /// A store of another release series: its data would have to be dumped and read in again.
    #[error(
        "{component} {bundle} in the bundle is of another release series than {installed}, which is installed"
    )]
    Store {
        /// `mariadb`, `postgresql`, `redis`.
        component: String,
        /// Version in the bundle.
        bundle: String,
        /// Version that is installed.
        installed: String,
    },
}

impl Refusal {
    /// What to do next.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Older { .. } => "take a newer bundle; the way back from an upgrade is `maxim.ctl rollback`",
            Self::Skips { .. } => "upgrade to a version in between first, and finalize that",
            Self::Silent(_) | Self::Version(_) => "take a bundle that was built for upgrades",
            Self::Store { .. } => {
                "a store of another series needs its data dumped and read in again; take a bundle with the same series"
            }
        }
    }
}

/// Whether a bundle can follow what is installed: `version` of Maxim and versions of its components by name.
pub fn judge(
    manifest: &Manifest,
    version: &str,
    components: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let parse = |text: &str| text.parse::<Version>().map_err(Refusal::Version);
    let (bundle, installed) = (parse(&manifest.version)?, parse(version)?);
    if bundle < installed {
        return Err(Refusal::Older { bundle: bundle.to_string(), installed: installed.to_string() });
    }
    let Some(matrix) = &manifest.compatibility else { return Err(Refusal::Silent(bundle.to_string())) };
    // The same version with other content is a repair of itself.
    if bundle != installed && !matrix.upgrades_from.iter().any(|series| installed.is_in(series)) {
        return Err(Refusal::Skips {
            bundle: bundle.to_string(),
            installed: installed.to_string(),
            from: matrix.upgrades_from.join(", "),
        });
    }
    for (component, running) in components {
        let Some(member) = manifest.find(MemberKind::Image, component) else { continue };
        if series(component, running) != series(component, &member.version) {
            return Err(Refusal::Store {
                component: component.clone(),
                bundle: member.version.clone(),
                installed: running.clone(),
            });
        }
    }
    Ok(())
}

/// The part of a store's version within which its data files stay as they are: one number for `PostgreSQL`, two for
/// the others. A Debian epoch does not count.
fn series(component: &str, version: &str) -> Vec<String> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    let count = if component == "postgresql" { 1 } else { 2 };
    upstream.split(['.', '-', '+', '~']).take(count).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{Compatibility, Refusal, SchemaRange, judge};
    use crate::manifest::{MANIFEST_FORMAT, Manifest, Member, MemberKind};
    use std::collections::BTreeMap;

    fn bundle(version: &str, from: &[&str]) -> Manifest {
        let image = |name: &str, version: &str| Member {
            path: format!("images/{name}.tar.zst"),
            kind: MemberKind::Image,
            name: name.into(),
            version: version.into(),
            sha256: "0".repeat(64),
            size: 1,
            unpacked_size: 1,
            roles: Vec::new(),
        };
        Manifest {
            format: MANIFEST_FORMAT,
            version: version.into(),
            architecture: "x86_64".into(),
            lock_sha256: String::new(),
            public_key: String::new(),
            compatibility: Some(Compatibility {
                upgrades_from: from.iter().map(ToString::to_string).collect(),
                schema: SchemaRange { oldest: 1, expanded: 2, finalized: 3 },
            }),
            members: vec![image("mariadb", "11.8.6"), image("postgresql", "17.12-1")],
        }
    }

    #[test]
    fn a_bundle_follows_what_its_matrix_names_and_nothing_else() {
        let none = BTreeMap::new();
        let next = bundle("0.2.0", &["0.1"]);
        assert_eq!(judge(&next, "0.1.0", &none), Ok(()));
        assert_eq!(judge(&next, "0.1.9", &none), Ok(()));
        assert_eq!(judge(&next, "0.2.0", &none), Ok(()), "the same version again");
        assert!(matches!(judge(&next, "0.3.0", &none), Err(Refusal::Older { .. })));
        let skips = judge(&bundle("0.3.0", &["0.2"]), "0.1.0", &none).unwrap_err();
        assert_eq!(skips.to_string(), "version 0.3.0 cannot follow 0.1.0: it can be upgraded to from 0.2");
        let silent = Manifest { compatibility: None, ..next };
        assert!(matches!(judge(&silent, "0.1.0", &none), Err(Refusal::Silent(_))));
        assert!(matches!(judge(&bundle("next", &["0.1"]), "0.1.0", &none), Err(Refusal::Version(_))));
    }

    #[test]
    fn a_store_keeps_to_its_series() {
        let next = bundle("0.2.0", &["0.1"]);
        let running = |name: &str, version: &str| BTreeMap::from([(name.to_owned(), version.to_owned())]);
        assert_eq!(judge(&next, "0.1.0", &running("mariadb", "11.8.3")), Ok(()));
        assert!(matches!(judge(&next, "0.1.0", &running("mariadb", "10.11.6")), Err(Refusal::Store { .. })));
        assert_eq!(judge(&next, "0.1.0", &running("postgresql", "17.2-1+b1")), Ok(()));
        assert!(matches!(judge(&next, "0.1.0", &running("postgresql", "16.4")), Err(Refusal::Store { .. })));
        assert_eq!(judge(&next, "0.1.0", &running("im", "0.1.0")), Ok(()), "programs go with the version");
    }

    #[test]
    fn a_manifest_of_a_later_program_is_still_read() {
        let mut value = serde_json::to_value(bundle("0.2.0", &["0.1"])).unwrap();
        value["something_new"] = serde_json::json!({"a": 1});
        let read: Manifest = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(read.version, "0.2.0");
        value.as_object_mut().unwrap().remove("compatibility");
        let read: Manifest = serde_json::from_value(value).unwrap();
        assert_eq!(read.compatibility, None);
    }
}
