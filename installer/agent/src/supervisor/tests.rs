//! The supervisor with real processes below a temporary root.

use super::control::Command as Ask;
use super::{Supervisor, client, control};
use crate::procfs;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A supervisor in this process; ended when dropped.
struct Running {
    root: tempfile::TempDir,
    supervisor: Arc<Supervisor>,
    main: Option<JoinHandle<()>>,
}

impl Running {
    fn start(root: tempfile::TempDir) -> Self {
        let (supervisor, asked) = Supervisor::start(root.path()).unwrap();
        let ending = Arc::clone(&supervisor);
        let main = std::thread::spawn(move || {
            asked.recv().unwrap();
            ending.finish();
        });
        Self { root, supervisor, main: Some(main) }
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn ask(&self, command: &Ask) -> crate::Result<control::Answer> {
        client::ask(self.path(), command, PATIENCE)
    }

    fn status(&self, name: &str) -> super::ServiceStatus {
        let answer = self.ask(&Ask::Status).unwrap();
        answer.services.into_iter().find(|status| status.name == name).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.supervisor.ask_end();
        if let Some(main) = self.main.take() {
            let _ = main.join();
        }
    }
}

fn define(root: &Path, name: &str, text: &str, enabled: bool) {
    let folder = root.join("etc/services/enabled");
    fs::create_dir_all(&folder).unwrap();
    fs::write(root.join(format!("etc/services/{name}.yaml")), text).unwrap();
    if enabled {
        fs::write(folder.join(name), "").unwrap();
    }
}

fn until(what: &str, mut look: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < end, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn shell(script: &str) -> String {
    shell_within(1, script)
}

/// The same with so many seconds to stop.
fn shell_within(seconds: u64, script: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    format!("argv: [/bin/sh, -c, {script}]\nstop_deadline_seconds: {seconds}\n")
}

#[test]
fn starts_reports_restarts_and_stops() {
    let root = tempfile::tempdir().unwrap();
    define(root.path(), "a", &shell("echo started; exec sleep 300"), false);
    let running = Running::start(root);
    running.ask(&Ask::Start { name: "a".into() }).unwrap();
    let first = running.status("a");
    assert_eq!((first.active.as_str(), first.restarts), ("active", 0));
    assert!(procfs::start_time(first.pid).is_some());
    // It is started again when it dies.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first.pid as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    until("the restart", || {
        let now = running.status("a");
        now.active == "active" && now.pid != first.pid && now.restarts == 1
    });
    // A changed definition takes effect at a restart by request.
    define(running.path(), "a", &shell("exec sleep 301"), false);
    let before = running.status("a");
    running.ask(&Ask::Restart { name: "a".into() }).unwrap();
    let after = running.status("a");
    assert!(after.pid != before.pid && after.definition != before.definition && after.restarts == 0);
    running.ask(&Ask::Stop { name: "a".into() }).unwrap();
    let stopped = running.status("a");
    assert_eq!((stopped.active.as_str(), stopped.pid), ("inactive", 0));
    assert_eq!(procfs::start_time(after.pid), None);
    let log = fs::read_to_string(running.path().join("log/a.log")).unwrap();
    assert!(log.contains("started\n") && log.contains("signal 9; it is started again"), "{log}");
}

#[test]
fn a_service_that_does_not_stay_up_is_an_error_with_its_last_words_and_backs_off() {
    let root = tempfile::tempdir().unwrap();
    // It has something to be ready for: without that, the moment between its start and its end counts as well.
    let never = root.path().join("never.sock");
    let definition =
        format!("{}ready: {{socket: {}}}\n", shell("echo no configuration >&2; exit 7"), never.display());
    define(root.path(), "bad", &definition, false);
    let running = Running::start(root);
    let failure = running.ask(&Ask::Start { name: "bad".into() }).unwrap_err().to_string();
    assert!(failure.contains("status 7") && failure.contains("no configuration"), "{failure}");
    assert_eq!(running.status("bad").active, "failed");
    let missing = running.ask(&Ask::Start { name: "none".into() }).unwrap_err().to_string();
    assert!(missing.contains("there is no service none"), "{missing}");
}

#[test]
fn readiness_is_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let gate = root.path().join("gate.sock");
    let definition = format!("{}ready: {{socket: {}}}\n", shell("exec sleep 300"), gate.display());
    define(root.path(), "slow", &definition, false);
    let running = Running::start(root);
    let root_path = running.path().to_path_buf();
    let asking = std::thread::spawn(move || {
        client::ask(&root_path, &Ask::Start { name: "slow".into() }, PATIENCE).map(drop)
    });
    until("activating", || running.status("slow").active == "activating");
    assert!(!asking.is_finished());
    let _listener = crate::unix::listen(&gate).unwrap();
    asking.join().unwrap().unwrap();
    assert_eq!(running.status("slow").active, "active");
}

