//! Test hosts for people: bring some up, get a ready topology, work with them, take them down.
//!
//! `up` starts a holder in the background, which owns the hosts; they live until `down` or until it dies.
//! The scenarios of the test suite do not use this program, only the library below it.

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use maxim_tests::hosts::{HostSpec, Release, Testbed, cache, reap, runs, wait_for};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Test hosts: real Debian machines on this one, without a way out.
#[derive(Parser)]
#[command(
    name = "tests/hosts",
    after_help = "Example: ./tests/hosts up 3, then ./maxim.ctl install -f FOLDER/cluster.yaml"
)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Boot hosts and print a topology for them.
    Up {
        /// How many, 1 to 200.
        count: usize,
        /// Debian: bullseye, bookworm or trixie.
        #[arg(long, default_value = "bookworm")]
        release: Release,
        /// What each host is to do, as `im+console mariadb redis`; by default a fitting set.
        #[arg(long, num_args = 1..)]
        roles: Vec<String>,
    },
    /// Say which hosts are up.
    List,
    /// Take hosts down: a run (mx0), or the only one that `up` brought up.
    Down {
        /// The run, as `list` names it.
        run: Option<String>,
        /// Every run that `up` brought up.
        #[arg(long)]
        all: bool,
    },
    /// A shell, or one command, on a host.
    Ssh {
        /// The host, as `app1`, or `mx0/app1` when several runs have one.
        host: String,
        /// A command to run there instead of a shell.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    #[command(hide = true)]
    Hold { count: usize, release: Release, answer: PathBuf, roles: Vec<String> },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Task::Up { count, release, roles } => up(count, release, &roles),
        Task::Hold { count, release, answer, roles } => hold(count, release, &answer, &roles),
        Task::List => list(),
        Task::Down { run, all } => down(run.as_deref(), all),
        Task::Ssh { host, command } => ssh(&host, &command),
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a program for people")]
fn say(text: &str) {
    println!("{text}");
}

/// Names and roles: one host does everything, three share as an ordinary cluster does, more add IM nodes.
fn layout(count: usize, roles: &[String]) -> Result<Vec<(String, Vec<String>)>> {
    ensure!((1..=200).contains(&count), "1 to 200 hosts, not {count}");
    let mut sets: Vec<Vec<String>> =
        roles.iter().map(|set| set.split('+').map(str::to_owned).collect()).collect();
    if sets.is_empty() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        sets = match count {
            1 => vec![set(&["im", "console", "mariadb", "redis"])],
            2 => vec![set(&["im", "console"]), set(&["mariadb", "redis"])],
            _ => {
                let mut sets = vec![set(&["im", "console"])];
                sets.extend((3..count).map(|_| set(&["im"])));
                sets.extend([set(&["mariadb"]), set(&["redis"])]);
                sets
            }
        };
    }
    ensure!(sets.len() == count, "{count} hosts need {count} sets of roles, not {}", sets.len());
    let mut numbers = std::collections::BTreeMap::<&str, usize>::new();
    let mut named = Vec::new();
    for set in &sets {
        let kind = match set.first().map(String::as_str) {
            Some("mariadb" | "postgresql") => "db",
            Some("redis") => "cache",
            _ => "app",
        };
        let number = numbers.entry(kind).or_default();
        *number += 1;
        named.push((format!("{kind}{number}"), set.clone()));
    }
    Ok(named)
}

fn topology(testbed: &Testbed, layout: &[(String, Vec<String>)]) -> String {
    let engine = if layout.iter().any(|(_, roles)| roles.iter().any(|role| role == "postgresql")) {
        "postgresql"
    } else {
        "mariadb"
    };
    let mut text = format!(
        "api_version: maxim/v1\nname: {}\ndomain: im.test.example\ncapacity: {{users: 200, messages_per_second: 100}}\n\
         ssh: {{user: root, port: 22, key: {}, known_hosts: accept-new}}\nhosts:\n",
        testbed.folder().file_name().unwrap_or_default().to_string_lossy(),
        testbed.key().display()
    );
    for (host, (_, roles)) in testbed.hosts().iter().zip(layout) {
        text.push_str(&format!(
            "  - {{name: {}, address: {}, roles: [{}]}}\n",
            host.name(),
            host.address(),
            roles.join(", ")
        ));
    }
    text.push_str(&format!("database: {{engine: {engine}}}\n"));
    text
}

