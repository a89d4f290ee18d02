//! Flags and commands, as types. Their help texts stand in `messages/*/help.ftl`, in both languages.

mod help;

pub(crate) use help::localised;

use crate::messages::Messages;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use maxim_model::names::{Component, Profile, Role};
use std::ffi::OsString;
use std::path::PathBuf;

/// Everything that was typed.
#[derive(Debug, Parser)]
#[command(
    name = "maxim.ctl",
    bin_name = "maxim.ctl",
    version,
    disable_help_subcommand = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    #[arg(short = 'f', long = "file", value_name = "FILE", global = true)]
    pub file: Option<PathBuf>,
    #[arg(long, value_name = "NAME", global = true, conflicts_with = "file")]
    pub cluster: Option<String>,
    #[arg(long, value_name = "FILE", global = true)]
    pub bundle: Option<PathBuf>,
    #[arg(long, value_name = "FILE", global = true)]
    pub trust_key: Option<PathBuf>,
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    pub set: Vec<String>,
    #[arg(short = 'y', long, global = true)]
    pub yes: bool,
    #[arg(long, global = true)]
    pub dry_run: bool,
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, global = true)]
    pub output: OutputFormat,
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    #[arg(long, value_name = "N", global = true, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub concurrency: u16,
    #[arg(long, value_name = "CHECK", global = true)]
    pub force: Vec<String>,
    #[arg(long, global = true)]
    pub accept_state: bool,
    #[arg(long, global = true)]
    pub strict: bool,
    #[arg(long, global = true)]
    pub ask_sudo_password: bool,
    #[arg(long, global = true)]
    pub timings: bool,
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// What stands on standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    #[default]
    Text,
    Json,
}

/// `--profile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileName {
    Embedded,
    Standard,
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Embedded => Self::Embedded,
            ProfileName::Standard => Self::Standard,
        }
    }
}

/// A component by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ComponentName {
    Im,
    Console,
    Mariadb,
    Postgresql,
    Redis,
}

impl From<ComponentName> for Component {
    fn from(name: ComponentName) -> Self {
        match name {
            ComponentName::Im => Role::Im,
            ComponentName::Console => Role::Console,
            ComponentName::Mariadb => Role::Mariadb,
            ComponentName::Postgresql => Role::Postgresql,
            ComponentName::Redis => Role::Redis,
        }
    }
}

