//! The authoritative copy of a cluster's state, on the host of its console: `DATA/cluster/state.json`, and beside it
//! `generation.json`, which says which generation that is and holds no secret. Both are root's alone (0600 in 0700).
//!
//! Steps: every run looks at the generation when it has connected ([`look`], one small request). When the copy is newer
//! than what lies on this control host, the local files are replaced by it; a run that goes on from older ones is ended
//! ([`ADOPTED`]: begin anew at once; [`STALE`]: refused, a person decides). A run that changes something looks again
//! under the hosts' locks ([`hold`]), and writes the copy before and after it changes anything else ([`publish`]).
//!
//! What it deliberately does not do: keep the journal or the tasks that lead back after an upgrade, which belong to the
//! control host that did it; keep a copy in the embedded profile, whose state lies on its one host already; take over
//! keys, addresses, files or an authority that nobody here confirmed ([`trust`]).

mod content;
mod pins;
mod trust;

use content::{BUNDLE_KEY, FILES, Files, HOST_KEYS, INSTALLED, REPLACEMENT};

use super::StateDir;
use crate::context::Context;
use crate::error::EngineError;
use crate::events::now_rfc3339;
use crate::files;
use crate::phases::connect;
use crate::remote::{Agent, Mode};
use crate::run::{Run, Session};
use maxim_model::Secret;
use maxim_model::names::{Profile, Role, Stage};
use maxim_model::task::{DirectoryTask, FileTask, Task, TaskKind};
use maxim_model::topology::Topology;
use maxim_model::wire::{Reply, Request};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The step of the error of a run that must begin anew with what was taken from the copy.
pub const ADOPTED: &str = "state.adopted";
/// The step of the error of a run that wanted to change a cluster from an older state than its own.
pub const STALE: &str = "state.stale";

/// The step of the error of a run that would have had to take over what a person must confirm.
pub const UNCONFIRMED: &str = "state.unconfirmed";

/// The local file that says which generation lies here; the same name on the host.
const HEAD: &str = "generation.json";
const FORMAT: u32 = 1;
const REQUEST: Duration = Duration::from_secs(15);
/// An agent reads back files up to 1 MiB; certificates of some two hundred hosts are below this.
const LIMIT: usize = 1 << 20;

/// Which state this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    format: u32,
    /// Random, made with the first generation: an installation after a purge is another one.
    id: String,
    /// Counts what was written; never goes back.
    generation: u64,
    /// Who wrote it, as `anna@control, pid 812, install`.
    by: String,
    /// RFC 3339.
    at: String,
    /// SHA-256 of what it names, hex.
    digest: String,
}

/// What a run has seen of the copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Somebody has looked; else nothing is known.
    pub looked: bool,
    /// None: there is no copy.
    pub head: Option<Head>,
}

/// What stands in `state.json` of the copy.
#[derive(Serialize, Deserialize)]
struct Copy {
    head: Head,
    files: Files,
}

