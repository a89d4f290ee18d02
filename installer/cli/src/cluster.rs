//! Which cluster a command means, by which topology, and where to install from.
//!
//! `--file` names a topology; `--cluster` one that was installed before; `--nodelist` addresses. Without them
//! `install`, `check` and `plan` mean this machine, and every other command the only deployment there is.

use crate::arguments::{Global, Where};
use crate::ask::Person;
use crate::failure::Failure;
use crate::messages::values;
use crate::passwords;
use crate::printer::Printer;
use crate::signals;
use maxim_engine::{CancelFlag, Context, Delivery, OpenBundle, StateDir, Trust};
use maxim_model::names::Profile;
use maxim_model::topology::{self, AccessSecrets, Connection, Loaded, Source, generate};
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much a topology file may have; the parser says the rest.
const FILE_LIMIT: u64 = 4 << 20;

/// A cluster that was found, before anything is opened.
pub(crate) struct Target {
    /// Topology and the text to keep.
    pub loaded: Loaded,
    /// Its state.
    pub state: StateDir,
    /// Why this profile; empty when a file says it.
    pub reason: String,
    /// The file the topology came from, when it came from one.
    pub file: Option<PathBuf>,
    /// It is meant to be installed already.
    pub existing: bool,
}

/// Everything a command works with.
pub(crate) struct Session {
    /// For the engine.
    pub context: Context,
    /// Who is asked.
    pub person: Arc<Person>,
    /// Why this profile; empty when a file says it.
    pub reason: String,
}

/// What a command installs from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: it works on what runs.
    Nothing,
    /// Playbooks and contents, where they can be found.
    Delivery,
}

/// Finds the deployment that a command means which does not install.
pub(crate) fn existing(global: &Global, printer: &Printer) -> Result<Target, Failure> {
    let root = root(global)?;
    if let Some(file) = &global.file {
        return Ok(Target { existing: true, ..from_file(global, file, &root)? });
    }
    let messages = printer.messages();
    let clusters = StateDir::default_clusters()?;
    let embedded = StateDir::embedded(&root);
    let has_embedded = embedded.file("topology.yaml").is_file();
    let state = if let Some(name) = &global.cluster {
        named(name, &clusters, &root)?
    } else if global.root.is_some() {
        embedded
    } else {
        let names = StateDir::list(&clusters);
        match (has_embedded, names.as_slice()) {
            (true, []) => embedded,
            (false, [only]) => StateDir::of_cluster(&clusters, only),
            (false, []) => embedded,
            (_, names) => {
                let mut list: Vec<String> = names.to_vec();
                if has_embedded {
                    list.push(
                        messages.with("cluster-embedded", values!["root" => root.display().to_string()]),
                    );
                }
                return Err(Failure::usage(
                    messages.with("cluster-which", values!["names" => list.join(", ")]),
                    messages.text("cluster-which-hint"),
                ));
            }
        }
    };
    let Some(text) = state.topology()? else {
        return Err(Failure::failed(messages.text("cluster-none"), messages.text("cluster-none-hint")));
    };
    stored(global, state, &text, &root)
}

/// Finds or makes the topology for a command that installs.
pub(crate) fn wanted(global: &Global, hosts: &Where, printer: &Printer) -> Result<Target, Failure> {
    let root = root(global)?;
    if let Some(file) = &global.file {
        return from_file(global, file, &root);
    }
    if global.cluster.is_some() {
        return existing(global, printer);
    }
    if !hosts.nodelist.is_empty() {
        let text = generate::nodelist(&hosts.nodelist)?;
        let loaded = load(global, "--nodelist", &text, &root, Path::new("."))?;
        let state = StateDir::of_cluster(&StateDir::default_clusters()?, &loaded.topology.name);
        return Ok(Target { loaded, state, reason: String::new(), file: None, existing: false });
    }
    this_machine(global, hosts.profile.map(Profile::from), &root, printer)
}

