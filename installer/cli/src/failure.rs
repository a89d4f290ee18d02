//! What went wrong, ready to be shown: message, cause by cause, what to do, exit code.

use maxim_engine::EngineError;
use maxim_model::topology::{TopologyErrors, nearest};
use serde_json::{Value as Json, json};

/// Wrong topologies show at most this many mistakes at a time.
const SHOWN_MISTAKES: usize = 20;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit code of the contract.
    pub code: u8,
    /// Each: what happened, where, and what to do.
    pub problems: Vec<Problem>,
    /// Text that is shown instead of the problems (compilers' style, or clap's).
    pub rendered: Option<String>,
    /// How many more there are.
    pub more: usize,
}

/// One problem.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problem {
    /// Host; empty: none.
    pub host: String,
    /// Step; empty: none.
    pub step: String,
    /// What happened and why.
    pub message: String,
    /// What to do next; may be empty.
    pub hint: String,
    /// `file:line:column`; may be empty.
    pub place: String,
}

impl Failure {
    /// Exit code 1.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(1, message, hint)
    }

    /// Exit code 2.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(2, message, hint)
    }

    /// Any exit code.
    pub fn new(code: u8, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let problem = Problem { message: message.into(), hint: hint.into(), ..Problem::default() };
        Self { code, problems: vec![problem], rendered: None, more: 0 }
    }

    /// An error of input or output on this machine, with the path.
    pub fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "is the path right?",
            std::io::ErrorKind::PermissionDenied => {
                "run it as a user who may, or change the mode of the file"
            }
            _ => "",
        };
        let code = if error.kind() == std::io::ErrorKind::NotFound { 2 } else { 1 };
        Self::new(code, format!("{}: {error}", path.display()), hint)
    }

    /// What the argument parser refused.
    pub fn arguments(error: &clap::Error) -> Self {
        use clap::error::{ContextKind, ContextValue, ErrorKind};
        if error.kind() == ErrorKind::InvalidSubcommand
            && let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidSubcommand)
        {
            let command = crate::command();
            let near = match error.get(ContextKind::SuggestedSubcommand) {
                Some(ContextValue::Strings(names)) => nearest(wrong, names.iter().map(String::as_str)),
                _ => None,
            };
            let near =
                near.or_else(|| nearest(wrong, command.get_subcommands().map(clap::Command::get_name)));
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`maxim.ctl --help` lists the commands".to_owned(),
            };
            return Self::usage(format!("there is no command `{}`", wrong.escape_debug()), hint);
        }
        let rendered = error.render().to_string();
        let message = rendered.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Self { rendered: Some(rendered), ..Self::usage(message, "") }
    }

    /// Whether it happened at this step.
    pub fn is_at(&self, step: &str) -> bool {
        self.problems.first().is_some_and(|problem| problem.step == step)
    }

    /// As a field of the result line.
    pub fn to_json(&self) -> Json {
        let problems: Vec<Json> = self
            .problems
            .iter()
            .map(|problem| {
                json!({
                    "host": problem.host, "step": problem.step, "message": problem.message,
                    "hint": problem.hint, "place": problem.place,
                })
            })
            .collect();
        json!(problems)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let problem = |error: &EngineError| Problem {
            host: error.host.clone(),
            step: error.step.clone(),
            message: error.cause.clone(),
            hint: error.hint.clone(),
            place: String::new(),
        };
        let mut problems = vec![problem(&error)];
        problems.extend(error.others.iter().map(problem));
        Self { code: error.exit_code(), problems, rendered: None, more: 0 }
    }
}

impl From<TopologyErrors> for Failure {
    fn from(mut errors: TopologyErrors) -> Self {
        let more = errors.truncate(SHOWN_MISTAKES);
        let problems = errors
            .errors
            .iter()
            .map(|error| Problem {
                step: "topology".to_owned(),
                message: error.message.clone(),
                hint: error.hint.clone(),
                place: error.location(),
                ..Problem::default()
            })
            .collect();
        Self { code: 2, problems, rendered: Some(errors.to_string()), more }
    }
}
