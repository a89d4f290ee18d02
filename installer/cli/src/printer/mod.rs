//! One type owns what the person sees: standard output and error, quiet, colour, progress, JSON lines.
//!
//! Results (tables, URLs, log lines) go to standard output; steps, warnings, questions and errors to standard error.
//! With `--output json` standard output carries one JSON object per line, and human text goes to standard error.
//! Progress is drawn on a terminal only. Colour supports and never carries: every state has its word.

pub(crate) mod plan_view;
mod progress;
pub(crate) mod style;
pub(crate) mod table;

use crate::arguments::{Global, OutputFormat};
use crate::failure::Failure;
use crate::messages::{Messages, values};
use maxim_engine::EventSink;
use maxim_engine::Timing;
use maxim_model::event::Event;
use progress::Progress;
use serde_json::{Map, Value as Json, json};
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use style::Style;

/// See the module.
pub(crate) struct Printer {
    format: OutputFormat,
    quiet: bool,
    verbose: u8,
    out: Style,
    err: Style,
    messages: Messages,
    progress: Mutex<Progress>,
}

impl Printer {
    /// By the global flags.
    pub fn new(global: &Global, messages: Messages) -> Self {
        let plain = global.no_color
            || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let err = Style::new(!plain && std::io::stderr().is_terminal());
        let progress = Progress::new(terminal && !global.quiet, global.quiet, global.verbose, err);
        Self {
            format: global.output,
            quiet: global.quiet,
            verbose: global.verbose,
            out: Style::new(!plain && std::io::stdout().is_terminal()),
            err,
            messages,
            progress: Mutex::new(progress),
        }
    }

    /// Before the flags are known.
    pub fn plain(output: OutputFormat, messages: Messages) -> Self {
        Self::new(&Global { output, no_color: true, ..Global::default() }, messages)
    }

    /// The sentences.
    pub const fn messages(&self) -> &Messages {
        &self.messages
    }

    /// How many `-v`.
    pub const fn verbose(&self) -> u8 {
        self.verbose
    }

    /// Colours of what [`Printer::human`] writes to.
    pub const fn style(&self) -> Style {
        if self.is_json() { self.err } else { self.out }
    }

    /// JSON lines on standard output.
    pub const fn is_json(&self) -> bool {
        matches!(self.format, OutputFormat::Json)
    }

    /// Whether a person reads standard output on a terminal.
    pub fn is_person(&self) -> bool {
        !self.is_json() && std::io::stdout().is_terminal()
    }

    /// A result for people: standard output, or standard error beside JSON.
    pub fn human(&self, text: &str) {
        self.suspended(|| {
            if self.is_json() {
                if !self.quiet {
                    write_to(&mut std::io::stderr().lock(), text);
                }
            } else {
                write_to(&mut std::io::stdout().lock(), text);
            }
        });
    }

    /// Something said along the way: standard error, not when quiet.
    pub fn aside(&self, text: &str) {
        if !self.quiet {
            self.suspended(|| write_to(&mut std::io::stderr().lock(), text));
        }
    }

    /// Raw bytes on standard output (an exported certificate, a completion).
    pub fn raw(&self, bytes: &[u8]) {
        self.clear();
        let mut out = std::io::stdout().lock();
        // A closed pipe is the reader's wish.
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }

