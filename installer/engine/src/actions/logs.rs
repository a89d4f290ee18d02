//! `logs`: the last lines of each component's log.

use crate::actions::status::require_installed;
use crate::context::Context;
use crate::error::EngineError;
use crate::fleet;
use crate::phases::connect;
use crate::run::Run;
use maxim_model::names::Component;
use maxim_model::wire::{Reply, Request};
use serde::Serialize;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(20);

/// Which lines.
#[derive(Debug, Clone, Default)]
pub struct LogsOptions {
    /// Only this component.
    pub component: Option<Component>,
    /// Only this host.
    pub host: Option<String>,
    /// Lines at most, of each component on each host.
    pub lines: u32,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// Host.
    pub host: String,
    /// Component.
    pub component: String,
    /// The line as logged.
    pub line: String,
}

/// Reads logs, host by host in topology order. A host that cannot be reached is told as a warning event when others
/// could be; it is an error when none could.
pub fn logs(context: &Context, options: &LogsOptions) -> Result<Vec<LogLine>, EngineError> {
    require_installed(context, "logs")?;
    let wanted = |host: &str| options.host.as_ref().is_none_or(|only| only == host);
    if let Some(host) = &options.host
        && context.topology.host(host).is_none()
    {
        return Err(EngineError::usage("logs", format!("no host of this cluster is called {host}")));
    }
    let run = Run::begin(context, "logs", false)?;
    let mut sessions = connect::connect(&run)?;
    let results = fleet::for_each(sessions.iter_mut(), context.concurrency, |session| {
        if !wanted(&session.host.name) {
            return Ok(Vec::new());
        }
        let Some(agent) = session.reader.as_mut() else {
            return Err(session.error.take().unwrap_or_else(|| EngineError::failed("logs", "not connected")));
        };
        let mut lines = Vec::new();
        for role in &session.host.roles {
            if options.component.is_some_and(|only| only != *role) {
                continue;
            }
            let request =
                Request::Logs { name: role.service(), manager: run.manager(), lines: options.lines };
            agent.request("logs", &request, DEADLINE, |reply| {
                if let Reply::Log { line } = reply {
                    lines.push(LogLine {
                        host: session.host.name.clone(),
                        component: role.name().into(),
                        line,
                    });
                }
            })?;
        }
        Ok(lines)
    });
    connect::release(&mut sessions);
    let mut lines = Vec::new();
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(found) => lines.extend(found),
            Err(error) => errors.push(error),
        }
    }
    if lines.is_empty() {
        return EngineError::join(errors).map_or(Ok(lines), Err);
    }
    for error in errors {
        run.emitter.warn(&error.host, "logs", error.cause.clone(), error.hint.clone());
    }
    Ok(lines)
}