/// Which hosts, where no file says it.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Where {
    #[arg(long, value_name = "ADDRESS", num_args = 1.., conflicts_with_all = ["file", "cluster", "profile"])]
    pub nodelist: Vec<String>,
    #[arg(long, value_name = "PROFILE", value_enum, conflicts_with_all = ["file", "cluster"])]
    pub profile: Option<ProfileName>,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    Install(Where),
    Check(Where),
    Plan(PlanArguments),
    Apply(ApplyArguments),
    Status,
    Start(ServiceArguments),
    Stop(ServiceArguments),
    Restart(ServiceArguments),
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),
    #[command(subcommand, arg_required_else_help = true)]
    User(UserCommand),
    Logs(LogsArguments),
    Doctor,
    SupportBundle(SupportArguments),
    Unlock(UnlockArguments),
    #[command(subcommand, arg_required_else_help = true)]
    Console(ConsoleCommand),
    #[command(subcommand, arg_required_else_help = true)]
    Ca(CaCommand),
    #[command(subcommand, arg_required_else_help = true)]
    Backup(BackupCommand),
    #[command(subcommand, arg_required_else_help = true)]
    Bundle(BundleCommand),
    Upgrade(UpgradeArguments),
    Rollback,
    #[command(subcommand, arg_required_else_help = true)]
    Host(HostCommand),
    Uninstall(UninstallArguments),
    Completion(CompletionArguments),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub hosts: Where,
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ApplyArguments {
    #[arg(value_name = "FILE")]
    pub plan: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ServiceArguments {
    #[arg(value_name = "COMPONENT", value_enum)]
    pub component: Option<ComponentName>,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ConfigCommand {
    Get {
        #[arg(value_name = "KEY")]
        key: Option<String>,
    },
    Set {
        #[arg(value_name = "KEY")]
        key: String,
        #[arg(value_name = "VALUE")]
        value: String,
    },
    Diff,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum UserCommand {
    Add {
        #[arg(value_name = "ADDRESS")]
        address: String,
        #[arg(long, value_name = "NAME", default_value = "")]
        name: String,
        #[arg(long)]
        password_stdin: bool,
    },
    List,
    Passwd {
        #[arg(value_name = "ADDRESS")]
        address: String,
        #[arg(long)]
        password_stdin: bool,
    },
    Disable {
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
    Enable {
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
    Remove {
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
    Import {
        #[arg(value_name = "FILE.csv")]
        list: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct LogsArguments {
    #[arg(value_name = "COMPONENT", value_enum)]
    pub component: Option<ComponentName>,
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub lines: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SupportArguments {
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub lines: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct UnlockArguments {
    #[arg(long, conflicts_with = "owner")]
    pub expired: bool,
    #[arg(long, value_name = "OWNER")]
    pub owner: Option<String>,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ConsoleCommand {
    Passwd {
        #[arg(long)]
        password_stdin: bool,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CaCommand {
    Export {
        #[arg(short = 'o', long = "out", value_name = "FILE")]
        out: Option<PathBuf>,
        #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
        format: CaFormat,
    },
}

/// Form of the authority's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaFormat {
    #[default]
    Pem,
    Der,
    Mobileconfig,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum BackupCommand {
    Create {
        #[arg(long)]
        scheduled: bool,
    },
    List,
    Verify {
        #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
        share: u32,
        #[arg(value_name = "SET")]
        wanted: Option<String>,
        #[arg(long)]
        deep: bool,
    },
    Restore(RestoreArguments),
    Drill {
        #[arg(value_name = "SET")]
        wanted: Option<String>,
    },
    Schedule {
        #[arg(long, conflicts_with = "once")]
        run: bool,
        #[arg(long)]
        once: bool,
    },
    Prune,
    #[command(subcommand, arg_required_else_help = true)]
    Key(KeyCommand),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RestoreArguments {
    #[arg(value_name = "SET")]
    pub wanted: Option<String>,
    #[arg(long, value_name = "PART", value_enum)]
    pub only: Option<RestorePart>,
    #[arg(long)]
    pub overwrite: bool,
    #[arg(long, requires = "overwrite")]
    pub without_safety_set: bool,
    #[arg(long, value_name = "FILE")]
    pub kit: Option<PathBuf>,
    #[arg(long, value_name = "FILE", requires = "kit")]
    pub password_file: Option<PathBuf>,
    #[arg(long, requires = "kit", conflicts_with = "password_file")]
    pub password_stdin: bool,
}

/// What of a set is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RestorePart {
    Database,
    Files,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum KeyCommand {
    Export,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum BundleCommand {
    Build {
        #[arg(short = 'o', long = "out", value_name = "FILE")]
        out: Option<PathBuf>,
        #[arg(long)]
        relock: bool,
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    Verify {
        #[arg(value_name = "BUNDLE")]
        path: PathBuf,
    },
    Inspect {
        #[arg(value_name = "BUNDLE")]
        path: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct UpgradeArguments {
    #[arg(long)]
    pub finalize: bool,
    #[arg(long)]
    pub no_snapshot: bool,
}

/// Changes of the hosts of a cluster.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum HostCommand {
    Replace(ReplaceArguments),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ReplaceArguments {
    #[arg(value_name = "HOST")]
    pub host: String,
    #[arg(value_name = "ADDRESS")]
    pub address: String,
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    #[arg(long, value_name = "SET", conflicts_with = "without_data")]
    pub from: Option<String>,
    #[arg(long)]
    pub without_data: bool,
    #[arg(long)]
    pub alive: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct UninstallArguments {
    #[arg(long)]
    pub purge: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CompletionArguments {
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// Shells with completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Reads the arguments.
pub(crate) fn parse(arguments: &[OsString], messages: &Messages) -> Result<Cli, clap::Error> {
    let matches = localised(Cli::command(), messages).try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}