impl Head {
    fn load(state: &StateDir) -> Result<Option<Self>, EngineError> {
        // One that is not understood is none: the copy is then looked at as a whole.
        Ok(files::read_optional(&state.file(HEAD))?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    fn save(&self, state: &StateDir) -> Result<(), EngineError> {
        files::write_whole(&state.file(HEAD), text_of(self)?.as_bytes(), 0o600)
    }
}

/// Whether what is on the host follows what lies here.
fn is_newer(host: &Head, here: Option<&Head>) -> bool {
    here.is_none_or(|here| here.id != host.id || here.generation < host.generation)
}

/// Looks at the generation on the console's host.
pub(crate) fn look(run: &Run<'_>, sessions: &mut [Session<'_>]) -> Result<(), EngineError> {
    let context = run.context;
    let Some(session) = keeper(context, sessions) else { return Ok(()) };
    let host = session.host.name.clone();
    let Some(agent) = session.reader.as_mut().filter(|agent| !agent.is_limited()) else { return Ok(()) };
    let found = match head(agent, &context.topology) {
        Ok(found) => found,
        Err(error) => {
            // Whoever only looks is not kept from it; whoever changes something looks again under the lock.
            run.emitter.warn(&host, "state", error.cause, error.hint);
            return Ok(());
        }
    };
    run.seen_copy(found.clone());
    let Some(found) = found else { return Ok(()) };
    let here = Head::load(&context.state)?;
    if !is_newer(&found, here.as_ref()) {
        return Ok(());
    }
    // A run that changes something holds this lock already. Else somebody here may be in the middle of writing.
    let guard = context.state.lock(&super::owner("state"));
    if guard.is_err() && (!run.writes() || run.tolerates_newer_state()) {
        return Ok(());
    }
    let Some(copy) = read(agent, &context.topology)? else { return Ok(()) };
    run.seen_copy(Some(copy.head.clone()));
    let mine = Files::whole(&context.state)?;
    if copy.files == mine.published() {
        // Written from here by a run that ended before it could note that.
        return copy.head.save(&context.state);
    }
    let had = here.is_some() || mine.0.contains_key(INSTALLED);
    trust::refuse_other_pins(context, &mine, &copy, &host)?;
    let unconfirmed = trust::differences(context, &mine, &copy.files);
    if !unconfirmed.is_empty() && !context.accept_state {
        let refusal = trust::refusal(&copy, &unconfirmed, &host);
        if run.changes_nothing() {
            run.emitter.warn(&host, "state", refusal.cause, refusal.hint);
            return Ok(());
        }
        return Err(refusal);
    }
    let replaced = mine.topology().filter(|text| copy.files.topology() != Some(text));
    if let Some(text) = replaced.filter(|_| had) {
        files::write_whole(&context.state.file("topology.yaml.replaced"), text.as_bytes(), 0o600)?;
    }
    copy.files.with_pins_of(&mine).write(&context.state)?;
    copy.head.save(&context.state)?;
    let number = here.map_or_else(|| "none".to_owned(), |here| here.generation.to_string());
    let what = format!(
        "the state of this cluster here was of generation {number}; generation {} was written by {} at {}, and was fetched from {host}",
        copy.head.generation,
        copy.head.by.escape_debug(),
        copy.head.at.escape_debug()
    );
    // Whoever took over other hosts begins anew with those.
    if run.tolerates_newer_state() && unconfirmed.is_empty() {
        run.emitter.note(&host, "state", what);
        return Ok(());
    }
    let same = copy.files.topology() == Some(context.topology_text.as_str());
    if !had || same || !run.writes() || run.tolerates_newer_state() {
        run.emitter.note(&host, "state", what.clone());
        return Err(EngineError::refused(ADOPTED, what).on(&host).hint("run the command again"));
    }
    Err(EngineError::refused(STALE, what).on(&host).hint(
        "nothing was changed; your topology is not the one that was applied last: compare them with `maxim.ctl plan`, then run the command again",
    ))
}

/// Looks again under the hosts' locks: somebody may have written since.
pub(crate) fn hold(run: &Run<'_>, sessions: &mut [Session<'_>]) -> Result<(), EngineError> {
    let context = run.context;
    let Some(session) = keeper(context, sessions) else { return Ok(()) };
    let host = session.host.name.clone();
    let Some(agent) = session.writer.as_mut().filter(|agent| !agent.is_limited()) else { return Ok(()) };
    let now = head(agent, &context.topology)?;
    let seen = run.copy_seen();
    let same = if seen.looked {
        now == seen.head
    } else {
        // The host was not there to be looked at when this run connected.
        let here = Head::load(&context.state)?;
        now.as_ref().is_none_or(|now| !is_newer(now, here.as_ref()))
    };
    if same {
        return Ok(());
    }
    let who = now.map_or_else(
        || "it is gone".to_owned(),
        |now| {
            let (by, at) = (now.by.escape_debug(), now.at.escape_debug());
            format!("generation {} was written by {by} at {at}", now.generation)
        },
    );
    Err(EngineError::refused(
        STALE,
        format!("the state of this cluster changed while this run was looking: {who}"),
    )
    .on(host)
    .hint("nothing was changed; run the command again"))
}

/// Writes the copy when the state here differs from it.
pub(crate) fn publish(run: &Run<'_>, sessions: &mut [Session<'_>]) -> Result<(), EngineError> {
    publish_files(run, sessions, Files::of(&run.context.state)?)
}

/// The same between the parts of an action, when no host is connected: connects and locks the console's host alone.
pub(crate) fn publish_now(context: &Context, action: &str) -> Result<(), EngineError> {
    let Some(only) = keepers_part(context) else { return Ok(()) };
    publish_by(&Run::begin(&only, action, true)?)
}