    /// Runs something while no progress is drawn.
    pub fn suspended<T>(&self, work: impl FnOnce() -> T) -> T {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).suspended(work)
    }

    /// Asks a yes-or-no question on standard error and lets `read` find the answer.
    pub fn question(&self, question: &str, read: impl FnOnce() -> bool) -> bool {
        let default = self.messages.text("ask-default-no");
        self.prompt(&format!("{} [{default}]", self.err.bold(question)), read)
    }

    /// Asks for the name of what will be destroyed, likewise. `name`: how it is shown.
    pub fn question_of_name(&self, question: &str, name: &str, read: impl FnOnce() -> bool) -> bool {
        let how = self.messages.with("ask-type-name", values!["name" => name]);
        self.prompt(&format!("{}\n{how}", self.err.bold(question)), read)
    }

    fn prompt(&self, question: &str, read: impl FnOnce() -> bool) -> bool {
        self.suspended(|| {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "{question} ");
            let _ = err.flush();
            drop(err);
            read()
        })
    }

    /// A step of long work on this machine (a bundle being built): a spinner on a terminal, a line elsewhere.
    pub fn step(&self, step: &str, detail: &str) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).step(step, detail);
    }

    /// The last JSON line. `fields` is an object.
    pub fn result(&self, code: u8, fields: Json) {
        self.clear();
        if !self.is_json() {
            return;
        }
        let mut line = Map::new();
        line.insert("event".to_owned(), Json::from("result"));
        line.insert("ok".to_owned(), Json::from(code == 0));
        line.insert("code".to_owned(), Json::from(code));
        if let Json::Object(fields) = fields {
            line.extend(fields);
        }
        self.raw(format!("{}\n", Json::Object(line)).as_bytes());
    }

    /// Shows what went wrong, and gives the exit code.
    pub fn failure(&self, failure: &Failure) -> u8 {
        self.clear();
        let style = self.err;
        let mut text = String::new();
        if let Some(rendered) = &failure.rendered {
            let word = self.messages.text("word-error");
            for line in rendered.lines() {
                match line.strip_prefix("error: ") {
                    Some(rest) => {
                        let rest = self.messages.own(rest);
                        text.push_str(&format!("{}: {}\n", style.red(&word), style.bold(&rest)));
                    }
                    None => match line.split_once("= hint: ") {
                        Some((margin, hint)) => text.push_str(&format!(
                            "{margin}= {}: {}\n",
                            self.messages.text("word-hint"),
                            self.messages.own(hint)
                        )),
                        None => text.push_str(&format!("{line}\n")),
                    },
                }
            }
        } else {
            for problem in &failure.problems {
                text.push_str(&self.problem(problem));
            }
        }
        if failure.more > 0 {
            text.push_str(&format!(
                "{}\n",
                self.messages.with("error-more", values!["count" => failure.more])
            ));
        }
        write_to(&mut std::io::stderr().lock(), &text);
        if self.is_json() {
            self.result(failure.code, json!({ "errors": failure.to_json() }));
        }
        failure.code
    }

    fn problem(&self, problem: &crate::failure::Problem) -> String {
        let style = self.err;
        let mut place: Vec<&str> = Vec::new();
        for part in [problem.host.as_str(), problem.step.as_str()] {
            if !part.is_empty() {
                place.push(part);
            }
        }
        let place = if place.is_empty() { String::new() } else { format!("{}: ", place.join(": ")) };
        let message = self.messages.own(&problem.message);
        let mut lines = message.lines();
        let first = lines.next().unwrap_or_default();
        let mut text =
            format!("{}: {place}{}\n", style.red(&self.messages.text("word-error")), style.bold(first));
        for line in lines {
            text.push_str(&format!("  {line}\n"));
        }
        if !problem.hint.is_empty() {
            text.push_str(&format!(
                "  {}: {}\n",
                self.messages.text("word-hint"),
                self.messages.own(&problem.hint)
            ));
        }
        text
    }

    /// Where the time went.
    pub fn timings(&self, timings: &[Timing]) {
        let mut rows = vec![vec![
            self.messages.text("column-phase"),
            self.messages.text("column-host"),
            self.messages.text("column-time"),
        ]];
        rows.extend(timings.iter().map(|timing| {
            vec![timing.phase.clone(), timing.host.clone(), style::duration(timing.duration_ms)]
        }));
        let text =
            table::render(&rows, &[table::Align::Left, table::Align::Left, table::Align::Right], self.err);
        self.suspended(|| write_to(&mut std::io::stderr().lock(), &format!("\n{text}")));
    }

    /// Shows the phases of a long action as lines.
    pub fn show_phases(&self) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).show_phases();
    }

    /// The engine has ended: what is drawn goes, what was held back is said.
    pub fn run_ended(&self) {
        self.clear();
    }

    /// Removes what is drawn.
    fn clear(&self) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.checks_finished(&self.messages);
        progress.clear();
    }

    /// The end of the program.
    pub fn finish(&self) {
        self.clear();
    }
}

impl EventSink for Printer {
    fn emit(&self, event: &Event) {
        if self.is_json()
            && let Ok(line) = serde_json::to_string(event)
        {
            write_to(&mut std::io::stdout().lock(), &format!("{line}\n"));
        }
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).event(event, &self.messages);
    }
}

/// Writes and does not care for a reader that went away.
fn write_to(stream: &mut dyn Write, text: &str) {
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}
