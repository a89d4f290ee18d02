//! `upgrade.json`: where an upgrade stands, written whole before each step that changes something.

use super::kept::{self, Kept};
use crate::delivery::Delivery;
use crate::error::EngineError;
use crate::events::now_rfc3339;
use crate::files;
use crate::state::{Installed, StateDir};
use maxim_model::upgrade::{Phase, RECORD_FORMAT, Record, Turn, UpgradeStatus};

const FILE: &str = "upgrade.json";

/// Reads the record of the last upgrade.
pub(super) fn load(state: &StateDir) -> Result<Option<Record>, EngineError> {
    let path = state.file(FILE);
    let Some(text) = files::read_optional(&path)? else { return Ok(None) };
    let record: Record = serde_json::from_str(&text)
        .map_err(|error| EngineError::failed("state", format!("{}: {error}", path.display())))?;
    if record.format != RECORD_FORMAT {
        return Err(EngineError::refused(
            "upgrade",
            format!("{} has format {}, this program reads {RECORD_FORMAT}", path.display(), record.format),
        )
        .hint("use the `maxim.ctl` of the newer bundle: `tar xf BUNDLE maxim.ctl`"));
    }
    Ok(Some(record))
}

/// Writes it.
pub(super) fn save(state: &StateDir, record: &mut Record) -> Result<(), EngineError> {
    record.changed_at = now_rfc3339();
    let text = serde_json::to_string_pretty(record)
        .map_err(|error| EngineError::failed("state", error.to_string()))?;
    files::write_whole(&state.file(FILE), text.as_bytes(), 0o600)
}

