//! `support-bundle`: one file with all that somebody elsewhere needs to find out what is wrong, and no secret.
//!
//! Read-only. Steps: what must not be shown is learnt ([`redact`]); hosts are connected, looked at and judged as
//! `doctor` does it; what the control host knows (topology, status, findings, journal of runs) and what each host has
//! ([`host`]: facts, units, configuration, logs, what an install would change) goes through the redaction into a
//! `tar.zst` ([`archive`]), its index last. A host that cannot be reached is named in the index, and the rest is there.
//!
//! What it deliberately does not do: read data. No message, account, database or uploaded file is in it; logs name
//! addresses of people, so whoever sends it should look first.

mod archive;
mod host;
mod redact;

use crate::actions::doctor::{Examination, examine};
use crate::actions::status::{self, require_installed};
use crate::context::Context;
use crate::error::EngineError;
use crate::events::{Timing, now_rfc3339};
use crate::fleet;
use crate::phases::connect;
use crate::run::{Run, Session};
use archive::Archive;
use redact::Redactor;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Version of the index.
pub const SUPPORT_FORMAT: u32 = 1;
/// Journals of so many runs, the newest, are taken along.
const RUNS: usize = 20;
/// Bytes of one journal at most, its end.
const JOURNAL_LIMIT: usize = 1 << 20;

/// What is gathered.
#[derive(Debug, Clone)]
pub struct SupportOptions {
    /// The file to make; must not exist.
    pub path: PathBuf,
    /// Lines of each log at most, 1 to 10,000.
    pub lines: u32,
}

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its path in the archive.
    pub path: String,
    /// What it is.
    pub what: String,
    /// Bytes.
    pub bytes: u64,
    /// Only its end is there.
    pub shortened: bool,
}

/// Something that should be there and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Host; empty: the control host.
    pub host: String,
    /// What it is.
    pub what: String,
    /// Why it is not there.
    pub cause: String,
}

/// What was made.
#[derive(Debug, Clone, Serialize)]
pub struct SupportOutcome {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// What is in it.
    pub entries: Vec<Entry>,
    /// What is not.
    pub missing: Vec<Missing>,
    /// Phase by phase and host by host.
    #[serde(skip)]
    pub timings: Vec<Timing>,
}

/// The index, last in the archive.
#[derive(Serialize)]
struct Index<'a> {
    format: u32,
    cluster: &'a str,
    domain: &'a str,
    profile: &'a str,
    version: &'a str,
    made_at: String,
    entries: &'a [Entry],
    missing: &'a [Missing],
}

/// Makes a support bundle.
pub fn support_bundle(context: &Context, options: &SupportOptions) -> Result<SupportOutcome, EngineError> {
    let installed = require_installed(context, "support-bundle")?;
    let run = Run::begin(context, "support-bundle", false)?;
    let redactor = Redactor::of(context)?;
    let archive = Mutex::new(Archive::begin(&options.path, &folder_name(&options.path), redactor)?);
    let mut sessions = connect::connect(&run)?;
    let gathered = (|| {
        let examination = examine(&run, &mut sessions, &installed);
        context.cancel.check("support-bundle")?;
        run.emitter.phase("cluster", || cluster(&run, &mut sessions, examination, &archive))?;
        run.emitter.phase("hosts", || {
            let results = fleet::for_each(sessions.iter_mut(), context.concurrency, |session| {
                host::gather(&run, session, options.lines, &archive)
            });
            EngineError::join(results.into_iter().filter_map(Result::err).collect()).map_or(Ok(()), Err)
        })
    })();
    connect::release(&mut sessions);
    gathered?;
    context.cancel.check("support-bundle")?;
    let mut archive = archive.into_inner().unwrap_or_else(PoisonError::into_inner);
    archive.sort();
    let topology = &context.topology;
    let index = Index {
        format: SUPPORT_FORMAT,
        cluster: &topology.name,
        domain: &topology.domain,
        profile: topology.profile.name(),
        version: env!("CARGO_PKG_VERSION"),
        made_at: now_rfc3339(),
        entries: archive.entries(),
        missing: archive.missing(),
    };
    let index = pretty(&index)?;
    let (entries, missing) = (archive.entries().to_vec(), archive.missing().to_vec());
    for one in &missing {
        run.emitter.warn(&one.host, "support-bundle", format!("{}: {}", one.what, one.cause), "");
    }
    let bytes = archive.finish(&index)?;
    Ok(SupportOutcome { path: options.path.clone(), bytes, entries, missing, timings: run.emitter.timings() })
}

/// What everything lies below in the archive: the file's name without its endings.
fn folder_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = name.split(".tar").next().unwrap_or_default();
    if plain.is_empty() { "support".to_owned() } else { plain.to_owned() }
}

fn pretty(value: &impl Serialize) -> Result<String, EngineError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| EngineError::failed("support-bundle", error.to_string()))
}

/// What the control host knows.
fn cluster(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    examination: Examination,
    archive: &Mutex<Archive>,
) -> Result<(), EngineError> {
    let context = run.context;
    let Examination { checks, components, findings } = examination;
    let status = status::of(run, sessions, components)?;
    let mut archive = archive.lock().unwrap_or_else(PoisonError::into_inner);
    archive.add("cluster/topology.yaml", "the topology as it is wanted now", &context.topology_text)?;
    archive.add("cluster/status.json", "hosts and components as measured", &pretty(&status)?)?;
    archive.add("cluster/findings.json", "what doctor finds", &pretty(&findings)?)?;
    archive.add("cluster/checks.json", "preflight, all results", &pretty(&checks)?)?;
    for (name, what) in [
        ("topology.yaml", "the topology as it was applied last"),
        ("state.json", "what was installed, with versions"),
        ("upgrade.json", "where the last upgrade stands"),
        ("host-replace.json", "where the last replacement of a host stands"),
    ] {
        let kept = format!("cluster/applied-{name}");
        match crate::files::read_optional(&context.state.file(name)) {
            Ok(Some(text)) => archive.add(&kept, what, &text)?,
            Ok(None) => {}
            Err(error) => archive.lack("", what, &error.cause),
        }
    }
    journals(&context.state.file("journal"), &mut archive)
}

/// The newest journals of runs.
fn journals(folder: &Path, archive: &mut Archive) -> Result<(), EngineError> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    names.sort();
    for name in names.iter().rev().take(RUNS) {
        let what = "journal of a run";
        match std::fs::read(folder.join(name)) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                archive.add_end(&format!("journal/{name}"), what, &text, JOURNAL_LIMIT)?;
            }
            Err(error) => archive.lack("", what, &format!("{name}: {error}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::folder_name;
    use std::path::Path;

    #[test]
    fn the_folder_inside_is_called_as_the_file() {
        assert_eq!(folder_name(Path::new("/a/maxim-support-acme.tar.zst")), "maxim-support-acme");
        assert_eq!(folder_name(Path::new(".tar.zst")), "support");
    }
}