fn up(count: usize, release: Release, roles: &[String]) -> Result<()> {
    layout(count, roles)?;
    let scratch = cache().join("hosts");
    fs::create_dir_all(&scratch)?;
    let answer = scratch.join(format!("up-{}", std::process::id()));
    let failed = answer.with_extension("log");
    // A base system that is not in the cache yet is made here, where a person sees that it takes a minute.
    maxim_tests::hosts::base::base(release)?;
    let mut holder = Command::new("setsid")
        .arg(std::env::current_exe()?)
        .args(["hold", &count.to_string(), release.name()])
        .arg(&answer)
        .args(roles)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&failed)?)
        .spawn()?;
    let folder =
        wait_for("the hosts to boot", Duration::from_mins(3), || match fs::read_to_string(&answer) {
            Ok(folder) => Some(Ok(PathBuf::from(folder))),
            Err(_) if matches!(holder.try_wait(), Ok(None)) => None,
            Err(_) => Some(Err(fs::read_to_string(&failed).unwrap_or_default())),
        })?;
    fs::remove_file(&answer).ok();
    fs::remove_file(&failed).ok();
    let folder = match folder {
        Ok(folder) => folder,
        Err(why) => bail!("the hosts did not come up: {why}"),
    };
    let file = folder.join("cluster.yaml");
    say(&fs::read_to_string(&file)?);
    say(&format!("# {}", file.display()));
    say(&format!(
        "# take them down with ./tests/hosts down {}",
        folder.file_name().unwrap_or_default().to_string_lossy()
    ));
    Ok(())
}

/// What runs in the background: bring up, say where, and stay until a signal ends it.
fn hold(count: usize, release: Release, answer: &Path, roles: &[String]) -> Result<()> {
    let layout = layout(count, roles)?;
    let specs: Vec<_> = layout.iter().map(|(name, _)| HostSpec::new(name).release(release)).collect();
    let testbed = Testbed::up(&specs)?;
    fs::write(testbed.folder().join("cluster.yaml"), topology(&testbed, &layout))?;
    fs::write(testbed.folder().join("held"), "")?;
    let draft = answer.with_extension("draft");
    fs::write(&draft, testbed.folder().display().to_string())?;
    fs::rename(&draft, answer)?;
    loop {
        // Any signal ends this process, and the keeper takes the hosts down.
        std::thread::park();
    }
}

fn list() -> Result<()> {
    reap()?;
    let mut lines = Vec::new();
    for (folder, alive) in runs()? {
        let run = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = match (alive, folder.join("held").exists()) {
            (false, _) => "being cleaned up",
            (true, true) => "held",
            (true, false) => "a test run",
        };
        let config = fs::read_to_string(folder.join("ssh_config")).unwrap_or_default();
        let mut name = String::new();
        for line in config.lines() {
            if let Some(found) = line.strip_prefix("Host ") {
                found.clone_into(&mut name);
            } else if let Some(address) = line.trim().strip_prefix("HostName ") {
                lines.push(format!("{run}/{name}  {address}  {kind}"));
            }
        }
    }
    say(&if lines.is_empty() { "No test hosts are up.".to_owned() } else { lines.join("\n") });
    Ok(())
}

fn down(run: Option<&str>, all: bool) -> Result<()> {
    reap()?;
    let wanted: Vec<_> = runs()?
        .into_iter()
        .map(|(folder, _)| folder)
        .filter(|folder| match run {
            Some(run) => folder.file_name().is_some_and(|name| name == run),
            None => folder.join("held").exists(),
        })
        .collect();
    if let (Some(run), true) = (run, wanted.is_empty()) {
        bail!("there is no run {run}; ./tests/hosts list shows them");
    }
    if run.is_none() && !all && wanted.len() > 1 {
        bail!("{} runs are up; name one (./tests/hosts list shows them) or say --all", wanted.len());
    }
    for folder in &wanted {
        let owner = fs::read_to_string(folder.join("owner")).unwrap_or_default();
        let pid = owner.split_whitespace().next().and_then(|pid| pid.parse().ok()).context("an owner")?;
        if maxim_tests::hosts::is_alive(&folder.join("owner")) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)?;
        }
    }
    for folder in &wanted {
        wait_for(&format!("{} to be cleaned up", folder.display()), Duration::from_mins(1), || {
            (!folder.exists()).then_some(())
        })?;
    }
    say(&format!(
        "{} taken down.",
        if wanted.len() == 1 { "1 run".into() } else { format!("{} runs", wanted.len()) }
    ));
    Ok(())
}

fn ssh(host: &str, command: &[String]) -> Result<()> {
    let (run, name) = host.split_once('/').map_or((None, host), |(run, name)| (Some(run), name));
    let found: Vec<_> = runs()?
        .into_iter()
        .filter(|(folder, alive)| {
            *alive
                && run.is_none_or(|run| folder.file_name().is_some_and(|own| own == run))
                && folder.join("hosts").join(name).exists()
        })
        .collect();
    let [(folder, _)] = found.as_slice() else {
        bail!("{} hosts are called {host}; ./tests/hosts list shows them", found.len());
    };
    let error = Command::new("ssh").arg("-F").arg(folder.join("ssh_config")).arg(name).args(command).exec();
    Err(error).context("start ssh")
}
