//! Replacements on fake hosts: who is kept from what in the middle of one, and the key of a machine at the old address.

use super::record::{self, Data, Record};
use super::{Approved, ReplaceOptions, Replacement, dead, stores_only};
use crate::actions;
use crate::actions::install::{self, InstallOptions};
use crate::backup::{self, Only, RestoreOptions};
use crate::context::{Ask, CancelFlag, Context};
use crate::delivery::Delivery;
use crate::error::{Class, EngineError};
use crate::fake::Fleet;
use crate::remote::Connected;
use crate::remote::ssh::pinned_name;
use crate::run::{Connector, Run};
use crate::sample::{self, task};
use crate::state::{Installed, StateDir};
use crate::upgrade::RollbackOptions;
use maxim_model::backup::SetKind;
use maxim_model::names::{Role, Stage};
use maxim_model::plan::Plan;
use maxim_model::task::Change;
use maxim_model::topology::{Connection, Host};
use maxim_model::wire::ServiceAction;
use std::sync::Arc;

/// Nobody changes the cluster while its database is the empty one, whatever the command; and a record that is complete
/// or gone refuses nobody.
#[test]
fn in_the_middle_of_a_replacement_every_command_that_changes_something_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let context = sample::context(sample::three_hosts(), StateDir::at(folder.path()));
    context.state.create().unwrap();
    context.state.save_installed(&Installed { generation: 1, ..Installed::default() }).unwrap();
    let options = ReplaceOptions {
        host: "db1".into(),
        name: "db1".into(),
        topology: context.topology.clone(),
        topology_text: String::new(),
        set: None,
        alive: false,
        without_data: false,
        dry_run: false,
    };
    let data = Data { set: "a".into(), parts: vec!["database".into()] };
    let old = context.topology.host("db1").unwrap();
    let mut record = Record::new(old, &options, &context.topology, data, Vec::new());
    record::save(&context.state, &record).unwrap();
    let restore = RestoreOptions { only: Only::All, overwrite: true, ..RestoreOptions::default() };
    let tried = || {
        [
            install::install(&context, InstallOptions::default()).err(),
            actions::service(&context, ServiceAction::Start, None).err(),
            actions::service(&context, ServiceAction::Restart, None).err(),
            crate::upgrade::rollback(&context, RollbackOptions::default()).err(),
            crate::upgrade::finalize(&context, false).err(),
            backup::create(&context, SetKind::Manual).err(),
            backup::restore(&context, &restore).err(),
        ]
    };
    for (place, error) in tried().into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("command {place} went on"));
        assert_eq!(error.exit_code(), 5, "command {place}: {error:?}");
        assert!(error.cause.contains("is not restored yet"), "command {place}: {error:?}");
        assert!(error.hint.contains("host replace db1"), "command {place}: {error:?}");
    }
    record.restored = true;
    record::save(&context.state, &record).unwrap();
    super::refuse_in_the_middle(&context.state, "install").unwrap();
    record::forget(&context.state).unwrap();
    super::refuse_in_the_middle(&context.state, "install").unwrap();
}

#[test]
fn the_im_core_comes_after_the_data() {
    let tasks =
        vec![vec![task("a", Stage::Prepare), task("b", Stage::Core), task("c", Stage::Store)], Vec::new()];
    let changes = vec![vec![Change::None; 3], Vec::new()];
    let (tasks, changes) = stores_only(&tasks, &changes);
    let ids: Vec<&str> = tasks[0].iter().map(|task| task.id.as_str()).collect();
    assert_eq!((ids, changes[0].len(), tasks.len()), (vec!["a", "c"], 2, 2));
}

/// Fake hosts that know host keys: the machine at one of them shows another key than before.
struct Keys {
    fleet: Fleet,
    state: StateDir,
    name: String,
}

impl Keys {
    fn run<'a>(self: &Arc<Self>, context: &'a Context, journal: bool) -> Run<'a> {
        let keys: Arc<Self> = Arc::clone(self);
        Run::with_connector(context, "host-replace", journal, keys).unwrap()
    }
}

