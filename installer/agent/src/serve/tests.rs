//! The whole agent through its pipes: requests in, replies out.

use super::serve;
use crate::access::mutates;
use maxim_model::Secret;
use maxim_model::facts::FactsQuery;
use maxim_model::names::Stage;
use maxim_model::task::{BinaryTask, Change, FileTask, ImageTask, ServiceManager, Task, TaskKind};
use maxim_model::wire::{Access, CanaryRequest, Reply, Request, ServiceAction, WIRE_VERSION};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What goes into the agent.
#[derive(Default)]
struct Input(Vec<u8>);

impl Input {
    fn ask(mut self, request: &Request) -> Self {
        self.0.extend(serde_json::to_vec(request).unwrap());
        self.0.push(b'\n');
        self
    }

    fn content(mut self, bytes: &[u8]) -> Self {
        self.0.extend(format!("{{\"size\":{}}}\n", bytes.len()).as_bytes());
        self.0.extend(bytes);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn run(self, access: Access) -> Vec<Reply> {
        let mut output = Vec::new();
        let _ = serve(access, &self.0[..], &mut output);
        String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn scope(&self) -> Request {
        Request::Scope {
            own_paths: vec![self.root().display().to_string()],
            lock: self.root().join("lock.json").display().to_string(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.root().join(name).display().to_string()
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

fn file(path: String, content: &str) -> Task {
    task(
        "im/file",
        TaskKind::File(FileTask {
            path,
            content: Secret::new(content),
            sensitive: true,
            owner: String::new(),
            group: String::new(),
            mode: "0600".into(),
            only_if_absent: false,
        }),
    )
}

fn binary(path: String, content: &[u8]) -> Task {
    let body = BinaryTask {
        name: "maxim-im".into(),
        path,
        sha256: hex::encode(Sha256::digest(content)),
        size: content.len() as u64,
        in_place: false,
    };
    task("im/binary", TaskKind::Binary(body))
}

fn image(path: String) -> (Task, Vec<u8>) {
    let mut builder = tar::Builder::new(zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    builder.append_data(&mut header, "usr/share/hello", &b"hello"[..]).unwrap();
    let bytes = builder.into_inner().unwrap().finish().unwrap();
    let body = ImageTask {
        name: "mariadb".into(),
        path,
        sha256: hex::encode(Sha256::digest(&bytes)),
        size: bytes.len() as u64,
        unpacked_size: 5,
    };
    (task("mariadb/image", TaskKind::Image(body)), bytes)
}

fn changed(replies: &[Reply]) -> Vec<bool> {
    replies
        .iter()
        .filter_map(|reply| if let Reply::TaskDone { changed, .. } = reply { Some(*changed) } else { None })
        .collect()
}

fn cause(replies: &[Reply]) -> String {
    let found =
        replies.iter().find_map(|reply| if let Reply::Error(error) = reply { Some(error) } else { None });
    found.map_or_else(
        || panic!("no error in {replies:?}"),
        |error| format!("{} {} {}", error.step, error.cause, error.hint),
    )
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_install_in_small_and_a_second_run_that_changes_nothing() {
    let place = Place::new();
    let program = vec![7_u8; 300_000];
    let (image, archive) = image(place.path("images/mariadb-1"));
    let tasks = vec![
        file(place.path("etc/im.yaml"), "planted-secret"),
        binary(place.path("bin/im-1/maxim-im"), &program),
        image,
    ];
    let replies = Input::default()
        .ask(&Request::Hello)
        .ask(&place.scope())
        .ask(&Request::Check { tasks: tasks.clone() })
        .ask(&Request::Apply { tasks: tasks.clone() })
        .content(&program)
        .content(&archive)
        .ask(&Request::Facts(FactsQuery::default()))
        .run(Access::Full);
    assert!(matches!(&replies[0], Reply::Hello { wire: WIRE_VERSION, access: Access::Full, .. }));
    let planned =
        replies.iter().filter(|r| matches!(r, Reply::Checked { change: Change::Create { .. }, .. })).count();
    assert_eq!(planned, 3, "{replies:?}");
    assert_eq!(changed(&replies), [true, true, true], "{replies:?}");
    let asked: Vec<&str> = replies
        .iter()
        .filter_map(|r| if let Reply::NeedContent { id, .. } = r { Some(id.as_str()) } else { None })
        .collect();
    assert_eq!(asked, ["im/binary", "mariadb/image"]);
    assert_eq!(fs::read(place.root().join("images/mariadb-1/usr/share/hello")).unwrap(), b"hello");
    let Some(Reply::Facts { facts }) = replies.iter().find(|r| matches!(r, Reply::Facts { .. })) else {
        panic!()
    };
    assert_eq!(facts.artefacts, ["im-1", "mariadb-1"]);
    assert!(!serde_json::to_string(&replies).unwrap().contains("planted"));
    // Again, without any content to give.
    let replies = Input::default()
        .ask(&place.scope())
        .ask(&Request::Check { tasks: tasks.clone() })
        .ask(&Request::Apply { tasks })
        .run(Access::Full);
    assert!(
        replies.iter().all(|r| !matches!(r, Reply::Checked { change, .. } if *change != Change::None)),
        "{replies:?}"
    );
    assert_eq!(changed(&replies), [false, false, false]);
    assert_eq!(names(&place.root()), ["bin", "etc", "images"]);
}

#[test]
fn a_read_only_agent_changes_nothing() {
    let place = Place::new();
    let manager = ServiceManager::Systemd;
    let mutating = [
        Request::Apply { tasks: vec![file(place.path("x"), "x")] },
        Request::Lock { cluster: "a".into(), owner: "b".into(), lease_seconds: 30 },
        Request::Unlock,
        Request::BreakLock { owner: String::new() },
        Request::Service {
            action: ServiceAction::Stop,
            names: vec!["x".into()],
            manager: manager.clone(),
            deadline_seconds: 1,
        },
        Request::Http {
            socket: "/x".into(),
            method: "POST".into(),
            path: "/".into(),
            body: Secret::default(),
        },
        Request::Canary(CanaryRequest {
            domain: "x".into(),
            from: "127.0.0.1:1".into(),
            to: "127.0.0.1:1".into(),
            sender: "a".into(),
            sender_password: Secret::default(),
            receiver: "b".into(),
            receiver_password: Secret::default(),
            ca_certificate: String::new(),
            pinned_certificate: String::new(),
            deadline_seconds: 1,
        }),
    ];
    let mut input = Input::default().ask(&place.scope());
    for request in &mutating {
        assert!(mutates(request));
        input = input.ask(request);
    }
    let replies = input
        .ask(&Request::Check { tasks: vec![file(place.path("x"), "x")] })
        .ask(&Request::LockOwner)
        .ask(&Request::Units { names: Vec::new(), manager })
        .run(Access::ReadOnly);
    let refused =
        replies.iter().filter(|r| matches!(r, Reply::Error(e) if e.cause.contains("read-only"))).count();
    assert_eq!(refused, mutating.len(), "{replies:?}");
    assert!(matches!(replies.last(), Some(Reply::Done)));
    assert!(!place.root().exists());
}

#[test]
fn only_an_agent_that_was_started_for_it_is_promoted() {
    let refused = Input::default().ask(&Request::Promote).ask(&Request::Hello).run(Access::ReadOnly);
    assert!(matches!(&refused[0], Reply::Error(error) if error.cause.contains("not started to be promoted")));
    assert!(matches!(refused[1], Reply::Hello { access: Access::ReadOnly, .. }));

    let input = Input::default().ask(&Request::Promote).ask(&Request::Hello);
    let mut output = Vec::new();
    let promotion: super::Promotion = || std::io::Error::other("promoted");
    let ended = super::serve_link(
        Access::ReadOnly,
        Vec::new(),
        Some(promotion),
        None,
        super::Link::new(&input.0[..], &mut output),
    );
    assert!(ended.unwrap_err().to_string().contains("promoted"));
    // Nothing is answered after `Done`: what follows is for the agent that comes in its place.
    assert_eq!(String::from_utf8(output).unwrap().lines().count(), 1);
}

#[test]
fn an_agent_for_a_console_shows_facts_services_and_health_and_no_file() {
    let place = Place::new();
    std::fs::create_dir_all(place.root()).unwrap();
    std::fs::write(place.path("secret"), "planted").unwrap();
    let get = |socket: &str| Request::Http {
        socket: socket.into(),
        method: "GET".into(),
        path: "/readyz".into(),
        body: Secret::default(),
    };
    let manager = ServiceManager::Supervisor { root: place.root().display().to_string() };
    let denied = [
        Request::Check { tasks: vec![file(place.path("secret"), "x")] },
        Request::ReadFile { path: place.path("secret") },
        Request::Logs { name: "maxim-im".into(), manager: manager.clone(), lines: 5 },
        Request::Listen { address: "127.0.0.1".into(), ports: vec![0] },
        Request::Connect { targets: vec!["127.0.0.1:1".into()], measured: Vec::new(), timeout_ms: 10 },
        get("/run/maxim/admin.sock"),
        get("tcp:10.0.0.1:80"),
        // No page of health was named when this agent was started.
        get("tcp:127.0.0.1:9280"),
        Request::LockOwner,
        Request::RemoveSelf,
        Request::Promote,
    ];
    let mut input = Input::default().ask(&place.scope());
    for request in &denied {
        input = input.ask(request);
    }
    let replies = input
        .ask(&Request::Facts(FactsQuery::default()))
        .ask(&Request::Units { names: Vec::new(), manager })
        .run(Access::Observe);
    let refused =
        replies.iter().filter(|r| matches!(r, Reply::Error(e) if e.cause.contains("for a console"))).count();
    assert_eq!(refused, denied.len(), "{replies:?}");
    assert!(replies.iter().any(|reply| matches!(reply, Reply::Facts { .. })));
    assert!(matches!(replies.last(), Some(Reply::Done)));
    assert!(!format!("{replies:?}").contains("planted"));
}

#[test]
fn wrong_or_broken_content_leaves_nothing_and_the_talk_goes_on() {
    let place = Place::new();
    let (image, archive) = image(place.path("images/mariadb-1"));
    let mut flipped = archive.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let program = b"program".to_vec();
    let replies = Input::default()
        .ask(&place.scope())
        .ask(&Request::Apply { tasks: vec![image.clone()] })
        .content(&flipped)
        .ask(&Request::Apply { tasks: vec![binary(place.path("bin/im-1/maxim-im"), &program)] })
        .content(b"PROGRAM")
        .ask(&Request::Apply { tasks: vec![image.clone()] })
        .raw(b"{\"refused\":\"not in this bundle\"}\n")
        .ask(&Request::Hello)
        .run(Access::Full);
    let causes: Vec<&str> = replies
        .iter()
        .filter_map(|r| if let Reply::Error(e) = r { Some(e.cause.as_str()) } else { None })
        .collect();
    assert_eq!(causes.len(), 3, "{replies:?}");
    assert!(causes[1].contains("SHA-256") && causes[2].contains("not in this bundle"), "{causes:?}");
    assert!(matches!(replies[replies.len() - 2], Reply::Hello { .. }));
    assert!(
        names(&place.root().join("images")).is_empty() && names(&place.root().join("bin/im-1")).is_empty()
    );
    // The engine dies in the middle of the content.
    let replies = Input::default()
        .ask(&place.scope())
        .ask(&Request::Apply { tasks: vec![image] })
        .raw(format!("{{\"size\":{}}}\n", archive.len()).as_bytes())
        .raw(&archive[..archive.len() / 2])
        .run(Access::Full);
    assert!(changed(&replies).is_empty() && names(&place.root().join("images")).is_empty(), "{replies:?}");
}

#[test]
fn a_full_disk_is_said_and_leaves_no_scratch() {
    use nix::mount::{MsFlags, mount, umount};
    let place = Place::new();
    fs::create_dir_all(place.root()).unwrap();
    let options = Some("size=1m");
    if mount(Some("tmpfs"), &place.root(), Some("tmpfs"), MsFlags::empty(), options).is_err() {
        eprintln!("skipped: no right to mount a small file system");
        return;
    }
    let noise: Vec<u8> =
        (0..2_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(4 << 20).collect();
    let (mut big, archive) = image(place.path("images/x"));
    if let TaskKind::Image(body) = &mut big.kind {
        body.unpacked_size = 64 << 20;
    }
    let replies = Input::default()
        .ask(&place.scope())
        .ask(&Request::Apply { tasks: vec![big] })
        .ask(&Request::Apply { tasks: vec![binary(place.path("bin/x/maxim-im"), &noise)] })
        .content(&noise)
        .ask(&Request::Hello)
        .run(Access::Full);
    let (images, bin) = (names(&place.root().join("images")), names(&place.root().join("bin/x")));
    umount(&place.root()).unwrap();
    assert!(!archive.is_empty());
    assert!(cause(&replies).contains("are needed"), "{replies:?}");
    let second: Vec<&Reply> = replies.iter().filter(|r| matches!(r, Reply::Error(_))).collect();
    assert_eq!(second.len(), 2, "{replies:?}");
    assert!(matches!(second[1], Reply::Error(e) if e.hint.contains("is full: free space")), "{second:?}");
    assert!(matches!(replies[replies.len() - 2], Reply::Hello { .. }));
    assert!(images.is_empty() && bin.is_empty(), "{images:?} {bin:?}");
}

#[test]
fn the_lock_is_held_while_the_agent_lives() {
    let place = Place::new();
    let lock = |owner: &str| Request::Lock { cluster: "acme".into(), owner: owner.into(), lease_seconds: 30 };
    // The first agent waits at the end of a pipe while the second one asks.
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let (input, mut feeder) = std::io::pipe().unwrap();
    let first = std::thread::spawn(move || serve(Access::Full, input, &mut writer));
    let ask = Input::default().ask(&place.scope()).ask(&lock("anna")).0;
    std::io::Write::write_all(&mut feeder, &ask).unwrap();
    let mut seen = String::new();
    while seen.matches("\"done\"").count() < 2 {
        let mut buffer = [0; 1024];
        let count = reader.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let replies =
        Input::default().ask(&place.scope()).ask(&lock("ben")).ask(&Request::LockOwner).run(Access::Full);
    let Reply::Lock { granted: false, holder: Some(holder) } = &replies[1] else { panic!("{replies:?}") };
    assert_eq!((holder.owner.as_str(), holder.cluster.as_str()), ("anna", "acme"));
    drop(feeder);
    first.join().unwrap().unwrap();
    let replies = Input::default().ask(&place.scope()).ask(&lock("ben")).run(Access::Full);
    assert!(matches!(&replies[1], Reply::Lock { granted: true, .. }), "{replies:?}");
}

#[test]
fn files_are_read_only_below_our_own_folders() {
    let place = Place::new();
    fs::create_dir_all(place.root()).unwrap();
    fs::write(place.root().join("x"), "content").unwrap();
    let read = |path: String| Request::ReadFile { path };
    let replies = Input::default()
        .ask(&place.scope())
        .ask(&read(place.path("x")))
        .ask(&read(place.path("none")))
        .ask(&read("/etc/shadow".into()))
        .ask(&read(place.path("../../../etc/shadow")))
        .ask(&Request::Scope { own_paths: vec!["/etc".into()], lock: "/run/x.json".into() })
        .run(Access::ReadOnly);
    assert!(matches!(&replies[1], Reply::File { content: Some(content) } if content.expose() == "content"));
    assert!(matches!(&replies[3], Reply::File { content: None }));
    assert_eq!(replies.iter().filter(|r| matches!(r, Reply::Error(_))).count(), 3, "{replies:?}");
}
