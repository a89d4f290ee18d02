//! Tasks of files and folders below a temporary folder: what is planned, done, and not done twice.

use super::absent::make_group_again;
use super::{Batch, Context, Outcome, apply, check};
use crate::deadline::Deadline;
use crate::error::{Failure, Result};
use crate::link::{Content, ContentSource};
use crate::made::Made;
use crate::scope::Scope;
use maxim_model::Secret;
use maxim_model::names::Stage;
use maxim_model::task::{
    AbsentTask, AbsentUser, CertificateTask, Change, CommandTask, DirectoryTask, FileTask, ServiceManager,
    Task, TaskKind, UnitTask,
};
use maxim_model::wire::Access;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

struct Nothing;

impl ContentSource for Nothing {
    fn open(&mut self, id: &str, _sha256: &str, _size: u64) -> Result<Content<'_>> {
        panic!("{id} asked for content")
    }
}

/// A deployment's root below a temporary folder.
struct Place {
    folder: tempfile::TempDir,
    scope: Scope,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let lock = root.join("lock.json").display().to_string();
        let scope = Scope::new(&[root.display().to_string()], &lock).unwrap();
        Self { folder, scope }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn check_as(&self, access: Access, task: &Task, batch: &mut Batch) -> Result<Change> {
        let mut context = Context { scope: &self.scope, access, deadline: Deadline::after(20), batch };
        check(&mut context, task)
    }

    fn check(&self, task: &Task) -> Result<Change> {
        self.check_as(Access::Full, task, &mut Batch::new(std::slice::from_ref(task)))
    }

    fn apply(&self, task: &Task) -> Result<Outcome> {
        let mut batch = Batch::new(std::slice::from_ref(task));
        let mut context = Context {
            scope: &self.scope,
            access: Access::Full,
            deadline: Deadline::after(20),
            batch: &mut batch,
        };
        apply(&mut context, task, &mut Nothing)
    }

    /// Checked, applied, checked again, applied again.
    fn twice(&self, task: &Task) -> Change {
        let change = self.check(task).unwrap();
        assert!(self.apply(task).unwrap().changed, "{task:?}");
        assert_eq!(self.check(task).unwrap(), Change::None, "{task:?}");
        assert!(!self.apply(task).unwrap().changed, "{task:?}");
        change
    }
}

fn task(id: &str, kind: TaskKind) -> Task {
    Task {
        id: id.into(),
        component: "im".into(),
        stage: Stage::Prepare,
        restarts: Vec::new(),
        reloads: Vec::new(),
        deadline_seconds: 20,
        kind,
    }
}

fn file(path: &str, content: &str, sensitive: bool) -> TaskKind {
    TaskKind::File(FileTask {
        path: path.into(),
        content: Secret::new(content),
        sensitive,
        owner: String::new(),
        group: String::new(),
        mode: "0640".into(),
        only_if_absent: false,
    })
}

#[test]
fn folders_and_files_are_made_once() {
    let place = Place::new();
    let folder = DirectoryTask {
        path: place.text("etc/im"),
        owner: String::new(),
        group: String::new(),
        mode: "0750".into(),
    };
    assert!(matches!(place.twice(&task("d", TaskKind::Directory(folder.clone()))), Change::Create { .. }));
    fs::set_permissions(place.path("etc/im"), fs::Permissions::from_mode(0o700)).unwrap();
    let change = place.twice(&task("d", TaskKind::Directory(folder.clone())));
    assert!(change.summary().contains("mode 0700 → 0750"), "{change:?}");
    let path = place.text("etc/im/im.yaml");
    assert!(matches!(place.twice(&task("f", file(&path, "a: 1\n", false))), Change::Create { .. }));
    let Change::Update { diff, .. } = place.twice(&task("f", file(&path, "a: 2\n", false))) else { panic!() };
    assert!(diff.contains("-a: 1\n+a: 2\n"), "{diff}");
    std::os::unix::fs::symlink("/tmp", place.path("link")).unwrap();
    let through = DirectoryTask { path: place.text("link"), ..folder };
    assert!(
        place
            .check(&task("d", TaskKind::Directory(through)))
            .unwrap_err()
            .to_string()
            .contains("symbolic link")
    );
}

#[test]
fn a_secret_file_shows_nothing() {
    let place = Place::new();
    let path = place.text("secret");
    place.twice(&task("f", file(&path, "planted-old", true)));
    let change = place.check(&task("f", file(&path, "planted-new", true))).unwrap();
    assert!(!format!("{change:?}").contains("planted"), "{change:?}");
}

