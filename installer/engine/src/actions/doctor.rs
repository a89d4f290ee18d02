//! `doctor`: preflight, status and logs read together; what is wrong, what shows it, what to do.
//!
//! Read-only. Blocking and warning checks become findings as they are; a component that is not well becomes one with
//! the last lines of its log, and with a remedy where those lines are known to mean something.

use crate::actions::status::require_installed;
use crate::context::Context;
use crate::error::EngineError;
use crate::fleet;
use crate::phases::probe::DiskProbe;
use crate::phases::{connect, measure};
use crate::preflight;
use crate::run::{Run, Session};
use crate::state::Installed;
use maxim_model::check::{CheckResult, Verdict};
use maxim_model::status::{ComponentStatus, Health};
use maxim_model::wire::{Reply, Request};
use serde::Serialize;
use std::time::Duration;

const LINES: u32 = 20;
const LOGS: Duration = Duration::from_secs(20);

/// What a line of a log means, and what to do.
const KNOWN: &[(&str, &str)] = &[
    (
        "no space left on device",
        "free space on the file system that the line names, then `maxim.ctl restart`",
    ),
    ("address already in use", "another process holds the port: `ss -ltnp` on the host names it"),
    (
        "permission denied",
        "owner or mode of a file was changed: `maxim.ctl config diff` shows it, `maxim.ctl install` puts it right",
    ),
    (
        "out of memory",
        "the host has too little memory for its roles: `maxim.ctl check` says how much is wanted",
    ),
    (
        "killed process",
        "the host has too little memory for its roles: `maxim.ctl check` says how much is wanted",
    ),
    (
        "certificate",
        "a certificate is missing, expired or not trusted: `maxim.ctl install` issues what is due",
    ),
    (
        "access denied for user",
        "the database password differs from the one wanted: `maxim.ctl install` sets it again",
    ),
    ("too many open files", "raise the limit: `maxim.ctl check` says how many are wanted"),
    ("table is marked as crashed", "the database was damaged: restore it from a backup"),
    ("connection refused", "what it connects to does not run: look at the other components"),
];

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Host; empty: the cluster.
    pub host: String,
    /// Component or area.
    pub component: String,
    /// How bad.
    pub verdict: Verdict,
    /// What is wrong, one line.
    pub title: String,
    /// What shows it: log lines, measured values.
    pub evidence: Vec<String>,
    /// What to do.
    pub fix: String,
}

/// Looks for what is wrong. An empty list: nothing was found.
pub fn doctor(context: &Context) -> Result<Vec<Finding>, EngineError> {
    let installed = require_installed(context, "doctor")?;
    let run = Run::begin(context, "doctor", false)?;
    let mut sessions = connect::connect(&run)?;
    let examination = examine(&run, &mut sessions, &installed);
    connect::release(&mut sessions);
    context.cancel.check("doctor")?;
    Ok(examination.findings)
}

/// What was looked at, and what is wrong with it.
pub(crate) struct Examination {
    /// Every result of preflight.
    pub checks: Vec<CheckResult>,
    /// Every component as measured.
    pub components: Vec<ComponentStatus>,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
}

/// The same on hosts that are connected, with what it rests on.
pub(crate) fn examine(run: &Run<'_>, sessions: &mut [Session<'_>], installed: &Installed) -> Examination {
    let checks = preflight::preflight(run, sessions, DiskProbe::Databases).results;
    let components = measure::components(run, sessions, installed, false);
    let mut findings: Vec<Finding> = checks
        .iter()
        .filter(|result| result.verdict >= Verdict::Warn)
        .map(|result| Finding {
            component: result.id.split('.').next().unwrap_or_default().to_owned(),
            title: format!("{}: {}", result.title, result.measured),
            evidence: if result.threshold.is_empty() {
                Vec::new()
            } else {
                vec![format!("wanted: {}", result.threshold)]
            },
            host: result.host.clone(),
            verdict: result.verdict,
            fix: result.fix.clone(),
        })
        .collect();
    let sick: Vec<&ComponentStatus> = components
        .iter()
        .filter(|status| !matches!(status.health, Health::Well | Health::Working | Health::Unknown))
        .collect();
    findings.extend(
        fleet::for_each(sessions.iter_mut(), run.context.concurrency, |session| {
            sick.iter()
                .filter(|status| status.host == session.host.name)
                .map(|status| (status, tail(run, session, &status.component)))
                .map(|(status, lines)| finding(status, lines))
                .collect::<Vec<_>>()
        })
        .into_iter()
        .flatten(),
    );
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
    Examination { checks, components, findings }
}

fn tail(run: &Run<'_>, session: &mut Session<'_>, component: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(agent) = session.reader.as_mut() {
        let request =
            Request::Logs { name: format!("maxim-{component}"), manager: run.manager(), lines: LINES };
        let read = agent.request("doctor", &request, LOGS, |reply| {
            if let Reply::Log { line } = reply {
                lines.push(line);
            }
        });
        if let Err(error) = read {
            lines.push(format!("(its log could not be read: {})", error.cause));
        }
    }
    lines
}

fn finding(status: &ComponentStatus, lines: Vec<String>) -> Finding {
    let known = lines.iter().rev().find_map(|line| {
        let line = line.to_lowercase();
        KNOWN.iter().find(|(sign, _)| line.contains(sign)).map(|(_, fix)| *fix)
    });
    let fix = known.unwrap_or(if status.detail == "stopped" {
        "`maxim.ctl start` starts it"
    } else {
        "the lines above are the last it said; `maxim.ctl restart` is safe to try"
    });
    Finding {
        host: status.host.clone(),
        component: status.component.clone(),
        verdict: if status.health == Health::Broken { Verdict::Block } else { Verdict::Warn },
        title: status.detail.clone(),
        evidence: lines,
        fix: fix.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::finding;
    use maxim_model::check::Verdict;
    use maxim_model::status::{ComponentStatus, Health};

    fn status(detail: &str, health: Health) -> ComponentStatus {
        ComponentStatus {
            host: "db1".into(),
            component: "mariadb".into(),
            wanted: "11.8.6".into(),
            running: String::new(),
            health,
            detail: detail.into(),
            memory: 0,
            since_seconds: 0,
            restarts: 0,
        }
    }

    #[test]
    fn a_known_line_gives_its_remedy() {
        let lines =
            vec!["[ERROR] mariadbd: Disk full: No space left on device".to_owned(), "Aborting".to_owned()];
        let found = finding(&status("failed", Health::Broken), lines.clone());
        assert_eq!((found.verdict, &found.evidence), (Verdict::Block, &lines));
        assert!(found.fix.contains("free space"));
        assert!(finding(&status("stopped", Health::Broken), Vec::new()).fix.contains("maxim.ctl start"));
    }
}
