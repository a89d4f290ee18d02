//! The help of every command and flag, out of the messages of a language.

use crate::messages::Messages;

/// Puts the help texts of a language into the command line.
pub(crate) fn localised(command: clap::Command, messages: &Messages) -> clap::Command {
    let template = format!(
        "{{about-with-newline}}\n{}: {{usage}}\n\n{{all-args}}{{after-help}}\n",
        messages.text("help-usage")
    );
    let command = command
        .about(messages.text("about"))
        .after_help(messages.text("example-top"))
        .subcommand_help_heading(messages.text("help-commands"))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(flag_help(messages).global(true))
        .arg(
            clap::Arg::new("version")
                .short('V')
                .long("version")
                .action(clap::ArgAction::Version)
                .help(messages.text("flag-version"))
                .help_heading(messages.text("help-global")),
        );
    walk(command, "", messages, &template)
}

fn flag_help(messages: &Messages) -> clap::Arg {
    clap::Arg::new("help")
        .short('h')
        .long("help")
        .action(clap::ArgAction::HelpShort)
        .help(messages.text("flag-help"))
        .help_heading(messages.text("help-global"))
}

/// Flags that every command has: under a heading of their own.
const GLOBAL_FLAGS: [&str; 18] = [
    "file",
    "cluster",
    "bundle",
    "trust_key",
    "set",
    "yes",
    "dry_run",
    "output",
    "root",
    "concurrency",
    "force",
    "accept_state",
    "strict",
    "ask_sudo_password",
    "timings",
    "quiet",
    "verbose",
    "no_color",
];

fn walk(command: clap::Command, prefix: &str, messages: &Messages, template: &str) -> clap::Command {
    let own = prefix.is_empty();
    let mut command = command.help_template(template.to_owned()).mut_args(|argument| {
        let id = argument.get_id().as_str().to_owned();
        if matches!(id.as_str(), "help" | "version") {
            return argument;
        }
        let global = GLOBAL_FLAGS.contains(&id.as_str());
        let key = if global {
            format!("flag-{}", id.replace('_', "-"))
        } else {
            format!("argument-{prefix}-{}", id.replace('_', "-"))
        };
        let heading = if global {
            "help-global"
        } else if argument.is_positional() {
            "help-arguments"
        } else {
            "help-options"
        };
        argument.help(messages.text(&key)).help_heading(messages.text(heading)).hide_possible_values(false)
    });
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names.into_iter().filter(|name| name != "help") {
        let key = if own { name.clone() } else { format!("{prefix}-{name}") };
        command = command.mut_subcommand(&name, |sub| {
            let sub = sub
                .about(messages.text(&format!("command-{key}")))
                .after_help(messages.text(&format!("example-{key}")))
                .disable_help_flag(true)
                .subcommand_help_heading(messages.text("help-commands"));
            walk(sub, &key, messages, template)
        });
    }
    command
}
