//! `logs`: the last lines of each component's log.

use crate::context::Context;
use crate::error::EngineError;
use maxim_model::names::Component;
use serde::Serialize;

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

/// Reads logs, host by host in topology order.
pub fn logs(context: &Context, options: &LogsOptions) -> Result<Vec<LogLine>, EngineError> {
    let _ = (context, options);
    Err(EngineError::failed("logs", "not there yet"))
}
