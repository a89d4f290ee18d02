//! `/hosts` and `/hosts/NAME`: the machines, and what runs on each.

use super::App;
use super::list::{Column, ListQuery, worst_first};
use super::live::{ComponentRow, Fresh, Live};
use super::overview::{concern_detail, concern_title, free_of};
use super::page;
use super::visitor::Visitor;
use crate::status::judge;
use crate::view::format;
use crate::view::state::{self, Badge};
use crate::view::ui::{Section, Ui};
use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use maxim_model::status::{Health, HostStatus};
use std::cmp::Ordering;
use std::sync::Arc;

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/hosts", get(list)).route("/hosts/{name}", get(show))
}

#[derive(Template)]
#[template(path = "hosts.html")]
struct HostList {
    ui: Ui,
    fresh: Fresh,
    sentence: String,
    query: ListQuery,
    columns: Vec<Column>,
    rows: Vec<HostRow>,
    total: usize,
}

struct HostRow {
    state: Health,
    badge: Badge,
    name: String,
    link: String,
    address: String,
    components: String,
    system: String,
    cpus: u32,
    memory: String,
    memory_available: u64,
    disk: String,
    disk_available: u64,
    detail: String,
}

async fn list(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    Query(query): Query<ListQuery>,
) -> Response {
    let live = Live::look(&app, &visitor);
    let language = visitor.language;
    let all = live.status().map_or(&[][..], |status| status.hosts.as_slice());
    let mut rows: Vec<HostRow> = all
        .iter()
        .map(|host| row(&live, host))
        .filter(|row| query.wants(row.state, &[&row.name, &row.address, &row.components, &row.system]))
        .collect();
    query.sort(&mut rows, compare);
    let reached = all.iter().filter(|host| host.reached).count();
    let sentence = if live.fresh.stale || all.is_empty() {
        String::new()
    } else if reached == all.len() {
        language.say("hosts-all", &[("hosts", all.len().into())])
    } else {
        language.say("hosts-some", &[("away", (all.len() - reached).into()), ("hosts", all.len().into())])
    };
    let columns = query.columns(
        &visitor,
        "/hosts",
        &[
            ("state", "column-state", false),
            ("host", "column-host", false),
            ("address", "column-address", false),
            ("components", "column-components", false),
            ("system", "column-system", false),
            ("cpus", "column-cpus", true),
            ("memory", "column-memory-free", true),
            ("disk", "column-disk-free", true),
        ],
    );
    let total = all.len();
    let ui = Live::ui(&app, &visitor, Section::Hosts);
    page::render(StatusCode::OK, &HostList { ui, fresh: live.fresh, sentence, query, columns, rows, total })
}

fn row(live: &Live, host: &HostStatus) -> HostRow {
    let language = live.language;
    let health = live.status().map_or(Health::Unknown, |status| judge::host_state(status, host));
    let components: Vec<String> = live
        .status()
        .into_iter()
        .flat_map(|status| judge::components_on(status, &host.host))
        .map(|component| state::component_name(language, &component.component))
        .collect();
    let measured = |free: u64, total: u64| if total == 0 { String::new() } else { format::bytes(free) };
    HostRow {
        state: live.now(health),
        badge: live.badge(health),
        name: host.host.clone(),
        link: format!("/hosts/{}", page::encode(&host.host)),
        address: host.address.clone(),
        components: components.join(", "),
        system: host.distribution.clone(),
        cpus: host.cpus,
        memory: measured(host.memory_available, host.memory_total),
        memory_available: host.memory_available,
        disk: measured(host.disk_available, host.disk_total),
        disk_available: host.disk_available,
        detail: if host.reached { String::new() } else { host.error.clone() },
    }
}

fn compare(column: &str, a: &HostRow, b: &HostRow) -> Ordering {
    let by_name = || a.name.cmp(&b.name);
    match column {
        "host" => by_name(),
        "address" => a.address.cmp(&b.address).then_with(by_name),
        "components" => a.components.cmp(&b.components).then_with(by_name),
        "system" => a.system.cmp(&b.system).then_with(by_name),
        "cpus" => a.cpus.cmp(&b.cpus).then_with(by_name),
        "memory" => a.memory_available.cmp(&b.memory_available).then_with(by_name),
        "disk" => a.disk_available.cmp(&b.disk_available).then_with(by_name),
        _ => worst_first(a.state, b.state).then_with(by_name),
    }
}

#[derive(Template)]
#[template(path = "host.html")]
struct HostPage {
    ui: Ui,
    fresh: Fresh,
    name: String,
    badge: Badge,
    sentence: String,
    concerns: Vec<(String, String)>,
    facts: Vec<(String, String)>,
    components: Vec<ComponentRow>,
}

async fn show(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
) -> Response {
    let live = Live::look(&app, &visitor);
    let language = visitor.language;
    let Some(status) = live.status() else { return page::missing(&app, &visitor) };
    let Some(host) = status.hosts.iter().find(|host| host.host == name) else {
        return page::missing(&app, &visitor);
    };
    let components: Vec<ComponentRow> = judge::components_on(status, &host.host)
        .map(|component| ComponentRow::of(&live, component))
        .collect();
    let well = components.iter().filter(|row| row.state == Health::Well).count();
    let sentence = if live.fresh.stale {
        language.say("overview-stale", &[("ago", live.fresh.ago.clone().into())])
    } else if !host.reached {
        language.say("host-away", &[])
    } else if components.is_empty() {
        language.say("host-empty", &[])
    } else if well == components.len() {
        language.say("host-well", &[("components", components.len().into())])
    } else {
        language.say(
            "host-not-well",
            &[("wrong", (components.len() - well).into()), ("components", components.len().into())],
        )
    };
    let concerns = if live.fresh.stale {
        Vec::new()
    } else {
        judge::host_concerns(host)
            .into_iter()
            .map(|concern| (concern_title(language, host, concern), concern_detail(language, host, concern)))
            .collect()
    };
    let facts = [
        ("column-address", host.address.clone()),
        ("column-system", host.distribution.clone()),
        ("column-cpus", if host.cpus > 0 { host.cpus.to_string() } else { String::new() }),
        ("host-memory", free_of(language, host.memory_available, host.memory_total)),
        ("host-disk", free_of(language, host.disk_available, host.disk_total)),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| (language.say(key, &[]), value))
    .collect();
    let host_page = HostPage {
        ui: Live::ui(&app, &visitor, Section::Hosts),
        name: host.host.clone(),
        badge: live.badge(judge::host_state(status, host)),
        sentence,
        concerns,
        facts,
        components,
        fresh: live.fresh,
    };
    page::render(StatusCode::OK, &host_page)
}