#[test]
fn a_file_that_people_edit_is_left_to_them() {
    let place = Place::new();
    let TaskKind::File(mut body) = file(&place.text("notes"), "first", false) else { panic!() };
    body.only_if_absent = true;
    let task = task("f", TaskKind::File(body));
    place.twice(&task);
    fs::write(place.path("notes"), "edited").unwrap();
    assert_eq!(place.check(&task).unwrap(), Change::None);
    assert_eq!(fs::read(place.path("notes")).unwrap(), b"edited");
}

#[test]
fn certificates_carry_their_key_privately() {
    let place = Place::new();
    let kind = TaskKind::Certificate(CertificateTask {
        certificate_path: place.text("im.pem"),
        key_path: place.text("im.key"),
        certificate: "PUBLIC".into(),
        key: Secret::new("planted-key"),
        owner: String::new(),
        group: String::new(),
        key_mode: "0600".into(),
    });
    let change = place.twice(&task("c", kind));
    assert!(!format!("{change:?}").contains("planted"));
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("im.pem"), mode("im.key")), (0o644, 0o600));
}

#[test]
fn commands_have_guards_and_read_only_agents_run_none() {
    let place = Place::new();
    fs::create_dir_all(place.path("")).unwrap();
    let made = place.text("made");
    let command = CommandTask {
        argv: vec!["tee".into(), made.clone()],
        stdin: Secret::new("planted-input"),
        user: String::new(),
        creates: made.clone(),
        unless: Vec::new(),
    };
    let change = place.twice(&task("c", TaskKind::Command(command.clone())));
    assert!(change.summary().contains("tee") && !change.summary().contains("planted"));
    let guarded = CommandTask {
        argv: vec!["true".into()],
        creates: String::new(),
        unless: vec!["touch".into(), place.text("guard-ran")],
        ..command.clone()
    };
    let guarded = task("c", TaskKind::Command(guarded));
    let looked = place.check_as(Access::ReadOnly, &guarded, &mut Batch::default()).unwrap();
    assert!(matches!(looked, Change::Later { .. }) && !place.path("guard-ran").exists());
    assert_eq!(place.check(&guarded).unwrap(), Change::None);
    let lying = CommandTask { argv: vec!["true".into()], creates: place.text("never"), ..command };
    let failure = place.apply(&task("c", TaskKind::Command(lying))).unwrap_err().to_string();
    assert!(failure.contains("succeeded, but"), "{failure}");
}

#[test]
fn only_what_is_ours_can_be_removed() {
    let place = Place::new();
    fs::create_dir_all(place.path("data/deep")).unwrap();
    fs::write(place.path("data/deep/x"), "x").unwrap();
    fs::create_dir_all(place.path("empty")).unwrap();
    let absent = |kind: AbsentTask| task("a", TaskKind::Absent(kind));
    let stays = place.apply(&absent(AbsentTask::EmptyDirectory(place.text("data")))).unwrap();
    assert!(!stays.changed && place.path("data").exists());
    place.twice(&absent(AbsentTask::EmptyDirectory(place.text("empty"))));
    place.twice(&absent(AbsentTask::Tree(place.text("data"))));
    for foreign in ["/etc/passwd", "/etc/sysctl.d/99-other.conf", "/tmp"] {
        let failure = place.check(&absent(AbsentTask::File(foreign.into()))).unwrap_err();
        assert!(failure.to_string().contains("not ours"), "{failure}");
        assert!(Path::new(foreign).parent().unwrap().exists());
    }
    let root = absent(AbsentTask::User(AbsentUser { name: "root".into(), made: place.text("made") }));
    assert_eq!(place.check(&root).unwrap(), Change::None, "what we did not make is not ours to remove");
    fs::write(place.text("made"), "user root\n").unwrap();
    assert!(place.check(&root).unwrap().is_change());
    let failure = place.apply(&root).unwrap_err();
    assert!(matches!(failure, Failure::Refused { .. }), "{failure}");
    // Killed when the user was gone with a group that was there before: the next run makes that again.
    fs::write(place.text("made"), "kept-group root=0\nkept-group maxim-gone=990\n").unwrap();
    assert_eq!(place.check(&root).unwrap(), Change::None, "it is there still");
    let gone = AbsentUser { name: "maxim-gone".into(), made: place.text("made") };
    let owed = place.check(&absent(AbsentTask::User(gone))).unwrap();
    assert!(
        matches!(&owed, Change::Create { summary, .. } if summary.contains("maxim-gone again")),
        "{owed:?}"
    );
}