#[test]
fn a_deaf_service_is_killed_with_its_children() {
    let root = tempfile::tempdir().unwrap();
    let child = root.path().join("child");
    let script = format!("trap '' TERM; sleep 300 & echo $! > {}; wait; sleep 300", child.display());
    define(root.path(), "deaf", &shell(&script), false);
    let running = Running::start(root);
    running.ask(&Ask::Start { name: "deaf".into() }).unwrap();
    until("the child", || fs::read_to_string(&child).is_ok_and(|text| text.ends_with('\n')));
    let pid: u32 = fs::read_to_string(&child).unwrap().trim().parse().unwrap();
    running.ask(&Ask::Stop { name: "deaf".into() }).unwrap();
    until("the end of the child", || procfs::start_time(pid).is_none());
}

#[test]
fn enabled_services_start_in_order_and_stop_in_reverse() {
    let root = tempfile::tempdir().unwrap();
    let order = root.path().join("order");
    for (name, after) in [("z-store", ""), ("a-core", "after: [z-store]\n")] {
        let script = format!(
            "trap 'echo {name} stop >> {0}; exit 0' TERM; echo {name} start >> {0}; : > {0}.{name}; while :; do sleep 0.01; done",
            order.display()
        );
        // It says something before it ends: on a busy machine that takes its time.
        let ready = format!("{}{after}", shell_within(10, &script));
        define(root.path(), name, &ready, true);
    }
    let running = Running::start(root);
    until("both", || ["z-store", "a-core"].iter().all(|name| order.with_extension(name).exists()));
    assert!(client::shutdown(running.path(), PATIENCE).unwrap());
    until("the end", || !control::pid_file(running.path()).exists());
    let text = fs::read_to_string(&order).unwrap();
    let stops: Vec<&str> = text.lines().filter(|line| line.ends_with("stop")).collect();
    assert_eq!(stops, ["a-core stop", "z-store stop"], "{text}");
}

#[test]
fn one_supervisor_per_root_and_private_files() {
    use std::os::unix::fs::PermissionsExt;
    let running = Running::start(tempfile::tempdir().unwrap());
    let second = Supervisor::start(running.path()).err().unwrap();
    assert!(second.to_string().contains("already runs"), "{second}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&control::socket(running.path())), 0o600);
    assert_eq!(mode(&running.path().join("run")), 0o700);
}

/// Not a test of its own: the process that the tests below start, with the root in HOME.
#[test]
#[ignore = "the supervisor's process for other tests"]
fn process() {
    super::run(Path::new(&std::env::var("HOME").unwrap())).unwrap();
}

fn spawn(root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "supervisor::tests::process"])
        .env("HOME", root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn sigterm_ends_a_real_process_and_its_services() {
    let root = tempfile::tempdir().unwrap();
    define(root.path(), "a", &shell("exec sleep 300"), true);
    let mut child = spawn(root.path());
    until("the service", || {
        client::status(root.path())
            .ok()
            .flatten()
            .is_some_and(|a| a.services.iter().any(|s| s.active == "active"))
    });
    let service = client::status(root.path()).unwrap().unwrap().services[0].pid;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(procfs::start_time(service), None);
    assert!(!control::socket(root.path()).exists() && !control::pid_file(root.path()).exists());
}

#[test]
fn what_a_killed_supervisor_left_running_is_ended_by_the_next() {
    let root = tempfile::tempdir().unwrap();
    define(root.path(), "a", &shell("exec sleep 300"), true);
    let mut child = spawn(root.path());
    let active = |root: &Path| {
        let answer = client::status(root).ok().flatten()?;
        answer.services.into_iter().find(|s| s.active == "active").map(|s| s.pid)
    };
    until("the service", || active(root.path()).is_some());
    let orphan = active(root.path()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(procfs::start_time(orphan).is_some());
    let running = Running::start(root);
    until("the new service", || active(running.path()).is_some_and(|pid| pid != orphan));
    assert_eq!(procfs::start_time(orphan), None);
}

#[test]
fn ensure_starts_one_that_outlives_its_starter_and_shutdown_ends_it() {
    let root = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let arguments = ["--ignored", "--exact", "supervisor::tests::process"];
    assert!(client::ensure(root.path(), &program, &arguments).unwrap());
    assert!(!client::ensure(root.path(), &program, &arguments).unwrap());
    let pid = client::status(root.path()).unwrap().unwrap().pid;
    // It has a session of its own, so that the end of ours does not reach it.
    assert_eq!(
        nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid as i32))).unwrap().as_raw(),
        pid as i32
    );
    assert!(client::shutdown(root.path(), PATIENCE).unwrap());
    until("its end", || procfs::start_time(pid).is_none());
    assert!(!client::shutdown(root.path(), PATIENCE).unwrap());
    let failure = client::ensure(root.path(), Path::new("/bin/false"), &[]).unwrap_err().to_string();
    assert!(failure.contains("status 1"), "{failure}");
}
