//! `console passwd`: a new password for the console's first administrator, by the console's own program on its host. It
//! ends all sessions and lifts all locks, and the service runs on.

use crate::actions::status::require_installed;
use crate::context::Context;
use crate::error::EngineError;
use crate::files;
use crate::phases::connect;
use crate::render::context::{CONSOLE_USER, SERVICE_USER};
use crate::run::Run;
use crate::secrets::random_text;
use crate::state::{self, Installed};
use maxim_model::Secret;
use maxim_model::names::{Profile, Role, Stage};
use maxim_model::task::{CommandTask, Task, TaskKind};
use maxim_model::topology::Topology;
use maxim_model::wire::{Reply, Request};
use std::path::PathBuf;
use std::time::Duration;

const STEP: &str = "console passwd";
/// Hashing takes half a second on a slow machine, a busy database a few more.
const DEADLINE_SECONDS: u64 = 30;
/// Characters of a password that is made here.
const LENGTH: usize = 20;
/// Where such a one is kept, in the cluster's state.
const FILE: &str = "console-password";

/// Which password.
#[derive(Debug)]
pub enum ConsolePassword {
    /// This one.
    Given(Secret),
    /// One is made, and kept in a file of the cluster's state (0600).
    Made,
}

/// The file with the password, when one was made.
pub fn passwd(context: &Context, password: ConsolePassword) -> Result<Option<PathBuf>, EngineError> {
    let installed = require_installed(context, STEP)?;
    if context.topology.with_role(Role::Console).next().is_none() {
        return Err(EngineError::usage(STEP, "no host of this cluster has the console")
            .hint("give the role `console` to one host, then install"));
    }
    let run = Run::begin(context, STEP, true)?;
    let _control = context.state.lock(&state::owner(STEP))?;
    let mut sessions = connect::connect(&run)?;
    let done = (|| {
        // Of all hosts only the console's matters; it is the one that keeps the state.
        sessions.retain(|session| session.host.roles.contains(&Role::Console));
        if let Some(error) = connect::errors(&mut sessions) {
            return Err(error);
        }
        connect::lock_hosts(&run, &mut sessions, STEP)?;
        let (password, path) = match password {
            ConsolePassword::Given(password) => (password, None),
            ConsolePassword::Made => {
                let made = random_text(LENGTH);
                let path = context.state.file(FILE);
                // Kept before it counts: a run that is killed between the two must not lose it.
                files::write_whole(&path, format!("{made}\n").as_bytes(), 0o600)?;
                (Secret::new(made), Some(path))
            }
        };
        for session in &mut sessions {
            let Some(agent) = session.writer.as_mut() else { continue };
            let tasks = vec![task(&context.topology, &installed, password.clone())?];
            let wait = Duration::from_secs(DEADLINE_SECONDS + 10);
            let mut changed = false;
            agent.request(STEP, &Request::Apply { tasks }, wait, |reply| {
                changed |= matches!(reply, Reply::TaskDone { changed: true, .. });
            })?;
            if !changed {
                return Err(EngineError::failed(STEP, "the console's program was not run")
                    .on(session.host.name.as_str()));
            }
        }
        Ok(path)
    })();
    connect::release(&mut sessions);
    done
}

/// The console's program with the password on its standard input, as the console's own user.
fn task(topology: &Topology, installed: &Installed, password: Secret) -> Result<Task, EngineError> {
    let artefact = installed.artefacts.get(Role::Console.name()).ok_or_else(|| {
        EngineError::failed(STEP, "it is not known which console is installed")
            .hint("run `maxim.ctl install` once, then this again")
    })?;
    let paths = &topology.paths;
    let embedded = topology.profile == Profile::Embedded;
    let configuration = if embedded {
        format!("{}/console.yaml", paths.configuration)
    } else {
        format!("{}/console/console.yaml", paths.configuration)
    };
    let mut argv = Vec::new();
    if !embedded {
        // Its own user, who gets below the folders of ours by the group of the services, as its unit has it.
        let identity = ["runuser", "-u", CONSOLE_USER, "-g", CONSOLE_USER, "-G", SERVICE_USER, "--"];
        argv.extend(identity.map(str::to_owned));
    }
    argv.extend([
        format!("{}/bin/{artefact}/maxim-console", paths.software),
        "--config".into(),
        configuration,
        "--reset-password".into(),
    ]);
    Ok(Task {
        id: "console/password".into(),
        component: "console".into(),
        stage: Stage::Console,
        restarts: Vec::new(),
        reloads: Vec::new(),
        deadline_seconds: DEADLINE_SECONDS,
        kind: TaskKind::Command(CommandTask {
            argv,
            stdin: password,
            user: String::new(),
            creates: String::new(),
            unless: Vec::new(),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::task;
    use crate::sample;
    use crate::state::Installed;
    use maxim_model::Secret;
    use maxim_model::task::TaskKind;

    #[test]
    fn the_consoles_program_gets_the_password_on_standard_input_as_its_own_user() {
        let installed = Installed {
            artefacts: [("console".to_owned(), "maxim-console-0.1.0-0f3a1b2c3d4e".to_owned())].into(),
            ..Installed::default()
        };
        let made = task(&sample::three_hosts(), &installed, Secret::new("planted-7431")).unwrap();
        let TaskKind::Command(command) = made.kind else { panic!("a command") };
        assert_eq!(
            command.argv.join(" "),
            "runuser -u maxim-console -g maxim-console -G maxim -- \
             /opt/maxim/bin/maxim-console-0.1.0-0f3a1b2c3d4e/maxim-console \
             --config /etc/maxim/console/console.yaml --reset-password"
        );
        assert_eq!(command.stdin.expose(), "planted-7431");
        assert!(!command.argv.join(" ").contains("planted"));
        let root = std::path::Path::new("/home/ann/maxim");
        let made = task(&sample::embedded(root), &installed, Secret::default()).unwrap();
        let TaskKind::Command(command) = made.kind else { panic!("a command") };
        assert_eq!(
            (command.argv[2].as_str(), command.user.as_str()),
            ("/home/ann/maxim/etc/console.yaml", "")
        );
        assert!(task(&sample::three_hosts(), &Installed::default(), Secret::default()).is_err());
    }
}