/// Without a topology: this machine.
fn this_machine(
    global: &Global,
    asked: Option<Profile>,
    root: &Path,
    printer: &Printer,
) -> Result<Target, Failure> {
    let messages = printer.messages();
    // What was installed on this machine before is meant again, with what was set for it then.
    let embedded = StateDir::embedded(root);
    let clusters = StateDir::default_clusters()?;
    let local = StateDir::of_cluster(&clusters, "maxim");
    let candidates = [(Profile::Embedded, embedded.clone()), (Profile::Standard, local.clone())];
    for (profile, state) in candidates {
        if asked.is_some_and(|asked| asked != profile)
            || (profile == Profile::Standard && global.root.is_some())
        {
            continue;
        }
        if let Some(text) = state.topology()? {
            let mut target = stored(global, state, &text, root)?;
            let topology = &target.loaded.topology;
            let here = topology.hosts.iter().all(|host| host.connection == Connection::Local);
            if here && topology.profile == profile {
                target.reason = messages.text("reason-installed");
                return Ok(target);
            }
        }
    }
    let is_root = nix::unistd::geteuid().is_root();
    let systemd = Path::new("/run/systemd/system").is_dir();
    let bundle = find_bundle(global);
    let (profile, reason) = match asked {
        Some(profile) => (profile, messages.text("reason-asked")),
        None if global.root.is_some() => (Profile::Embedded, messages.text("reason-root-flag")),
        None if !is_root => (Profile::Embedded, messages.text("reason-not-root")),
        None if !systemd => (Profile::Embedded, messages.text("reason-no-systemd")),
        None => match &bundle {
            Some(path) => (
                Profile::Standard,
                messages.with("reason-standard", values!["bundle" => path.display().to_string()]),
            ),
            None => (Profile::Embedded, messages.text("reason-no-bundle")),
        },
    };
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let host = if host.is_empty() { "localhost".to_owned() } else { host.to_ascii_lowercase() };
    let (text, state) = match profile {
        Profile::Embedded => (generate::local(profile, "maxim", &host, "127.0.0.1", "localhost"), embedded),
        Profile::Standard => {
            let domain = if host.contains('.') { host.clone() } else { format!("{host}.internal") };
            (generate::local(profile, "maxim", &host, &own_address(), &domain), local)
        }
    };
    let loaded = load(global, "this machine", &text, root, Path::new("."))?;
    Ok(Target { loaded, state, reason, file: None, existing: false })
}

/// The address under which others reach this machine: its first IPv4 address that is not loopback.
fn own_address() -> String {
    nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            interface.address.and_then(|address| address.as_sockaddr_in().map(|v4| v4.ip()))
        })
        .find(|address| !address.is_loopback() && !address.is_link_local())
        .map_or_else(|| "127.0.0.1".to_owned(), |address| address.to_string())
}

/// A cluster by its name; the embedded deployment counts under the name in its topology.
fn named(name: &str, clusters: &Path, root: &Path) -> Result<StateDir, Failure> {
    if StateDir::list(clusters).iter().any(|other| other == name) {
        return Ok(StateDir::of_cluster(clusters, name));
    }
    let embedded = StateDir::embedded(root);
    if let Some(text) = embedded.topology()?
        && topology::load_stored(&text, &root.to_string_lossy()).is_ok_and(|topology| topology.name == name)
    {
        return Ok(embedded);
    }
    let names = StateDir::list(clusters);
    let hint = match topology::nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "no cluster was installed from here; name a topology with -f".to_owned(),
        None => format!("known here: {}", names.join(", ")),
    };
    Err(Failure::usage(format!("there is no cluster `{name}` here"), hint))
}

/// A cluster by what is kept of it, with the flags on top.
fn stored(global: &Global, state: StateDir, text: &str, root: &Path) -> Result<Target, Failure> {
    let name = state.file("topology.yaml").display().to_string();
    let loaded = load(global, &name, text, root, state.path())?;
    Ok(Target { loaded, state, reason: String::new(), file: None, existing: false })
}

