//! `status`: every host and component as measured now.

use super::{Call, Outcome};
use crate::cluster::{self, Needs};
use crate::messages::{Messages, values};
use crate::printer::Printer;
use crate::printer::style::{Style, age, duration, size};
use crate::printer::table::{Align, render};
use maxim_engine::actions;
use maxim_model::backup::BackupRecord;
use maxim_model::status::{ClusterStatus, ComponentStatus, Endpoints, Health};
use maxim_model::upgrade::{Phase, UpgradeStatus};
use serde_json::json;

/// Measures and shows.
pub(super) fn run(call: &Call<'_>) -> Outcome {
    let target = cluster::existing(call.global, call.printer)?;
    let session = cluster::session(call.global, target, Needs::Nothing, call.printer)?;
    let status = actions::status(&session.context)?;
    let broken = status.components.iter().filter(|component| component.health == Health::Broken).count()
        + status.hosts.iter().filter(|host| !host.reached).count();
    let unsure = status.components.iter().filter(|component| component.health != Health::Well).count();
    let code = if broken > 0 { 1 } else { call.code(unsure) };
    call.printer.human(&show(&status, call.printer));
    let mut fields = serde_json::to_value(&status).unwrap_or_else(|_| json!({}));
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("changes".to_owned(), json!(0));
    }
    call.printer.result(code, fields);
    Ok(code)
}

/// First line in words, then the figures, then what can be done.
fn show(status: &ClusterStatus, printer: &Printer) -> String {
    let (messages, style) = (printer.messages(), printer.style());
    let mut text = format!("{}\n\n", headline(status, messages, style));
    let mut rows = vec![vec![
        messages.text("column-host"),
        messages.text("column-address"),
        messages.text("column-system"),
        messages.text("column-memory-free"),
        messages.text("column-disk-free"),
    ]];
    for host in &status.hosts {
        if host.reached {
            rows.push(vec![
                host.host.clone(),
                host.address.clone(),
                messages.with(
                    "host-system",
                    values!["system" => host.distribution.as_str(), "cpus" => host.cpus as usize],
                ),
                format!("{} / {}", size(host.memory_available), size(host.memory_total)),
                format!("{} / {}", size(host.disk_available), size(host.disk_total)),
            ]);
        } else {
            rows.push(vec![
                host.host.clone(),
                host.address.clone(),
                style.red(&messages.with("host-away", values!["why" => host.error.as_str()])),
            ]);
        }
    }
    text.push_str(&render(
        &rows,
        &[Align::Left, Align::Left, Align::Left, Align::Right, Align::Right],
        style,
    ));
    text.push('\n');
    text.push_str(&components_table(&status.components, printer));
    text.push('\n');
    text.push_str(&endpoints(&status.endpoints, messages, style));
    if let Some(upgrade) = &status.upgrade {
        text.push_str(&upgrade_lines(upgrade, messages));
    }
    text.push_str(&backups(&status.backup, messages, style));
    text
}

/// Where the last upgrade stands.
fn upgrade_lines(upgrade: &UpgradeStatus, messages: &Messages) -> String {
    let phase = match upgrade.phase {
        Phase::Staging => "phase-upgrade-staging",
        Phase::Switching => "phase-upgrade-switching",
        Phase::RollingBack => "phase-upgrade-rolling-back",
        Phase::RolledBack => "phase-upgrade-rolled-back",
        Phase::Switched | Phase::Finalized => "phase-upgrade-switched",
        Phase::Finalizing => "phase-upgrade-finalizing",
    };
    let (from, to, phase) = (upgrade.from.as_str(), upgrade.to.as_str(), messages.text(phase));
    let mut text = format!(
        "\n{}\n",
        messages.with("status-upgrade", values!["from" => from, "to" => to, "phase" => phase])
    );
    if !upgrade.failure.is_empty() {
        let why = upgrade.failure.as_str();
        text.push_str(&format!("{}\n", messages.with("status-upgrade-failure", values!["why" => why])));
    }
    if upgrade.can_go_back {
        text.push_str(&format!("{}\n", messages.with("status-upgrade-back", values!["from" => from])));
    }
    text
}

/// Age of the last backup and of the last proven restore.
fn backups(record: &BackupRecord, messages: &Messages, style: Style) -> String {
    let since = |unix: i64| {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        age(u64::try_from(now - unix).unwrap_or(0))
    };
    let never = || style.yellow(&messages.text("status-backup-never"));
    let backup = record.backup.as_ref().map_or_else(never, |done| {
        messages.with(
            "status-backup-last",
            values!["age" => since(done.at_unix), "set" => done.set.as_str(), "size" => size(done.bytes)],
        )
    });
    let drill = record.drill.as_ref().map_or_else(never, |done| {
        messages.with(
            "status-drill-last",
            values![
                "age" => since(done.at_unix),
                "recovery" => duration(done.recovery_ms),
                "lost" => age(u64::try_from(done.lost_seconds).unwrap_or(0))
            ],
        )
    });
    let verify = record.verify.as_ref().map_or_else(never, |done| {
        messages.with("status-verify-last", values!["age" => since(done.at_unix), "set" => done.set.as_str()])
    });
    let mut text = format!(
        "\n{}: {backup}\n{}: {verify}\n{}: {drill}\n",
        messages.text("status-backup"),
        messages.text("status-verify"),
        messages.text("status-drill")
    );
    for failing in record.failing() {
        let words = messages.with(
            "status-backup-trouble",
            values![
                "age" => since(failing.at_unix),
                "times" => failing.times as usize,
                "trouble" => messages.own(&failing.cause)
            ],
        );
        text.push_str(&format!("{}\n", style.red(&words)));
    }
    text
}

