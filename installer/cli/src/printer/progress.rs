//! The event stream as lines, and on a terminal as one live line that says what each host works on.
//!
//! A finished phase is one line: what, result, time. Steps that changed something are lines of their own where no
//! terminal is, or with `-v`; a warning or a failure is shown at once with its remedy, indented.

use super::style::{self, Style};
use crate::messages::{Messages, values};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use maxim_model::check::Verdict;
use maxim_model::event::{Event, EventKind};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// What was counted since a phase began.
#[derive(Debug, Default)]
struct Counts {
    hosts: usize,
    checks: usize,
    warnings: usize,
    blocked: usize,
    planned: usize,
    changed: usize,
    sent: u64,
    canaries: usize,
    slowest_ms: u64,
}

/// See the module.
pub(super) struct Progress {
    /// Whether a live line may be drawn.
    terminal: bool,
    /// The live line, while there is one.
    bar: Option<ProgressBar>,
    /// What each host (or phase) works on.
    works: BTreeMap<String, String>,
    quiet: bool,
    verbose: u8,
    style: Style,
    counts: Counts,
    last_step: String,
    phases: bool,
    /// The probe, told together with the checks that follow it.
    probed: Option<u64>,
}

impl Progress {
    pub fn new(terminal: bool, quiet: bool, verbose: u8, style: Style) -> Self {
        Self {
            terminal,
            bar: None,
            works: BTreeMap::new(),
            quiet,
            verbose,
            style,
            counts: Counts::default(),
            last_step: String::new(),
            phases: false,
            probed: None,
        }
    }

    /// Phases are shown from now on (long actions); without it only with `-v`.
    pub const fn show_phases(&mut self) {
        self.phases = true;
    }