fn publish_by(run: &Run<'_>) -> Result<(), EngineError> {
    let _control = run.context.state.lock(&super::owner(run.action()))?;
    let mut sessions = connect::connect(run)?;
    let done = match connect::errors(&mut sessions) {
        Some(error) => Err(error),
        None => {
            connect::lock_hosts(run, &mut sessions, run.action()).and_then(|()| publish(run, &mut sessions))
        }
    };
    connect::release(&mut sessions);
    done
}

/// Writes the copy of a cluster whose services are removed and whose data stays.
pub(crate) fn publish_uninstalled(run: &Run<'_>, sessions: &mut [Session<'_>]) -> Result<(), EngineError> {
    let mut files = Files::of(&run.context.state)?;
    files.0.remove(INSTALLED);
    files.0.remove("upgrade.json");
    files.0.remove(REPLACEMENT);
    publish_files(run, sessions, files)
}

fn publish_files(run: &Run<'_>, sessions: &mut [Session<'_>], files: Files) -> Result<(), EngineError> {
    let context = run.context;
    let Some(session) = keeper(context, sessions) else { return Ok(()) };
    let host = session.host.name.clone();
    let Some(agent) = session.writer.as_mut().filter(|agent| !agent.is_limited()) else { return Ok(()) };
    let (here, there) = (Head::load(&context.state)?, run.copy_seen().head);
    let digest = files.digest();
    if there.as_ref().is_some_and(|there| there.digest == digest && Some(there) == here.as_ref()) {
        return Ok(());
    }
    let known = here.iter().chain(&there).map(|head| head.generation).max();
    let id = there.or(here).map_or_else(|| format!("{:032x}", rand::random::<u128>()), |head| head.id);
    let head = Head {
        format: FORMAT,
        id,
        generation: known.unwrap_or(0) + 1,
        by: super::owner(run.action()),
        at: now_rfc3339(),
        digest,
    };
    let copy = text_of(&Copy { head: head.clone(), files })?;
    if copy.len() > LIMIT {
        return Err(EngineError::failed(
            "state",
            format!("the state has {} bytes; a host keeps {LIMIT}", copy.len()),
        )
        .on(host)
        .hint("please report this with the number of hosts"));
    }
    // The head last: what it names is there when it can be seen.
    let (folder, state, generation) = places(&context.topology);
    let tasks = vec![
        task(
            "folder",
            TaskKind::Directory(DirectoryTask {
                path: folder,
                owner: "root".into(),
                group: "root".into(),
                mode: "0700".into(),
            }),
        ),
        file("state", state, copy),
        file("generation", generation, text_of(&head)?),
    ];
    agent.request("state", &Request::Apply { tasks }, REQUEST, |_| {})?;
    run.seen_copy(Some(head.clone()));
    head.save(&context.state)
}

/// Fetches the state of a cluster that was installed from elsewhere, for a command that needs one and has a topology:
/// asks the console's host alone. False: there is none, or the host cannot be reached. A bare host is left as it was.
pub fn adopt(context: &Context) -> Result<bool, EngineError> {
    let Some(only) = keepers_part(context) else { return Ok(false) };
    adopt_with(&Run::begin(&only, "adopt", false)?, context)
}

/// `context`: with the whole topology; the run's has the console's host alone.
fn adopt_with(run: &Run<'_>, context: &Context) -> Result<bool, EngineError> {
    let Some(host) = run.context.topology.hosts.first() else { return Ok(false) };
    let Ok(mut connected) = run.connect(host) else { return Ok(false) };
    let Ok(mut agent) = connected.agent(Mode::Look) else { return Ok(false) };
    run.scope(&mut agent)?;
    let copy = read(&mut agent, &context.topology)?;
    if copy.is_none() && connected.agent_bytes_sent() > 0 {
        agent.request("state", &Request::RemoveSelf, REQUEST, |_| {})?;
    }
    agent.finish(Duration::from_secs(2));
    let Some(copy) = copy else { return Ok(false) };
    let _control = context.state.lock(&super::owner("state"))?;
    let mine = Files::whole(&context.state)?;
    trust::refuse_other_pins(context, &mine, &copy, &host.name)?;
    let unconfirmed = trust::differences(context, &mine, &copy.files);
    // There is nothing here to go on with, so whoever only looks is refused too.
    if !unconfirmed.is_empty() && !context.accept_state {
        return Err(trust::refusal(&copy, &unconfirmed, &host.name));
    }
    copy.files.with_pins_of(&mine).write(&context.state)?;
    copy.head.save(&context.state)?;
    Ok(context.state.installed()?.is_some())
}