fn headline(status: &ClusterStatus, messages: &Messages, style: Style) -> String {
    let away = status.hosts.iter().filter(|host| !host.reached).count();
    let count = |health: Health| status.components.iter().filter(|one| one.health == health).count();
    let stopped = status.components.iter().filter(|one| is_stopped(one)).count();
    let name = style.bold(&format!("{} ({})", status.cluster, status.domain));
    let all = status.components.len();
    let words = if away > 0 {
        style.red(&messages.with("status-away", values!["hosts" => away]))
    } else if all > 0 && stopped == all {
        style.yellow(&messages.text("status-stopped"))
    } else if count(Health::Broken) > 0 {
        style.red(&messages.with("status-broken", values!["components" => count(Health::Broken)]))
    } else if count(Health::Unknown) > 0 {
        style.yellow(&messages.with("status-unknown", values!["components" => count(Health::Unknown)]))
    } else if count(Health::Attention) + count(Health::Working) > 0 {
        style.yellow(&messages.text("status-attention"))
    } else {
        style.green(&messages.text("status-well"))
    };
    format!("{name}: {words}")
}

/// Stopped on purpose, not broken by itself.
fn is_stopped(component: &ComponentStatus) -> bool {
    component.health == Health::Broken
        && component.running.is_empty()
        && component.detail.starts_with("stopped")
}

/// State in a word and a colour.
pub(super) fn health(health: Health, messages: &Messages, style: Style) -> String {
    match health {
        Health::Well => style.green(&messages.text("health-well")),
        Health::Attention => style.yellow(&messages.text("health-attention")),
        Health::Broken => style.red(&messages.text("health-broken")),
        Health::Unknown => style.yellow(&messages.text("health-unknown")),
        Health::Working => style.cyan(&messages.text("health-working")),
    }
}

/// Components with versions and health.
pub(super) fn components_table(components: &[ComponentStatus], printer: &Printer) -> String {
    let (messages, style) = (printer.messages(), printer.style());
    let mut rows = vec![vec![
        messages.text("column-host"),
        messages.text("column-component"),
        messages.text("column-version"),
        messages.text("column-health"),
        messages.text("column-memory"),
        messages.text("column-since"),
        String::new(),
    ]];
    for one in components {
        let version = match (one.running.as_str(), one.wanted.as_str()) {
            ("", wanted) => wanted.to_owned(),
            (running, wanted) if running == wanted || wanted.is_empty() => running.to_owned(),
            (running, wanted) => {
                messages.with("version-differs", values!["running" => running, "wanted" => wanted])
            }
        };
        let runs = one.health != Health::Broken && one.health != Health::Unknown;
        let remark =
            if one.health == Health::Well && one.restarts == 0 { String::new() } else { one.detail.clone() };
        rows.push(vec![
            one.host.clone(),
            one.component.clone(),
            version,
            if is_stopped(one) {
                style.yellow(&messages.text("health-stopped"))
            } else {
                health(one.health, messages, style)
            },
            if one.memory > 0 { size(one.memory) } else { String::new() },
            if runs { age(one.since_seconds) } else { String::new() },
            remark,
        ]);
    }
    let align = [Align::Left, Align::Left, Align::Left, Align::Left, Align::Right, Align::Right, Align::Left];
    render(&rows, &align, style)
}

/// Where it is reached.
pub(super) fn endpoints(endpoints: &Endpoints, messages: &Messages, style: Style) -> String {
    let xmpp_tls: Vec<String> = endpoints.xmpp_tls.iter().map(|one| format!("{one} (TLS)")).collect();
    let xmpp: Vec<String> = endpoints.xmpp.iter().map(|one| format!("{one} (STARTTLS)")).collect();
    let lines = [
        (messages.text("endpoint-web"), endpoints.web.clone()),
        (messages.text("endpoint-xmpp"), [xmpp, xmpp_tls].concat()),
        (messages.text("endpoint-console"), endpoints.console.clone()),
    ];
    let width = lines.iter().map(|(name, _)| crate::printer::style::width(name)).max().unwrap_or(0);
    let mut text = String::new();
    for (name, values) in lines.iter().filter(|(_, values)| !values.is_empty()) {
        let padding = " ".repeat(width - crate::printer::style::width(name));
        let shown = if values.len() > 6 {
            format!("{} … (+{})", values[..6].join(", "), values.len() - 6)
        } else {
            values.join(", ")
        };
        text.push_str(&format!("{name}{padding}  {}\n", style.cyan(&shown)));
    }
    text
}