/// A topology file.
fn from_file(global: &Global, file: &Path, root: &Path) -> Result<Target, Failure> {
    let text = read_topology(file)?;
    let base = folder_of(file)?;
    let loaded = load(global, &file.display().to_string(), &text, root, &base)?;
    let state = match loaded.topology.profile {
        Profile::Embedded => StateDir::embedded(root),
        Profile::Standard => StateDir::of_cluster(&StateDir::default_clusters()?, &loaded.topology.name),
    };
    Ok(Target { loaded, state, reason: String::new(), file: Some(file.to_owned()), existing: false })
}

/// The folder of a file, absolute.
pub(crate) fn folder_of(file: &Path) -> Result<PathBuf, Failure> {
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::path::absolute(folder).map_err(|error| Failure::file(folder, &error))
}

/// The text of a topology file.
pub(crate) fn read_topology(file: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let failed = |error: std::io::Error| Failure { code: 2, ..Failure::file(file, &error) };
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(FILE_LIMIT).read_to_end(&mut bytes))
        .map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.split(|byte| *byte == b'\n').count();
        let start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&good[start..]).chars().count() + 1;
        let mut failure = Failure::usage("not valid UTF-8", "save the file as UTF-8 text");
        failure.problems[0].place = format!("{}:{line}:{column}", file.display());
        failure.rendered = Some(format!(
            "error: not valid UTF-8\n --> {}:{line}:{column}\n  = hint: save the file as UTF-8 text\n",
            file.display()
        ));
        failure
    })
}

/// A topology that was made here, without what was set by flags.
pub(crate) fn load_text(global: &Global, text: &str, root: &Path) -> Result<Loaded, Failure> {
    let plain = Global { set: Vec::new(), ..global.clone() };
    load(&plain, "this machine", text, root, Path::new("."))
}

fn load(global: &Global, file: &str, text: &str, root: &Path, base: &Path) -> Result<Loaded, Failure> {
    let source = Source {
        file,
        text,
        sets: &global.set,
        environment: &|name| std::env::var(name).ok(),
        base,
        root: &root.to_string_lossy(),
    };
    Ok(topology::load(&source)?)
}

/// Where an embedded deployment lives, absolute.
pub(crate) fn root(global: &Global) -> Result<PathBuf, Failure> {
    const STANDARD: [&str; 5] =
        ["/opt/maxim", "/etc/maxim", "/var/lib/maxim", "/var/log/maxim", "/run/maxim"];
    let Some(root) = &global.root else {
        let clusters = StateDir::default_clusters()?;
        return Ok(clusters.parent().unwrap_or(&clusters).to_owned());
    };
    let absolute = std::path::absolute(root).map_err(|error| Failure::file(root, &error))?;
    let text = absolute.to_str().unwrap_or_default();
    let plain = !text.is_empty() && !text.chars().any(|c| c.is_control() || matches!(c, '"' | '\\'));
    if absolute.parent().is_none() || !plain {
        return Err(Failure::usage(
            format!("--root {}: an embedded deployment needs a folder of its own", root.display()),
            "name a folder that may be made and removed, as `--root ~/maxim`",
        ));
    }
    if STANDARD.iter().any(|path| absolute.starts_with(path)) {
        return Err(Failure::usage(
            format!("--root {}: that is a path of the standard profile", root.display()),
            "choose another folder; the default is ~/.local/share/maxim",
        ));
    }
    Ok(absolute)
}

/// The bundle that was named, else the only one beside the program.
fn find_bundle(global: &Global) -> Option<PathBuf> {
    if let Some(path) = &global.bundle {
        return Some(path.clone());
    }
    let program = std::env::current_exe().ok()?;
    let mut found: Vec<PathBuf> = std::fs::read_dir(program.parent()?)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some(OsStr::new("bundle")) && path.is_file())
        .collect();
    found.sort();
    if found.len() == 1 { found.pop() } else { None }
}