    /// Runs something while nothing is drawn.
    pub fn suspended<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }

    /// Removes what is drawn.
    pub fn clear(&mut self) {
        self.works.clear();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Progress of local work.
    pub fn step(&mut self, step: &str, detail: &str) {
        if self.terminal {
            if self.last_step != step && !self.last_step.is_empty() {
                let before = std::mem::take(&mut self.last_step);
                self.works.remove(&before);
                self.line(&format!("  {} {before}", self.style.green("✓")));
            }
            self.work(step, detail);
        } else if self.last_step != step || (self.verbose > 0 && !detail.is_empty()) {
            let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            self.line(&format!("  {step}{detail}"));
        }
        step.clone_into(&mut self.last_step);
    }

    /// One event.
    pub fn event(&mut self, event: &Event, messages: &Messages) {
        match &event.kind {
            EventKind::RunStarted { .. } => {}
            EventKind::PhaseStarted { step } => {
                self.checks_finished(messages);
                self.counts = Counts::default();
                self.work(step, "");
            }
            EventKind::PhaseFinished { step, duration_ms } if step == "probe" => {
                self.probed = Some(*duration_ms);
            }
            EventKind::PhaseFinished { step, duration_ms } => {
                self.phase_finished(step, *duration_ms, messages);
            }
            EventKind::Connected { host, detail, agent_bytes_sent } => {
                self.counts.hosts += 1;
                self.counts.sent += agent_bytes_sent;
                if self.verbose > 0 {
                    let sent = if *agent_bytes_sent > 0 {
                        messages.with("step-agent-sent", values!["size" => style::size(*agent_bytes_sent)])
                    } else {
                        String::new()
                    };
                    self.line(&format!("    {host}  {detail}{sent}"));
                }
            }
            EventKind::Checked { host, result } => {
                self.counts.checks += 1;
                match result.verdict {
                    Verdict::Pass | Verdict::Info => {
                        if self.verbose > 1 {
                            let (title, _) = messages.check(&result.id, &result.title, "");
                            self.line(&format!("    {host}  {title}: {}", messages.own(&result.measured)));
                        }
                    }
                    Verdict::Warn => self.counts.warnings += 1,
                    Verdict::Block => self.counts.blocked += 1,
                }
            }
            EventKind::Planned { host, step, change } => {
                if change.is_change() {
                    self.counts.planned += 1;
                }
                if self.verbose > 1 {
                    self.line(&format!("    {host}  {step}  {}", change.summary()));
                }
            }
            EventKind::TaskStarted { host, step, title } => {
                let title = if title.is_empty() { step } else { title };
                self.work(host, title);
            }
            EventKind::Progress { host, step, done, total } => {
                let text = format!("{step}  {} / {}", style::size(*done), style::size(*total));
                self.work(host, &text);
            }
            EventKind::TaskFinished { host, step, changed, detail, duration_ms } => {
                self.works.remove(host);
                self.counts.changed += usize::from(*changed);
                let show =
                    self.verbose > 1 || (*changed && (self.verbose > 0 || (self.phases && !self.terminal)));
                if show {
                    let time = style::duration(*duration_ms);
                    let detail = if detail.is_empty() { String::new() } else { format!("  {detail}") };
                    self.line(&format!("    {host}  {step}{detail}  {}", self.style.dim(&time)));
                }
            }
            EventKind::TaskFailed { host, step, cause, hint, .. } => {
                let (cause, hint) = (messages.own(cause), messages.own(hint));
                // The error at the end says it again when the whole run fails by it; here it is told at once.
                if !self.terminal || self.verbose > 0 {
                    self.line(&format!("    {} {host}  {step}: {cause}", self.style.red("✗")));
                    if !hint.is_empty() {
                        self.line(&format!("      {}: {hint}", messages.text("word-hint")));
                    }
                } else {
                    self.work(host, &format!("{step}: {cause}"));
                }
            }
            EventKind::Note { host, step, message } => {
                // Which host has been switched is what a person waits for.
                if self.verbose > 0 || (self.phases && step == "switch") {
                    self.line(&format!("    {}{}", prefix(host), messages.own(message)));
                }
            }
            EventKind::Warning { host, message, hint, .. } => {
                self.counts.warnings += 1;
                let word = self.style.yellow(&messages.text("word-warning"));
                self.force_line(&format!("  {word}: {}{}", prefix(host), messages.own(message)));
                if !hint.is_empty() {
                    self.force_line(&format!("    {}: {}", messages.text("word-hint"), messages.own(hint)));
                }
            }
            EventKind::Canary { from_host, to_host, round_trip_ms } => {
                self.counts.canaries += 1;
                self.counts.slowest_ms = self.counts.slowest_ms.max(*round_trip_ms);
                if self.verbose > 0 {
                    self.line(&format!("    {from_host} → {to_host}  {}", style::duration(*round_trip_ms)));
                }
            }
        }
    }

    /// The line for probe and checks: both are over when the next phase begins, or the run ends.
    pub fn checks_finished(&mut self, messages: &Messages) {
        if let Some(duration_ms) = self.probed.take() {
            self.phase_finished("check", duration_ms, messages);
        }
    }

    fn phase_finished(&mut self, step: &str, duration_ms: u64, messages: &Messages) {
        self.clear();
        let counts = std::mem::take(&mut self.counts);
        let (name, result) = match step {
            "connect" => {
                (messages.text("phase-name-connect"), messages.with("phase-connect", values!["hosts" => counts.hosts]))
            }
            "check" if counts.checks == 0 => (messages.text("phase-name-probe"), String::new()),
            "check" if counts.warnings + counts.blocked == 0 => {
                (messages.text("phase-name-check"), messages.with("phase-check-good", values!["checks" => counts.checks]))
            }
            "check" => (
                messages.text("phase-name-check"),
                messages.with(
                    "phase-check",
                    values!["checks" => counts.checks, "warnings" => counts.warnings, "blocked" => counts.blocked],
                ),
            ),
            "plan" => (messages.text("phase-name-plan"), messages.with("phase-plan", values!["changes" => counts.planned])),
            "apply" => {
                (messages.text("phase-name-apply"), messages.with("phase-apply", values!["changes" => counts.changed]))
            }
            "verify" if counts.canaries > 0 => (
                messages.text("phase-name-verify"),
                messages.with(
                    "phase-verify",
                    values!["messages" => counts.canaries, "time" => style::duration(counts.slowest_ms)],
                ),
            ),
            // Short ones in between (the lock, a measurement) matter only to those who want to know.
            other if self.verbose > 0 => (other.to_owned(), String::new()),
            _ => return,
        };
        if !self.phases && self.verbose == 0 {
            return;
        }
        let failed = counts.blocked > 0;
        let sign = if failed { self.style.red("✗") } else { self.style.green("✓") };
        let pad = |text: &str, to: usize| " ".repeat(to.saturating_sub(style::width(text)));
        let time = style::duration(duration_ms);
        let line = format!(
            "{sign} {name}{} {result}{}  {}",
            pad(&name, 9),
            pad(&result, 44),
            self.style.dim(&format!("{time:>8}"))
        );
        self.line(line.trim_end());
    }

    /// A host (or phase) works on something: the live line says so.
    fn work(&mut self, name: &str, text: &str) {
        if !self.terminal {
            return;
        }
        self.works.insert(name.to_owned(), text.to_owned());
        let all: Vec<String> =
            self.works.iter().map(|(name, text)| format!("{name}  {text}").trim_end().to_owned()).collect();
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(12));
            if let Ok(style) = ProgressStyle::with_template("  {spinner:.cyan} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        bar.set_message(all.join(" · "));
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            self.force_line(text);
        }
    }

    fn force_line(&self, text: &str) {
        self.suspended(|| {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        });
    }
}

fn prefix(host: &str) -> String {
    if host.is_empty() { String::new() } else { format!("{host}  ") }
}
