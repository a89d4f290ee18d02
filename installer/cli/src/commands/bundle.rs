//! `bundle build|verify|inspect`: offline delivery.

use super::{Call, Outcome, plan};
use crate::arguments::BundleCommand;
use crate::failure::Failure;
use crate::messages::values;
use crate::printer::Printer;
use crate::printer::style::{duration, size};
use crate::printer::table::{Align, render};
use crate::signals;
use maxim_engine::CancelFlag;
use maxim_iso::{BuildError, BuildOptions};
use maxim_model::bundle::{self, BundleError, PublicKey, Trust};
use serde_json::json;
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Exit code for a bundle that is broken or not trusted.
const REFUSED: u8 = 5;

/// Runs one of the three.
pub(super) fn run(call: &Call<'_>, command: BundleCommand) -> Outcome {
    match command {
        BundleCommand::Build { out, relock, key } => build(call, out, relock, key),
        BundleCommand::Verify { path } => verify(call, &path),
        BundleCommand::Inspect { path } => inspect(call, &path),
    }
}

fn home() -> Result<PathBuf, Failure> {
    std::env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|home| home.is_absolute())
        .ok_or_else(|| Failure::usage("HOME is not set", "set it to your home folder"))
}

fn build(call: &Call<'_>, out: Option<PathBuf>, relock: bool, key: Option<PathBuf>) -> Outcome {
    let Some(checkout) = std::env::var_os("MAXIM_CHECKOUT").map(PathBuf::from) else {
        return Err(Failure::usage(
            "a bundle is built in a checkout",
            "run `./maxim.ctl bundle build` in a clone of the project",
        ));
    };
    let home = home()?;
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from).join("maxim");
    let output = out.unwrap_or_else(|| PathBuf::from(BuildOptions::default_name()));
    let options = BuildOptions { checkout, output, cache, home, key, relock, mirror: None };
    let cancel = CancelFlag::new();
    let said = Arc::clone(call.printer);
    signals::listen(&cancel, move || said.aside(&format!("\n{}\n", said.messages().text("interrupting"))));
    let progress = Steps { printer: call.printer, cancel };
    let report = maxim_iso::build(&options, &progress).map_err(|error| {
        let hint = error.hint();
        let code = if progress.cancel.is_cancelled() { 130 } else { 1 };
        Failure::new(code, chain(&error), hint)
    })?;
    // Beside the bundle, so that it can be handed to whoever installs it.
    let mut public = report.path.clone().into_os_string();
    public.push(".pub");
    let public = PathBuf::from(public);
    plan::write_whole(&public, report.public_key.as_bytes(), 0o644)?;
    let messages = call.printer.messages();
    let mut text = String::new();
    for change in &report.relocked {
        text.push_str(&format!("  {change}\n"));
    }
    text.push_str(&messages.with(
        "bundle-built",
        values![
            "path" => report.path.display().to_string(),
            "size" => size(report.size),
            "sha256" => report.sha256.as_str(),
            "fingerprint" => report.fingerprint.as_str(),
            "public" => public.display().to_string(),
            "command" => format!("{} install -f cluster.yaml --bundle {}", super::install::program_name(), report.path.display()),
        ],
    ));
    text.push('\n');
    call.printer.human(&text);
    if call.global.timings {
        let timings: Vec<maxim_engine::Timing> = report
            .timings
            .iter()
            .map(|(step, time)| maxim_engine::Timing {
                phase: step.clone(),
                host: String::new(),
                duration_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            })
            .collect();
        call.printer.timings(&timings);
    }
    call.printer.result(
        0,
        json!({
            "path": report.path, "sha256": report.sha256, "size": report.size,
            "fingerprint": report.fingerprint, "public_key": report.public_key,
            "relocked": report.relocked, "manifest": report.manifest,
        }),
    );
    Ok(0)
}

/// Error with its causes, each once.
fn chain(error: &BuildError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Steps of a build on the printer.
struct Steps<'a> {
    printer: &'a Printer,
    cancel: CancelFlag,
}

