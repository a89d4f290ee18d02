//! `backup create|list|verify|restore|drill|schedule|prune|key export`.

mod schedule;

use super::{Call, Outcome};
use crate::arguments::{BackupCommand, KeyCommand, RestoreArguments, RestorePart, Where};
use crate::cluster::{self, Needs, Session, Target};
use crate::failure::Failure;
use crate::messages::values;
use crate::passwords;
use crate::printer::style::{age, duration, size};
use crate::printer::table::{Align, render};
use maxim_engine::actions::install::InstallOptions;
use maxim_engine::backup::{self, Only, RecoverOptions, RestoreOptions, VerifyOptions};
use maxim_engine::{StateDir, actions};
use maxim_model::backup::{Repository, SetKind};
use maxim_model::names::Profile;
use maxim_model::topology::generate;
use serde_json::{Value as Json, json};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// `backup-feed SOCKET` (hidden): what restic runs for the stream of a snapshot.
pub(super) fn feed(arguments: &[OsString]) -> ExitCode {
    let [socket] = arguments else {
        return ExitCode::from(2);
    };
    match maxim_agent::backup::feed(Path::new(socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "backup-feed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one of them.
pub(super) fn run(call: &Call<'_>, command: BackupCommand) -> Outcome {
    match command {
        BackupCommand::Create { scheduled } => create(call, scheduled),
        BackupCommand::List => list(call),
        BackupCommand::Verify { share, wanted, deep } => verify(call, share, wanted, deep),
        BackupCommand::Restore(arguments) => restore(call, &arguments),
        BackupCommand::Drill { wanted } => drill(call, wanted.as_deref()),
        BackupCommand::Schedule { run: true, .. } => schedule::keep(call),
        BackupCommand::Schedule { once: true, .. } => schedule::once(call),
        BackupCommand::Schedule { .. } => schedule::show(call),
        BackupCommand::Prune => prune(call),
        BackupCommand::Key(KeyCommand::Export) => key_export(call),
    }
}

fn session(call: &Call<'_>) -> Result<Session, Failure> {
    let target = cluster::existing(call.global, call.printer)?;
    open(call, target)
}

/// A bundle is of use when restic is missing, and needed for nothing else.
fn open(call: &Call<'_>, target: Target) -> Result<Session, Failure> {
    let needs = if call.global.bundle.is_some() { Needs::Delivery } else { Needs::Nothing };
    cluster::session(call.global, target, needs, call.printer)
}

fn fields(value: &impl serde::Serialize) -> Json {
    serde_json::to_value(value).unwrap_or_else(|_| json!({}))
}

/// `2026-11-21 06:05 UTC`.
fn moment(unix: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(unix).map_or_else(
        |_| unix.to_string(),
        |at| {
            format!(
                "{:04}-{:02}-{:02} {:02}:{:02} UTC",
                at.year(),
                u8::from(at.month()),
                at.day(),
                at.hour(),
                at.minute()
            )
        },
    )
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

fn create(call: &Call<'_>, scheduled: bool) -> Outcome {
    let session = session(call)?;
    let messages = call.printer.messages();
    let kind = if scheduled { SetKind::Scheduled } else { SetKind::Manual };
    call.printer.show_phases();
    let made = backup::create(&session.context, kind);
    call.printer.run_ended();
    let outcome = made?;
    let mut text = messages.with(
        "backup-created",
        values![
            "set" => outcome.manifest.set.as_str(),
            "size" => size(outcome.manifest.bytes()),
            "added" => size(outcome.added),
            "time" => duration(outcome.duration_ms)
        ],
    );
    text.push('\n');
    if let Some((page, file)) = &outcome.kit {
        text.push_str(&messages.with(
            "backup-kit",
            values!["page" => page.display().to_string(), "file" => file.display().to_string()],
        ));
        text.push('\n');
    }
    call.printer.human(&text);
    if call.global.timings {
        call.printer.timings(&outcome.timings);
    }
    let mut shown = fields(&outcome);
    // The canary's password opens nothing that serves, but it is no business of a log.
    if let Some(manifest) = shown["manifest"].as_object_mut() {
        manifest.remove("canary");
    }
    shown["set"] = outcome.manifest.set.clone().into();
    shown["changes"] = 1.into();
    if scheduled {
        let pruned = backup::prune(&session.context, false)?;
        shown["pruned"] = fields(&pruned);
    }
    call.printer.result(0, shown);
    Ok(0)
}

fn list(call: &Call<'_>) -> Outcome {
    let session = session(call)?;
    let sets = backup::list(&session.context)?;
    let (messages, style) = (call.printer.messages(), call.printer.style());
    let mut rows = vec![vec![
        messages.text("column-set"),
        messages.text("column-point"),
        messages.text("column-kind"),
        messages.text("column-size"),
        messages.text("column-verified"),
        messages.text("column-proven"),
    ]];
    let since =
        |unix: i64| if unix > 0 { age(u64::try_from(now() - unix).unwrap_or(0)) } else { "-".to_owned() };
    for set in &sets {
        rows.push(vec![
            set.info.set.clone(),
            moment(set.info.point_unix),
            match set.info.kind {
                SetKind::Manual => messages.text("set-manual"),
                SetKind::Scheduled => messages.text("set-scheduled"),
                SetKind::Safety => messages.text("set-safety"),
            },
            size(set.bytes),
            since(set.info.verified_unix),
            since(set.info.proven_unix),
        ]);
    }
    if sets.is_empty() {
        call.printer.human(&format!("{}\n", messages.text("backup-none")));
    } else {
        let align = [Align::Left, Align::Left, Align::Left, Align::Right, Align::Right, Align::Right];
        call.printer.human(&render(&rows, &align, style));
    }
    call.printer.result(0, json!({ "changes": 0, "sets": sets }));
    Ok(0)
}

fn verify(call: &Call<'_>, share: u32, set: Option<String>, deep: bool) -> Outcome {
    let session = session(call)?;
    call.printer.show_phases();
    let done = backup::verify(&session.context, &VerifyOptions { percent: share, set, deep });
    call.printer.run_ended();
    let outcome = done?;
    let text = call.printer.messages().with(
        "backup-verified",
        values![
            "set" => outcome.set.as_str(),
            "percent" => outcome.percent as usize,
            "compared" => size(outcome.compared),
            "time" => duration(outcome.duration_ms)
        ],
    );
    call.printer.human(&format!("{text}\n"));
    let mut shown = fields(&outcome);
    shown["changes"] = 0.into();
    call.printer.result(0, shown);
    Ok(0)
}

fn prune(call: &Call<'_>) -> Outcome {
    let session = session(call)?;
    let outcome = backup::prune(&session.context, call.global.dry_run)?;
    let (messages, style) = (call.printer.messages(), call.printer.style());
    let mut rows = vec![vec![
        messages.text("column-set"),
        messages.text("column-point"),
        messages.text("column-verdict"),
    ]];
    for verdict in &outcome.verdicts {
        let word = if verdict.stays() {
            messages.with("prune-stays", values!["reasons" => verdict.reasons.join(", ")])
        } else {
            style.yellow(&messages.text("prune-goes"))
        };
        rows.push(vec![verdict.set.set.clone(), moment(verdict.set.point_unix), word]);
    }
    for set in &outcome.incomplete {
        rows.push(vec![set.clone(), "-".into(), style.yellow(&messages.text("prune-incomplete"))]);
    }
    let mut text = render(&rows, &[Align::Left, Align::Left, Align::Left], style);
    if call.global.dry_run {
        text.push_str(&format!("{}\n", messages.text("dry-run")));
    }
    call.printer.human(&text);
    let going = outcome.verdicts.iter().filter(|verdict| !verdict.stays()).count() + outcome.incomplete.len();
    let mut shown = fields(&outcome);
    shown["changes"] = going.into();
    call.printer.result(0, shown);
    Ok(0)
}

fn key_export(call: &Call<'_>) -> Outcome {
    let session = session(call)?;
    let key = backup::key_export(&session.context)?;
    let text = call.printer.messages().with(
        "backup-key",
        values![
            "repository" => key.repository.as_str(),
            "page" => key.page.display().to_string(),
            "file" => key.file.display().to_string()
        ],
    );
    // The password itself goes to a terminal or into JSON that somebody asked for, never into a log on the way.
    if call.printer.is_person() {
        call.printer.raw(format!("{text}\n{}\n", key.password.expose()).as_bytes());
    } else {
        call.printer.human(&format!("{text}\n"));
    }
    call.printer.result(
        0,
        json!({
            "changes": 0,
            "repository": key.repository,
            "password": key.password.expose(),
            "page": key.page,
            "file": key.file,
        }),
    );
    Ok(0)
}

fn drill(call: &Call<'_>, set: Option<&str>) -> Outcome {
    let session = session(call)?;
    call.printer.show_phases();
    let done = backup::drill(&session.context, set);
    call.printer.run_ended();
    let outcome = done?;
    let text = call.printer.messages().with(
        "backup-drilled",
        values![
            "set" => outcome.set.as_str(),
            "recovery" => duration(outcome.recovery_ms),
            "lost" => age(u64::try_from(outcome.lost_seconds).unwrap_or(0)),
            "tables" => outcome.tables,
            "rows" => outcome.rows as usize
        ],
    );
    call.printer.human(&format!("{text}\n"));
    let mut shown = fields(&outcome);
    shown["changes"] = 0.into();
    call.printer.result(0, shown);
    Ok(0)
}

fn restore(call: &Call<'_>, arguments: &RestoreArguments) -> Outcome {
    let options = RestoreOptions {
        set: arguments.wanted.clone(),
        only: match arguments.only {
            None => Only::All,
            Some(RestorePart::Database) => Only::Database,
            Some(RestorePart::Files) => Only::Files,
        },
        overwrite: arguments.overwrite,
        dry_run: call.global.dry_run,
        fresh: false,
        without_safety_set: arguments.without_safety_set,
    };
    if arguments.kit.is_some() {
        return rebuild(call, arguments, options);
    }
    let session = session(call)?;
    put_back(call, &session, &options)
}

fn put_back(call: &Call<'_>, session: &Session, options: &RestoreOptions) -> Outcome {
    let printer = call.printer;
    let messages = printer.messages();
    printer.show_phases();
    let done = backup::restore(&session.context, options);
    printer.run_ended();
    let outcome = done?;
    if !outcome.applied && !options.dry_run {
        if session.person.nobody_was_there() {
            return Err(Failure::usage(messages.text("nobody-to-ask"), messages.text("nobody-to-ask-hint")));
        }
        return Err(Failure::failed(messages.text("declined"), ""));
    }
    let mut text = String::new();
    if options.dry_run {
        text.push_str(&messages.with(
            "restore-would",
            values!["set" => outcome.preview.set.as_str(), "point" => outcome.preview.point.as_str()],
        ));
        text.push('\n');
        for one in &outcome.preview.overwrites {
            text.push_str(&format!(
                "  {}\n",
                messages.with(
                    "restore-overwrites",
                    values![
                        "part" => one.part.as_str(),
                        "host" => one.host.as_str(),
                        "size" => size(one.bytes)
                    ]
                )
            ));
        }
        text.push_str(&format!("{}\n", messages.text("dry-run")));
    } else {
        text.push_str(&messages.with(
            "restore-done",
            values![
                "set" => outcome.preview.set.as_str(),
                "point" => outcome.preview.point.as_str(),
                "tables" => outcome.tables,
                "rows" => outcome.rows as usize,
                "time" => duration(outcome.duration_ms),
                "stopped" => duration(outcome.stopped_ms)
            ],
        ));
        text.push('\n');
        if !outcome.safety_set.is_empty() {
            text.push_str(&messages.with("restore-safety", values!["set" => outcome.safety_set.as_str()]));
            text.push('\n');
        }
    }
    printer.human(&text);
    if call.global.timings {
        printer.timings(&outcome.timings);
    }
    let mut shown = fields(&outcome);
    shown["changes"] = usize::from(outcome.applied).into();
    printer.result(0, shown);
    Ok(0)
}

/// From a repository and its kit alone: the state first, then an install with it, then the data.
fn rebuild(call: &Call<'_>, arguments: &RestoreArguments, mut options: RestoreOptions) -> Outcome {
    let messages = call.printer.messages();
    let Some(path) = &arguments.kit else { return Err(Failure::usage("--kit is missing", "")) };
    let kit = backup::read_kit(path)?;
    let password = match &arguments.password_file {
        Some(file) => passwords::from_file(file, "--password-file")?,
        None if arguments.password_stdin => passwords::from_stdin()?,
        None => passwords::ask(&messages.text("ask-kit-password"), messages)?,
    };
    let root = cluster::root(call.global)?;
    let embedded = kit.profile == Profile::Embedded.name();
    let state = if embedded {
        StateDir::embedded(&root)
    } else {
        StateDir::of_cluster(&StateDir::default_clusters()?, &kit.cluster)
    };
    if call.global.dry_run {
        call.printer.human(&format!("{}\n", messages.text("dry-run")));
        call.printer.result(0, json!({ "changes": 0, "repository": kit.repository.location() }));
        return Ok(0);
    }
    let recovery = RecoverOptions { kit, password, set: arguments.wanted.clone() };
    // A run that was killed after this step finds the state, and goes on with what follows.
    options.set = match backup::rebuilding(&state, &recovery)? {
        // What is made of the new and empty cluster meanwhile is newer, and not what is wanted.
        Some(set) => Some(set),
        None => Some(recover(call, &recovery, &state, &root)?),
    };
    let mut global = call.global.clone();
    global.root = embedded.then(|| root.clone());
    let target = match &global.file {
        Some(_) => cluster::wanted(&global, &Where::default(), call.printer)?,
        None => {
            if !embedded {
                global.cluster = Some(name_of(&state));
            }
            cluster::existing(&global, call.printer)?
        }
    };
    let session = cluster::session(&global, target, Needs::Delivery, call.printer)?;
    call.printer.show_phases();
    let looked = backup::are_fresh(&session.context, options.overwrite);
    call.printer.run_ended();
    let fresh = looked?;
    call.printer.show_phases();
    let installed = actions::install(&session.context, InstallOptions { dry_run: false });
    call.printer.run_ended();
    if !installed?.applied {
        return Err(Failure::failed(messages.text("declined"), ""));
    }
    put_back(call, &session, &RestoreOptions { overwrite: fresh || options.overwrite, fresh, ..options })
}

/// The state of the cluster out of the repository; the set.
fn recover(
    call: &Call<'_>,
    recovery: &RecoverOptions,
    state: &StateDir,
    root: &Path,
) -> Result<String, Failure> {
    let messages = call.printer.messages();
    let kit = &recovery.kit;
    let embedded = kit.profile == Profile::Embedded.name();
    let work = if embedded { root.to_owned() } else { state.path().join("recovery") };
    let state_there = StateDir::at(work.join("recovery-state"));
    // A folder is on the host that keeps the repository; anything else is reached from here.
    let on_the_keeper = !embedded && matches!(kit.repository, Repository::Local { .. });
    let place = if on_the_keeper && call.global.file.is_some() {
        let target = cluster::wanted(call.global, &Where::default(), call.printer)?;
        Target { state: state_there, file: None, existing: false, ..target }
    } else {
        let text = generate::local(Profile::Embedded, &kit.cluster, "localhost", "127.0.0.1", &kit.domain);
        let loaded = cluster::load_text(call.global, &text, &work)?;
        Target { loaded, state: state_there, reason: String::new(), file: None, existing: false }
    };
    let session = open(call, place)?;
    let recovered = backup::recover_state(&session.context, recovery, state);
    // What restic needed on the way; none of it belongs to the cluster.
    let _ = std::fs::remove_dir_all(work.join("recovery-state"));
    if !embedded {
        let _ = std::fs::remove_dir_all(&work);
    }
    let manifest = recovered?;
    call.printer.aside(&format!(
        "{}\n",
        messages.with(
            "restore-state",
            values!["set" => manifest.set.as_str(), "path" => state.path().display().to_string()]
        )
    ));
    Ok(manifest.set)
}

fn name_of(state: &StateDir) -> String {
    state.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