/// By the host's own `groupadd`, in a system of its own below a folder: nothing is made on the machine of the test.
#[test]
fn a_group_that_went_with_a_user_is_made_again_with_its_number() {
    let place = Place::new();
    let system = place.text("system");
    fs::create_dir_all(place.path("system/etc")).unwrap();
    let groups = place.path("system/etc/group");
    fs::write(&groups, "other:x:989:\n").unwrap();
    fs::write(place.text("made"), "user maxim-other\nkept-group maxim-gone=990\n").unwrap();
    let made = Made::at(&place.text("made")).unwrap();
    let again = || make_group_again(&made, "maxim-gone", &["--prefix", &system], &Deadline::after(20));
    again().unwrap();
    assert_eq!(fs::read_to_string(&groups).unwrap(), "other:x:989:\nmaxim-gone:x:990:\n");
    assert_eq!(fs::read_to_string(place.text("made")).unwrap(), "user maxim-other\n", "nothing is owed");
    again().unwrap();
    let gone = AbsentUser { name: "maxim-gone".into(), made: place.text("made") };
    assert_eq!(place.check(&task("a", TaskKind::Absent(AbsentTask::User(gone)))).unwrap(), Change::None);
    // One that is there already is left as it is.
    fs::write(place.text("made"), "kept-group root=0\n").unwrap();
    make_group_again(&made, "root", &["--prefix", &system], &Deadline::after(20)).unwrap();
    assert!(!fs::read_to_string(&groups).unwrap().contains("root"));
    assert!(!place.path("made").exists() || fs::read_to_string(place.text("made")).unwrap().is_empty());
}

/// A service of a supervisor that does not run: what is owed can be looked at without starting anything.
fn unit(place: &Place, content: &str) -> Task {
    let root = place.folder.path().join("root").display().to_string();
    task(
        "im/unit",
        TaskKind::Unit(UnitTask {
            name: "maxim-im".into(),
            manager: ServiceManager::Supervisor { root },
            content: content.into(),
            enabled: false,
            running: true,
        }),
    )
}

/// As a replacement of a host keeps the IM cores down until the database is restored.
#[test]
fn a_service_that_shall_not_start_is_disabled_also_when_its_definition_changes() {
    let place = Place::new();
    let root = place.folder.path().join("root");
    let mark = crate::supervisor::definition::enabled_mark(&root, "maxim-im");
    let path = crate::supervisor::definition::path(&root, "maxim-im");
    for file in [&mark, &path] {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }
    let mut idle = unit(&place, "argv: [/bin/sleep, '300']\n");
    let TaskKind::Unit(task) = &mut idle.kind else { unreachable!() };
    (task.enabled, task.running) = (false, false);
    for _ in 0..2 {
        place.apply(&idle).unwrap();
    }
    assert!(!mark.exists() && fs::read_to_string(&path).unwrap().contains("sleep"));
    assert_eq!(place.check(&idle).unwrap(), Change::None);
}

#[test]
fn a_change_owes_a_restart_that_outlives_a_killed_run() {
    let place = Place::new();
    let mut config = task("im/config", file(&place.text("im.yaml"), "a: 1\n", false));
    config.restarts = vec!["maxim-im".into()];
    let content = "argv: [/bin/sleep, '300']\n";
    fs::create_dir_all(place.path("etc/services")).unwrap();
    fs::write(place.path("etc/services/maxim-im.yaml"), content).unwrap();
    // Planned together: the service's restart is announced because of the file.
    let mut batch = Batch::default();
    place.check_as(Access::ReadOnly, &config, &mut batch).unwrap();
    let planned = place.check_as(Access::ReadOnly, &unit(&place, content), &mut batch).unwrap();
    assert!(planned.summary().contains("because of im/config"), "{planned:?}");
    // The run is killed after the file: the next one still knows.
    assert!(place.apply(&config).unwrap().changed);
    assert!(!place.apply(&config).unwrap().changed);
    let owed = place.check(&unit(&place, content)).unwrap();
    assert_eq!(owed, Change::Restart { summary: "restart maxim-im, because of im/config".into() });
}

#[test]
fn a_failed_task_keeps_its_debt_and_an_idle_one_makes_none() {
    let place = Place::new();
    fs::create_dir_all(place.path("taken")).unwrap();
    let mut broken = task(
        "c",
        TaskKind::Command(CommandTask {
            argv: vec!["false".into()],
            stdin: Secret::default(),
            user: String::new(),
            creates: String::new(),
            unless: Vec::new(),
        }),
    );
    broken.restarts = vec!["maxim-im".into()];
    assert!(place.apply(&broken).is_err());
    let marks = crate::restart::Marks::new(place.scope.restarts());
    assert!(marks.owed("maxim-im").is_some());
    marks.paid("maxim-im").unwrap();
    let mut idle = task("a", TaskKind::Absent(AbsentTask::EmptyDirectory(place.text("taken"))));
    fs::write(place.path("taken/x"), "").unwrap();
    idle.restarts = vec!["maxim-im".into()];
    assert!(!place.apply(&idle).unwrap().changed);
    assert!(marks.owed("maxim-im").is_none());
}