impl maxim_iso::Progress for Steps<'_> {
    fn step(&self, step: &str) {
        self.printer.step(step, "");
    }

    fn detail(&self, step: &str, detail: &str) {
        self.printer.step(step, detail);
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// The key that must have signed: the given one, in a checkout the developer's, else the one that the bundle carries
/// (which proves that it is whole, not whose it is). True when the key was given from outside.
fn trust(call: &Call<'_>) -> Result<(Trust, bool), Failure> {
    if let Some(path) = &call.global.trust_key {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure { code: 2, ..Failure::file(path, &error) })?;
        let key = PublicKey::parse(&text).map_err(|error| {
            Failure::usage(format!("--trust-key {}: {error}", path.display()), error.hint())
        })?;
        return Ok((Trust::Keys(vec![key]), true));
    }
    if std::env::var_os("MAXIM_CHECKOUT").is_some()
        && let Some(key) = maxim_iso::sign::developer_public_key(&home()?)
    {
        return Ok((Trust::Keys(vec![key]), true));
    }
    Ok((Trust::Carried, false))
}

fn refused(path: &Path, error: &BundleError) -> Failure {
    let mut cause = error.to_string();
    if let Some(source) = error.source() {
        cause = format!("{cause}: {source}");
    }
    Failure::new(REFUSED, format!("{}: {cause}", path.display()), error.hint())
}

fn open(path: &Path) -> Result<std::fs::File, Failure> {
    std::fs::File::open(path).map_err(|error| Failure { code: 2, ..Failure::file(path, &error) })
}

fn verify(call: &Call<'_>, path: &Path) -> Outcome {
    let (trust, known) = trust(call)?;
    let input = std::io::BufReader::with_capacity(1 << 20, open(path)?);
    let started = std::time::Instant::now();
    let verified = bundle::verify(input, &trust, &mut |member, _| call.printer.step("verify", member))
        .map_err(|error| refused(path, &error))?;
    let messages = call.printer.messages();
    let fingerprint = verified.key.fingerprint();
    let time = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut text = messages.with(
        "bundle-good",
        values![
            "path" => path.display().to_string(),
            "version" => verified.manifest.version.as_str(),
            "architecture" => verified.manifest.architecture.as_str(),
            "members" => verified.manifest.members.len(),
            "size" => size(verified.size),
            "time" => duration(time),
            "fingerprint" => fingerprint.as_str(),
        ],
    );
    text.push('\n');
    if !known {
        text.push_str(&format!("{}\n", messages.text("bundle-own-key")));
    }
    call.printer.human(&text);
    call.printer.result(
        0,
        json!({
            "path": path, "version": verified.manifest.version, "architecture": verified.manifest.architecture,
            "manifest_sha256": verified.manifest_sha256, "fingerprint": fingerprint, "key_was_given": known,
            "size": verified.size, "members": verified.manifest.members.len(),
        }),
    );
    Ok(0)
}

fn inspect(call: &Call<'_>, path: &Path) -> Outcome {
    let (trust, _) = trust(call)?;
    let index = bundle::Index::read(open(path)?, &trust).map_err(|error| refused(path, &error))?;
    let messages = call.printer.messages();
    let manifest = index.manifest();
    let mut rows = vec![vec![
        messages.text("column-member"),
        messages.text("column-kind"),
        messages.text("column-version"),
        messages.text("column-size"),
        messages.text("column-unpacked"),
        messages.text("column-roles"),
        "SHA-256".to_owned(),
    ]];
    for member in &manifest.members {
        let kind = serde_json::to_value(member.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
        let roles: Vec<&str> = member.roles.iter().map(|role| role.name()).collect();
        rows.push(vec![
            member.path.clone(),
            kind.unwrap_or_default(),
            member.version.clone(),
            size(member.size),
            if member.unpacked_size == member.size { String::new() } else { size(member.unpacked_size) },
            roles.join(" "),
            member.sha256.get(..12).unwrap_or(&member.sha256).to_owned(),
        ]);
    }
    let align = [Align::Left, Align::Left, Align::Left, Align::Right, Align::Right, Align::Left, Align::Left];
    let head = messages.with(
        "bundle-head",
        values![
            "version" => manifest.version.as_str(),
            "architecture" => manifest.architecture.as_str(),
            "size" => size(index.size()),
            "fingerprint" => index.key().fingerprint(),
        ],
    );
    call.printer.human(&format!("{head}\n\n{}", render(&rows, &align, call.printer.style())));
    call.printer.result(
        0,
        json!({
            "path": path, "size": index.size(), "manifest": manifest, "manifest_sha256": index.manifest_sha256(),
            "fingerprint": index.key().fingerprint(),
        }),
    );
    Ok(0)
}
