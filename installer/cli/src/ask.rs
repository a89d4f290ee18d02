//! Questions of the engine to the person at the terminal. Each has a default and a flag that answers it.

use crate::commands::upgrade::sentences;
use crate::messages::values;
use crate::passwords;
use crate::printer::{Printer, plan_view};
use maxim_engine::Ask;
use maxim_engine::upgrade::UpgradePlan;
use maxim_model::Secret;
use maxim_model::plan::Plan;
use std::io::{BufRead, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Asks by the printer.
pub(crate) struct Person {
    printer: Arc<Printer>,
    yes: bool,
    nobody: AtomicBool,
    one_at_a_time: Mutex<()>,
}

impl Person {
    /// `yes`: `--yes` was given.
    pub fn new(printer: Arc<Printer>, yes: bool) -> Self {
        Self { printer, yes, nobody: AtomicBool::new(false), one_at_a_time: Mutex::new(()) }
    }

    /// Whether a question could not be asked, because there is no terminal.
    pub fn nobody_was_there(&self) -> bool {
        self.nobody.load(Ordering::SeqCst)
    }

    /// A question answered by `--yes`, else by a person; `no` is the default.
    pub fn confirm(&self, question: &str) -> bool {
        self.yes || self.yes_or_no(question)
    }

    fn yes_or_no(&self, question: &str) -> bool {
        let _one = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::io::stdin().is_terminal() {
            self.nobody.store(true, Ordering::SeqCst);
            return false;
        }
        self.printer.question(question, || {
            let mut answer = String::new();
            let read = std::io::stdin().lock().read_line(&mut answer);
            let answer = answer.trim().to_lowercase();
            read.is_ok() && matches!(answer.as_str(), "y" | "yes" | "是" | "好")
        })
    }
}

impl Ask for Person {
    fn approve(&self, plan: &Plan) -> bool {
        if self.yes {
            return true;
        }
        self.printer.human(&plan_view::render(plan, &self.printer, plan_view::Detail::Summary));
        let changes = plan.changes();
        self.yes_or_no(&self.printer.messages().with("ask-apply", values!["changes" => changes]))
    }

    fn sudo_password(&self, host: &str) -> Option<Secret> {
        let _one = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = self.printer.messages();
        let question = messages.with("ask-sudo", values!["host" => host]);
        self.printer
            .suspended(|| passwords::ask(&question, messages).ok())
            .filter(|password| !password.is_empty())
    }

    fn trust_bundle_key(&self, fingerprint: &str) -> bool {
        self.yes_or_no(&self.printer.messages().with("ask-trust", values!["fingerprint" => fingerprint]))
    }

    fn approve_upgrade(&self, plan: &UpgradePlan) -> bool {
        let messages = self.printer.messages();
        self.printer.aside(&sentences(plan, messages));
        if self.yes {
            return true;
        }
        self.printer.human(&plan_view::render(&plan.plan, &self.printer, plan_view::Detail::Summary));
        self.yes_or_no(&messages.with("ask-upgrade", values!["to" => plan.to.as_str()]))
    }

    fn approve_restore(&self, preview: &maxim_engine::backup::RestorePreview) -> bool {
        let messages = self.printer.messages();
        let mut text = String::new();
        for one in &preview.overwrites {
            text.push_str(&format!(
                "  {}\n",
                messages.with(
                    "restore-overwrites",
                    values![
                        "part" => one.part.as_str(),
                        "host" => one.host.as_str(),
                        "size" => crate::printer::style::size(one.bytes)
                    ]
                )
            ));
        }
        self.printer.aside(&text);
        let question = messages
            .with("ask-restore", values!["set" => preview.set.as_str(), "point" => preview.point.as_str()]);
        self.confirm(&question)
    }

    fn approve_uninstall(&self, plan: &Plan, purge: bool) -> bool {
        if self.yes {
            return true;
        }
        self.printer.human(&plan_view::render(plan, &self.printer, plan_view::Detail::Summary));
        let messages = self.printer.messages();
        let cluster = plan.cluster.as_str();
        let question = if purge {
            messages.with("ask-purge", values!["cluster" => cluster])
        } else {
            messages.with("ask-uninstall", values!["cluster" => cluster])
        };
        self.yes_or_no(&question)
    }
}
