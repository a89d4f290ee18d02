//! Questions of the engine to the person at the terminal. Each has a default and a flag that answers it. Where something
//! is destroyed for good, the answer is the name of what goes: a `y` is typed without reading.

use crate::commands::upgrade::sentences;
use crate::messages::{Messages, values};
use crate::passwords;
use crate::printer::{Printer, plan_view};
use maxim_engine::Ask;
use maxim_engine::replace::ReplacePreview;
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
        self.asked(|| {
            self.printer.question(question, || {
                line().is_some_and(|answer| {
                    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes" | "是" | "好")
                })
            })
        })
    }

    /// A question about something that is destroyed, answered by `--yes`, else by its name.
    fn confirm_by_name(&self, question: &str, name: &str) -> bool {
        self.yes
            || self.asked(|| {
                self.printer
                    .question_of_name(question, name, || line().is_some_and(|answer| is_name(&answer, name)))
            })
    }

    /// One question at a time, and none where nobody is.
    fn asked(&self, ask: impl FnOnce() -> bool) -> bool {
        let _one = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::io::stdin().is_terminal() {
            self.nobody.store(true, Ordering::SeqCst);
            return false;
        }
        ask()
    }
}

fn line() -> Option<String> {
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).ok().map(|_| answer)
}

/// Whether a line is the name, to the letter. Nothing typed is none.
fn is_name(line: &str, name: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && line == name
}

/// What a replacement will do, in sentences.
fn replacement(preview: &ReplacePreview, messages: &Messages) -> String {
    let roles: Vec<&str> = preview.roles.iter().map(|role| role.name()).collect();
    let mut lines = vec![messages.with(
        "replace-way",
        values![
            "old" => preview.old.as_str(),
            "address" => preview.old_address.as_str(),
            "new" => preview.new.as_str(),
            "to" => preview.new_address.as_str(),
            "roles" => roles.join(", ")
        ],
    )];
    if !preview.set.is_empty() {
        lines.push(messages.with(
            "replace-set",
            values![
                "set" => preview.set.as_str(),
                "point" => preview.point.as_str(),
                "parts" => preview.restored.join(", ")
            ],
        ));
    }
    if !preview.lost.is_empty() {
        lines.push(messages.with("replace-lost", values!["parts" => preview.lost.join(", ")]));
    }
    if !preview.withdrawn.is_empty() {
        lines.push(messages.with("replace-withdraws", values!["what" => messages.list(&preview.withdrawn)]));
    }
    lines.push(messages.with("replace-never-again", values!["old" => preview.old.as_str()]));
    format!("\n  {}\n\n", lines.join("\n  "))
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
        // With nothing there to be replaced, nothing is lost.
        if preview.overwrites.is_empty() {
            return self.confirm(&question);
        }
        self.confirm_by_name(&question, &preview.cluster)
    }

    fn approve_replace(&self, preview: &ReplacePreview) -> bool {
        let messages = self.printer.messages();
        self.printer.aside(&replacement(preview, messages));
        if self.yes {
            return true;
        }
        self.printer.human(&plan_view::render(&preview.plan, &self.printer, plan_view::Detail::Summary));
        let question = messages.with("ask-replace", values!["old" => preview.old.as_str()]);
        self.confirm_by_name(&question, &preview.old)
    }

    fn approve_uninstall(&self, plan: &Plan, purge: bool) -> bool {
        if self.yes {
            return true;
        }
        self.printer.human(&plan_view::render(plan, &self.printer, plan_view::Detail::Summary));
        let messages = self.printer.messages();
        let cluster = plan.cluster.as_str();
        if purge {
            let question = messages.with("ask-purge", values!["cluster" => cluster]);
            return self.confirm_by_name(&question, cluster);
        }
        self.yes_or_no(&messages.with("ask-uninstall", values!["cluster" => cluster]))
    }
}

#[cfg(test)]
mod tests {
    use super::{is_name, replacement};
    use crate::messages::Messages;
    use maxim_engine::replace::ReplacePreview;
    use maxim_model::names::{Profile, Role};
    use maxim_model::plan::Plan;

    #[test]
    fn a_name_is_typed_to_the_letter() {
        assert!(is_name("db1\n", "db1"));
        for other in ["", "\n", "y\n", "DB1\n", "db11\n"] {
            assert!(!is_name(other, "db1"), "{other:?}");
        }
        assert!(!is_name("\n", ""));
    }

    #[test]
    fn a_replacement_says_what_goes_and_what_is_lost_in_both_languages() {
        let preview = ReplacePreview {
            old: "db1".into(),
            old_address: "10.77.0.12".into(),
            roles: vec![Role::Mariadb],
            new: "db9".into(),
            new_address: "10.77.0.22".into(),
            set: "20261121-1".into(),
            point: "2026-11-21T03:00:00Z".into(),
            restored: vec!["database".into()],
            lost: vec!["files".into()],
            withdrawn: vec!["password of the database".into()],
            plan: Plan {
                format: 1,
                cluster: "acme".into(),
                profile: Profile::Standard,
                version: String::new(),
                created_at: String::new(),
                manifest_sha256: String::new(),
                topology: String::new(),
                hosts: Vec::new(),
                fingerprint: String::new(),
            },
        };
        let both = [(Messages::english(), "password of the database"), (Messages::chinese(), "数据库的密码")];
        for (messages, withdrawn) in both {
            let text = replacement(&preview, &messages);
            for part in [
                "db1",
                "10.77.0.12",
                "mariadb",
                "db9",
                "10.77.0.22",
                "20261121-1",
                "2026-11-21T03:00:00Z",
                "database",
                "files",
                withdrawn,
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(!text.contains("replace-"), "a sentence is missing: {text}");
        }
        let plain = ReplacePreview { set: String::new(), lost: Vec::new(), ..preview };
        let text = replacement(&plain, &Messages::english());
        assert!(!text.contains("LOST"), "a host without data loses none: {text}");
    }
}