/// A context with nothing but the host that keeps the copy; none where there is no copy to be kept.
fn keepers_part(context: &Context) -> Option<Context> {
    let mut only = context.clone();
    only.topology.hosts.retain(|host| host.roles.contains(&Role::Console));
    only.topology.hosts.truncate(1);
    (only.topology.profile != Profile::Embedded && !only.topology.hosts.is_empty()).then_some(only)
}

/// The session of the host that keeps the copy; none where there is no copy to be kept. The console itself looks by an
/// agent that reads no files, at a state that is made for it.
fn keeper<'s, 'a>(context: &Context, sessions: &'s mut [Session<'a>]) -> Option<&'s mut Session<'a>> {
    // The host that makes backups by the schedule works with what an install handed it, and writes no state.
    if context.state.file(crate::backup::HANDED_OVER).is_file() {
        return None;
    }
    if context.topology.profile == Profile::Embedded || context.agent_socket.is_some() {
        return None;
    }
    sessions.iter_mut().find(|session| session.host.roles.contains(&Role::Console))
}

/// Folder, copy and head on the host.
fn places(topology: &Topology) -> (String, String, String) {
    let folder = format!("{}/cluster", topology.paths.data);
    let (state, head) = (format!("{folder}/{INSTALLED}"), format!("{folder}/{HEAD}"));
    (folder, state, head)
}

fn head(agent: &mut Agent, topology: &Topology) -> Result<Option<Head>, EngineError> {
    text(agent, places(topology).2)?.map(|text| understood(agent, &text)).transpose()
}

fn read(agent: &mut Agent, topology: &Topology) -> Result<Option<Copy>, EngineError> {
    let Some(text) = text(agent, places(topology).1)? else { return Ok(None) };
    let copy: Copy = understood(agent, &text)?;
    let strange = copy.files.0.keys().find(|name| !FILES.contains(&name.as_str()));
    if let Some(name) = strange {
        return Err(EngineError::refused(
            "state",
            format!("the copy of the state holds `{}`", name.escape_debug()),
        )
        .on(agent.host())
        .hint("it was written by a newer version of Maxim: use that"));
    }
    if copy.head.digest != copy.files.digest() || copy.files.topology().is_none() {
        return Err(EngineError::refused("state", "the copy of the state is damaged")
            .on(agent.host())
            .hint("look at the disk of that host; the control host that worked last has the same state"));
    }
    Ok(Some(copy))
}

fn understood<T: for<'de> Deserialize<'de>>(agent: &Agent, text: &Secret) -> Result<T, EngineError> {
    serde_json::from_str(text.expose()).map_err(|error| {
        EngineError::refused("state", format!("the copy of the state is not understood: {error}"))
            .on(agent.host())
            .hint("it was written by a newer version of Maxim, or it is damaged: use that version, or look at the disk")
    })
}

fn text(agent: &mut Agent, path: String) -> Result<Option<Secret>, EngineError> {
    agent.ask("state", &Request::ReadFile { path }, REQUEST, |reply| match reply {
        Reply::File { content } => Some(content),
        _ => None,
    })
}

fn text_of(value: &impl Serialize) -> Result<String, EngineError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| EngineError::failed("state", error.to_string()))
}

fn file(name: &str, path: String, content: String) -> Task {
    task(
        name,
        TaskKind::File(FileTask {
            path,
            content: Secret::new(content),
            sensitive: true,
            owner: "root".into(),
            group: "root".into(),
            mode: "0600".into(),
            only_if_absent: false,
        }),
    )
}

fn task(name: &str, kind: TaskKind) -> Task {
    Task {
        id: format!("state/{name}"),
        component: "host".into(),
        stage: Stage::Prepare,
        restarts: Vec::new(),
        reloads: Vec::new(),
        deadline_seconds: REQUEST.as_secs(),
        kind,
    }
}

#[cfg(test)]
mod tests;