/// Opens what a command needs and puts it together for the engine.
pub(crate) fn session(
    global: &Global,
    target: Target,
    needs: Needs,
    printer: &Arc<Printer>,
) -> Result<Session, Failure> {
    let person = Arc::new(Person::new(Arc::clone(printer), global.yes));
    let cancel = CancelFlag::new();
    let said = Arc::clone(printer);
    signals::listen(&cancel, move || said.aside(&format!("\n{}\n", said.messages().text("interrupting"))));
    let program =
        std::env::current_exe().map_err(|error| Failure::failed(format!("own program: {error}"), ""))?;
    let mut context = Context {
        access: access(global, &target, printer)?,
        topology: target.loaded.topology.clone(),
        topology_text: target.loaded.text.clone(),
        delivery: Delivery::None,
        state: target.state.clone(),
        concurrency: usize::from(global.concurrency.max(1)),
        force: global.force.clone(),
        accept_state: global.accept_state,
        events: Arc::clone(printer) as Arc<dyn maxim_engine::EventSink>,
        ask: Arc::clone(&person) as Arc<dyn maxim_engine::Ask>,
        cancel,
        program,
        agent_socket: None,
    };
    // Installed from another control host: the console's host has the state.
    if target.existing && context.state.installed()?.is_none() {
        maxim_engine::state::copy::adopt(&context)?;
    }
    if needs == Needs::Delivery {
        context.delivery = delivery(global, &target, &person)?;
    }
    Ok(Session { context, person, reason: target.reason })
}

/// A bundle, or the programs of a checkout.
fn delivery(global: &Global, target: &Target, person: &Person) -> Result<Delivery, Failure> {
    let embedded = target.loaded.topology.profile == Profile::Embedded;
    let bin_dir = std::env::var_os("MAXIM_BIN_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    let web_root = std::env::var_os("MAXIM_WEB_ROOT").map(PathBuf::from).filter(|path| path.is_dir());
    if embedded
        && global.bundle.is_none()
        && let Some(bin_dir) = bin_dir
    {
        return Ok(Delivery::Checkout { bin_dir, web_root });
    }
    if let Some(path) = find_bundle(global) {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let developer = home.filter(|_| std::env::var_os("MAXIM_CHECKOUT").is_some());
        let trust = Trust {
            key_file: global.trust_key.clone(),
            developer_key: developer
                .map(|home| maxim_iso::sign::developer_folder(&home).join("developer.pub")),
        };
        return Ok(Delivery::Bundle(OpenBundle::open(&path, &target.state, &trust, person)?));
    }
    // Started from a build folder by hand (`cargo run`): the programs lie beside this one.
    let beside = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    match beside.filter(|folder| embedded && folder.join("maxim-im").is_file()) {
        Some(bin_dir) => Ok(Delivery::Checkout { bin_dir, web_root }),
        None => Ok(Delivery::None),
    }
}

/// Passwords for reaching hosts: asked for by flag, or in the files that the topology names.
fn access(global: &Global, target: &Target, printer: &Printer) -> Result<AccessSecrets, Failure> {
    let mut access = AccessSecrets::default();
    if global.ask_sudo_password {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage(
                printer.messages().text("password-nobody"),
                "name a file instead: `ssh: {sudo_password_file: …}`",
            ));
        }
        let password = passwords::ask(&printer.messages().text("ask-sudo-all"), printer.messages())?;
        access.sudo.insert(String::new(), password);
    }
    for host in &target.loaded.topology.hosts {
        let Connection::Ssh(ssh) = &host.connection else { continue };
        for (file, key, secrets) in [
            (&ssh.sudo_password_file, "sudo_password_file", &mut access.sudo),
            (&ssh.password_file, "password_file", &mut access.ssh),
        ] {
            if !file.is_empty() {
                let secret = passwords::from_file(Path::new(file), &format!("ssh.{key} of {}", host.name))?;
                secrets.insert(host.name.clone(), secret);
            }
        }
    }
    Ok(access)
}
