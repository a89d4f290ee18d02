//! `backup create|list|verify|restore|drill|schedule|prune|key export`.

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
use maxim_model::backup::SetKind;
use maxim_model::names::Profile;
use maxim_model::topology::generate;
use serde_json::{Value as Json, json};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

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
        BackupCommand::Schedule { run: true } => scheduler(call),
        BackupCommand::Schedule { run: false } => schedule(call),
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
fn rebuild(call: &Call<'_>, arguments: &RestoreArguments, options: RestoreOptions) -> Outcome {
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
    // A run that was killed after this step finds the state, and goes on with what follows.
    if state.topology()?.is_none() {
        let work = if embedded { root.clone() } else { state.path().join("recovery") };
        let text = generate::local(Profile::Embedded, &kit.cluster, "localhost", "127.0.0.1", &kit.domain);
        let place = Target {
            loaded: cluster::load_text(call.global, &text, &work)?,
            state: StateDir::at(work.join("recovery-state")),
            reason: String::new(),
            file: None,
            existing: false,
        };
        let session = open(call, place)?;
        let recovered = backup::recover_state(
            &session.context,
            &RecoverOptions { kit, password, set: arguments.wanted.clone() },
            &state,
        );
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
    }
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
    let installed = actions::install(&session.context, InstallOptions { dry_run: false });
    call.printer.run_ended();
    if !installed?.applied {
        return Err(Failure::failed(messages.text("declined"), ""));
    }
    put_back(call, &session, &RestoreOptions { overwrite: true, fresh: true, ..options })
}

fn name_of(state: &StateDir) -> String {
    state.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn schedule(call: &Call<'_>) -> Outcome {
    let session = session(call)?;
    let due = backup::due(&session.context)?;
    let messages = call.printer.messages();
    let topology = &session.context.topology.backup;
    let zone = if topology.time_zone.is_empty() { "UTC" } else { topology.time_zone.as_str() };
    let text = match due.next_unix {
        None => messages.text("schedule-none"),
        Some(next) => messages.with(
            "schedule-next",
            values!["schedule" => topology.schedule.as_str(), "zone" => zone, "next" => moment(next)],
        ),
    };
    call.printer.human(&format!("{text}\n"));
    if due.owed {
        call.printer.human(&format!("{}\n", messages.text("schedule-owed")));
    }
    call.printer.result(
        0,
        json!({
            "changes": 0, "schedule": topology.schedule, "time_zone": zone, "next_unix": due.next_unix,
            "owed": due.owed, "record": due.record,
        }),
    );
    Ok(0)
}

/// The keeper of the schedule in an embedded deployment, a service of our supervisor: every minute it looks whether a
/// run is owed (a missed one is), and has a process of its own make it. It holds nothing itself.
fn scheduler(call: &Call<'_>) -> Outcome {
    let program =
        std::env::current_exe().map_err(|error| Failure::failed(format!("own program: {error}"), ""))?;
    let mut failed_at = None;
    loop {
        // A schedule that cannot be read now may be right in a minute: it is said, and looked at again.
        let owed = session(call).and_then(|session| Ok(backup::due(&session.context)?));
        match owed {
            Ok(due) if due.owed && failed_at.is_none_or(|at| now() - at > 600 || now() < at) => {
                let mut command = Command::new(&program);
                command.args(["backup", "create", "--scheduled", "--yes", "--quiet", "--output", "json"]);
                if let Some(root) = &call.global.root {
                    command.arg("--root").arg(root);
                }
                let ended = command.stdin(Stdio::null()).status();
                let well = ended.as_ref().is_ok_and(std::process::ExitStatus::success);
                failed_at = (!well).then(now);
            }
            Ok(_) => {}
            Err(failure) => {
                let words =
                    failure.problems.first().map(|problem| problem.message.clone()).unwrap_or_default();
                let _ = writeln!(std::io::stderr(), "schedule: {words}");
            }
        }
        std::thread::sleep(Duration::from_secs(20));
    }
}