impl Connector for Keys {
    fn connect(&self, host: &Host) -> Result<Box<dyn Connected>, EngineError> {
        if host.name == "c" {
            let path = self.state.file("known_hosts");
            let text = std::fs::read_to_string(&path).unwrap();
            if text.contains(" OLD") {
                let cause = "its host key has changed";
                return Err(EngineError::new(Class::Preflight, dead::OTHER_KEY, cause).on("c"));
            }
            if !text.contains(" NEW") {
                std::fs::write(&path, format!("{text}{} ssh-ed25519 NEW\n", self.name)).unwrap();
            }
        }
        self.fleet.connect(host)
    }
}

struct SayNo;

impl Ask for SayNo {
    fn approve(&self, _plan: &Plan) -> bool {
        false
    }
}

/// Nothing has to be removed by hand, and whoever says no finds everything as it was.
#[test]
fn a_host_is_replaced_at_its_old_address() {
    let folder = tempfile::tempdir().unwrap();
    let (root, bin) = (folder.path().join("root"), folder.path().join("bin"));
    std::fs::create_dir(&bin).unwrap();
    for name in ["maxim-ctl", "maxim-im", "maxim-console"] {
        std::fs::write(bin.join(name), name).unwrap();
    }
    let mut topology = sample::embedded(&root);
    let local = topology.hosts[0].clone();
    let ssh = sample::three_hosts().hosts[0].connection.clone();
    let host = |name: &str, role: Role, connection: Connection| Host {
        name: name.into(),
        roles: vec![role],
        connection,
        ..local.clone()
    };
    topology.hosts = vec![host("a", Role::Im, Connection::Local), host("c", Role::Console, ssh.clone())];
    let Connection::Ssh(ssh) = ssh else { panic!("{ssh:?}") };
    let old = topology.hosts[1].clone();
    let name = pinned_name(&old.address, ssh.port);
    let state = StateDir::embedded(&root);
    let context = Context {
        topology_text: "name: embedded\n".into(),
        delivery: Delivery::Checkout { bin_dir: bin.clone(), web_root: None },
        program: bin.join("maxim-ctl"),
        ..sample::context(topology.clone(), state.clone())
    };
    state.create().unwrap();
    let path = state.file("known_hosts");
    let read = || std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    let keys = Arc::new(Keys {
        fleet: Fleet::new(&topology, CancelFlag::new()),
        state: state.clone(),
        name: name.clone(),
    });
    install::install_with(&keys.run(&context, true), InstallOptions::default(), None).unwrap();
    let pinned = format!("10.9.9.9 ssh-ed25519 OTHER\n{name} ssh-ed25519 OLD\n");
    std::fs::write(&path, &pinned).unwrap();
    let tried = |dry_run: bool, ask: Arc<dyn Ask>| {
        let options = ReplaceOptions {
            host: "c".into(),
            name: "c".into(),
            topology: topology.clone(),
            topology_text: context.topology_text.clone(),
            set: None,
            alive: false,
            without_data: false,
            dry_run,
        };
        let asking = Context { ask: Arc::clone(&ask), ..context.clone() };
        let wanted = Context { ask: Arc::new(Approved(ask)), ..context.clone() };
        let replacement = Replacement {
            wanted: wanted.clone(),
            options: &options,
            old: old.clone(),
            record: None,
            parts: vec![],
            stops: false,
        };
        let run = keys.run(&wanted, !dry_run);
        replacement.provision(&run, &asking, &Data::default(), "").map(|(outcome, _)| outcome)
    };
    let error = tried(true, Arc::new(SayNo)).unwrap_err();
    assert!(error.step == dead::OTHER_KEY && error.hint.contains("--dry-run"), "{error:?}");
    assert_eq!(read(), pinned, "a look changes nothing");
    assert!(!tried(false, Arc::new(SayNo)).unwrap().applied);
    assert_eq!(read(), pinned, "nor does no");
    assert!(tried(false, Arc::clone(&context.ask)).unwrap().applied);
    assert_eq!(read(), format!("10.9.9.9 ssh-ed25519 OTHER\n{name} ssh-ed25519 NEW\n"));
    assert!(record::load(&state).unwrap().is_some());
}