/// Forgets everything of upgrades: nothing is installed any more that could be taken back.
pub(crate) fn forget(state: &StateDir) -> Result<(), EngineError> {
    for kind in [kept::APPLIED, kept::PREVIOUS, kept::NEXT, kept::FORMER] {
        Kept::remove(state, kind)?;
    }
    let path = state.file(FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(EngineError::failed("state", format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// What `status` says of the last upgrade; nothing once it is over.
pub(crate) fn status(state: &StateDir) -> Result<Option<UpgradeStatus>, EngineError> {
    Ok(load(state)?.filter(|record| record.phase != Phase::Finalized).map(|record| (&record).into()))
}

/// An install is no upgrade: it would switch every host at once, without a way back. Refused when the bundle holds
/// another version than what is installed, and while an upgrade is under way.
pub(crate) fn refuse_other_version(
    state: &StateDir,
    installed: &Installed,
    delivery: &Delivery,
) -> Result<(), EngineError> {
    if let Some(record) = load(state)?
        && matches!(record.phase, Phase::Switching | Phase::RollingBack | Phase::Finalizing)
    {
        return Err(under_way("install", &record)
            .hint("complete it with `maxim.ctl upgrade`, or take it back with `maxim.ctl rollback`"));
    }
    other_version(installed, delivery)
}

fn under_way(step: &str, record: &Record) -> EngineError {
    let (from, to) = (&record.from.version, &record.to.version);
    EngineError::refused(
        step,
        format!("an upgrade from {from} to {to} is under way since {}", record.started_at),
    )
}

/// The same for the replacement of a host. A host that died for good keeps the way back from its end: it may be replaced
/// once every other host runs the version before ([`end_rollback`]).
pub(crate) fn refuse_replacement(
    state: &StateDir,
    installed: &Installed,
    delivery: &Delivery,
    dead: &str,
) -> Result<(), EngineError> {
    let Some(record) = load(state)?.filter(|record| record.phase == Phase::RollingBack) else {
        return refuse_other_version(state, installed, delivery);
    };
    let behind = record
        .hosts
        .iter()
        .find(|(host, turn)| host != dead && !matches!(turn, Turn::TakenBack | Turn::Waiting));
    match behind {
        Some((host, _)) => Err(under_way("host replace", &record).on(host).hint(
            "this host is not taken back yet: run `maxim.ctl rollback` until all others are, then replace the dead one",
        )),
        None => other_version(installed, delivery),
    }
}

/// Ends the way back where nothing but a dead host kept it open, once its replacement is approved: what failed is kept
/// for `status`, and the version before is what is installed.
pub(crate) fn end_rollback(state: &StateDir) -> Result<(), EngineError> {
    let Some(mut record) = load(state)?.filter(|record| record.phase == Phase::RollingBack) else {
        return Ok(());
    };
    if let Some(previous) = Kept::load(state, kept::PREVIOUS)? {
        previous.save(state, kept::APPLIED)?;
    }
    record.phase = Phase::RolledBack;
    save(state, &mut record)
}

/// The playbooks of a version are known to its own program only, which notes that version as installed: so bundle and
/// program must both be of what is installed.
fn other_version(installed: &Installed, delivery: &Delivery) -> Result<(), EngineError> {
    let own = env!("CARGO_PKG_VERSION");
    match delivery {
        Delivery::Bundle(bundle)
            if installed.generation > 0 && bundle.manifest().version != installed.version =>
        {
            Err(EngineError::refused(
                "install",
                format!(
                    "version {} is installed, the bundle holds {}",
                    installed.version,
                    bundle.manifest().version
                ),
            )
            .hint("`maxim.ctl upgrade --bundle FILE` goes from one version to the next, host by host"))
        }
        Delivery::Bundle(bundle) => super::refuse_other_program("install", &bundle.manifest().version),
        // Without a bundle the version is the program's.
        _ if installed.generation > 0 && is_older(own, &installed.version) => Err(EngineError::refused(
            "install",
            format!("version {} is installed, and this program is of version {own}", installed.version),
        )
        .hint("take the maxim.ctl of the installed version; an older one does not know what it would write")),
        _ => Ok(()),
    }
}

fn is_older(one: &str, other: &str) -> bool {
    match (semver::Version::parse(one), semver::Version::parse(other)) {
        (Ok(one), Ok(other)) => one < other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{load, refuse_other_version, save, status};
    use crate::delivery::Delivery;
    use crate::state::{Installed, StateDir};
    use maxim_model::upgrade::{Phase, RECORD_FORMAT, Record, Release};

    fn record(phase: Phase) -> Record {
        Record {
            format: RECORD_FORMAT,
            from: Release { version: "0.1.0".into(), ..Release::default() },
            to: Release { version: "0.2.0".into(), ..Release::default() },
            phase,
            hosts: Vec::new(),
            snapshot: String::new(),
            started_at: "then".into(),
            changed_at: String::new(),
            failure: String::new(),
        }
    }

    #[test]
    fn an_older_program_installs_nothing_over_a_newer_version() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        let installed =
            |version: &str| Installed { version: version.into(), generation: 1, ..Installed::default() };
        refuse_other_version(&state, &installed(env!("CARGO_PKG_VERSION")), &Delivery::None).unwrap();
        refuse_other_version(&state, &installed("0.0.1"), &Delivery::None).unwrap();
        let refused = refuse_other_version(&state, &installed("99.0.0"), &Delivery::None).unwrap_err();
        assert!(refused.exit_code() == 5 && refused.cause.contains("99.0.0"), "{refused:?}");
    }

    #[test]
    fn an_upgrade_under_way_is_shown_and_no_install_comes_between() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        let installed = Installed::default();
        assert_eq!(status(&state).unwrap(), None);
        refuse_other_version(&state, &installed, &Delivery::None).unwrap();
        save(&state, &mut record(Phase::Switching)).unwrap();
        assert_ne!(load(&state).unwrap().unwrap().changed_at, "");
        let refused = refuse_other_version(&state, &installed, &Delivery::None).unwrap_err();
        assert_eq!(refused.exit_code(), 5);
        assert!(refused.cause.contains("from 0.1.0 to 0.2.0"), "{refused}");
        save(&state, &mut record(Phase::Switched)).unwrap();
        refuse_other_version(&state, &installed, &Delivery::None).unwrap();
        assert!(status(&state).unwrap().unwrap().can_go_back);
        save(&state, &mut record(Phase::Finalized)).unwrap();
        assert_eq!(status(&state).unwrap(), None);
        save(&state, &mut Record { format: 99, ..record(Phase::Switched) }).unwrap();
        assert_eq!(load(&state).unwrap_err().exit_code(), 5);
    }
}
