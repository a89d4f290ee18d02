//! `/`: is all well? One sentence, what is wrong, then figures and where people connect.

use super::App;
use super::live::{Fresh, Live};
use super::page;
use super::visitor::Visitor;
use crate::i18n::Language;
use crate::status::judge::{self, Freshness, HostConcern};
use crate::view::format;
use crate::view::state::{self, Badge};
use crate::view::ui::{Section, Ui};
use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use maxim_model::status::{ClusterStatus, Endpoints, Health, HostStatus};
use std::sync::Arc;

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/", get(show))
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    ui: Ui,
    fresh: Fresh,
    badge: Badge,
    sentence: String,
    problems: Vec<Problem>,
    figures: Vec<Figure>,
    endpoints: Vec<(String, Vec<Address>)>,
    domain: String,
}

/// Something that is not well.
struct Problem {
    state: Health,
    badge: Badge,
    what: String,
    why: String,
    link: String,
}

/// A number with its unit and what it means.
struct Figure {
    name: String,
    value: String,
    note: String,
    link: &'static str,
}

/// An address people connect to.
struct Address {
    text: String,
    is_link: bool,
}

async fn show(State(app): State<Arc<App>>, Extension(visitor): Extension<Visitor>) -> Response {
    let live = Live::look(&app, &visitor);
    let language = visitor.language;
    let state = match (live.fresh.freshness, live.status()) {
        (Freshness::Fresh, Some(status)) => judge::cluster_state(status),
        (Freshness::Waiting, _) => Health::Working,
        _ => Health::Unknown,
    };
    let problems = live.status().map(|status| problems(language, status)).unwrap_or_default();
    let sentence = sentence(&live, state, &problems);
    let (figures, endpoints, domain) = live
        .status()
        .map(|status| {
            (figures(language, status), endpoints(language, &status.endpoints), status.domain.clone())
        })
        .unwrap_or_default();
    let overview = Overview {
        ui: Live::ui(&app, &visitor, Section::Overview),
        badge: state::badge(language, state),
        sentence,
        // What was wrong when the figures were fresh may be mended or worse now.
        problems: if live.fresh.stale { Vec::new() } else { problems },
        figures,
        endpoints,
        domain,
        fresh: live.fresh,
    };
    page::render(StatusCode::OK, &overview)
}

/// The answer to "is all well?" in one sentence.
fn sentence(live: &Live, state: Health, problems: &[Problem]) -> String {
    let language = live.language;
    let status = match (live.fresh.freshness, live.status()) {
        (Freshness::Waiting, _) => return language.say("overview-waiting", &[]),
        (Freshness::Stale, Some(_)) => {
            return language.say("overview-stale", &[("ago", live.fresh.ago.clone().into())]);
        }
        (Freshness::Fresh, Some(status)) => status,
        _ => return language.say("overview-never", &[]),
    };
    if status.components.is_empty() || status.hosts.is_empty() {
        return language.say("overview-empty", &[]);
    }
    let first = problems.iter().find(|problem| problem.state == state).map_or("", |problem| &problem.what);
    let arguments = [("first", first.to_owned().into()), ("more", problems.len().saturating_sub(1).into())];
    match state {
        Health::Well => language.say(
            "overview-well",
            &[("components", status.components.len().into()), ("hosts", status.hosts.len().into())],
        ),
        Health::Attention => language.say("overview-attention", &arguments),
        Health::Broken => language.say("overview-broken", &arguments),
        Health::Unknown => language.say("overview-unknown", &arguments),
        Health::Working => language.say("overview-working", &arguments),
    }
}

/// Everything that is not well, the worst first. What runs on a host that does not answer is told by the host alone.
fn problems(language: Language, status: &ClusterStatus) -> Vec<Problem> {
    let mut problems = Vec::new();
    for host in &status.hosts {
        for concern in judge::host_concerns(host) {
            let state = if concern == HostConcern::NotReached { Health::Broken } else { Health::Attention };
            problems.push(Problem {
                state,
                badge: state::badge(language, state),
                what: concern_title(language, host, concern),
                why: concern_detail(language, host, concern),
                link: format!("/hosts/{}", page::encode(&host.host)),
            });
        }
    }
    for component in &status.components {
        let state = judge::component_state(component);
        let host_away = status.hosts.iter().any(|host| host.host == component.host && !host.reached);
        if state == Health::Well || (host_away && state == Health::Unknown) {
            continue;
        }
        let name = state::component_name(language, &component.component);
        let what = language
            .say("problem-component", &[("component", name.into()), ("host", component.host.clone().into())]);
        let why = if component.health == Health::Well && judge::differs(component) {
            language.say(
                "problem-version",
                &[("running", component.running.clone().into()), ("wanted", component.wanted.clone().into())],
            )
        } else {
            component.detail.clone()
        };
        problems.push(Problem {
            state,
            badge: state::badge(language, state),
            what,
            why,
            link: format!("/hosts/{}", page::encode(&component.host)),
        });
    }
    problems.sort_by_key(|problem| std::cmp::Reverse(judge::rank(problem.state)));
    problems
}

/// A host's concern, in a few words.
pub(super) fn concern_title(language: Language, host: &HostStatus, concern: HostConcern) -> String {
    let arguments = [("host", host.host.clone().into())];
    match concern {
        HostConcern::NotReached => language.say("problem-host-away", &arguments),
        HostConcern::DiskNearlyFull => language.say("problem-disk", &arguments),
        HostConcern::MemoryNearlyFull => language.say("problem-memory", &arguments),
    }
}

/// A host's concern, with the measured values.
pub(super) fn concern_detail(language: Language, host: &HostStatus, concern: HostConcern) -> String {
    let (free, total) = match concern {
        HostConcern::NotReached => return host.error.clone(),
        HostConcern::DiskNearlyFull => (host.disk_available, host.disk_total),
        HostConcern::MemoryNearlyFull => (host.memory_available, host.memory_total),
    };
    free_of(language, free, total)
}

/// "1.20 GiB of 20.0 GiB free".
pub(super) fn free_of(language: Language, free: u64, total: u64) -> String {
    if total == 0 {
        return String::new();
    }
    language.say("free-of", &[("free", format::bytes(free).into()), ("total", format::bytes(total).into())])
}

fn figures(language: Language, status: &ClusterStatus) -> Vec<Figure> {
    let reached = status.hosts.iter().filter(|host| host.reached);
    let well = status
        .components
        .iter()
        .filter(|component| judge::component_state(component) == Health::Well)
        .count();
    let of = |part: usize, whole: usize| {
        language.say(
            "figure-of",
            &[("part", format::grouped(part as u64).into()), ("whole", format::grouped(whole as u64).into())],
        )
    };
    let mut figures = vec![
        Figure {
            name: language.say("figure-hosts", &[]),
            value: of(reached.clone().count(), status.hosts.len()),
            note: language.say("figure-hosts-note", &[]),
            link: "/hosts",
        },
        Figure {
            name: language.say("figure-components", &[]),
            value: of(well, status.components.len()),
            note: language.say("figure-components-note", &[]),
            link: "/components",
        },
    ];
    // Of disk and memory the tightest host is shown: a sum over hosts tells nobody anything.
    let share = |free: u64, total: u64| free as f64 / total as f64;
    let disk = reached.clone().filter(|host| host.disk_total > 0).min_by(|a, b| {
        share(a.disk_available, a.disk_total).total_cmp(&share(b.disk_available, b.disk_total))
    });
    let memory = reached.filter(|host| host.memory_total > 0).min_by(|a, b| {
        share(a.memory_available, a.memory_total).total_cmp(&share(b.memory_available, b.memory_total))
    });
    let mut tightest = |name: String, host: &HostStatus, free: u64, total: u64| {
        figures.push(Figure {
            name,
            value: format::bytes(free),
            note: language.say(
                "figure-tightest",
                &[("host", host.host.clone().into()), ("total", format::bytes(total).into())],
            ),
            link: "/hosts",
        });
    };
    if let Some(host) = disk {
        tightest(language.say("figure-disk", &[]), host, host.disk_available, host.disk_total);
    }
    if let Some(host) = memory {
        tightest(language.say("figure-memory", &[]), host, host.memory_available, host.memory_total);
    }
    figures
}

fn endpoints(language: Language, endpoints: &Endpoints) -> Vec<(String, Vec<Address>)> {
    [
        (language.say("endpoint-web", &[]), &endpoints.web),
        (language.say("endpoint-xmpp", &[]), &endpoints.xmpp),
        (language.say("endpoint-xmpp-tls", &[]), &endpoints.xmpp_tls),
        (language.say("endpoint-console", &[]), &endpoints.console),
    ]
    .into_iter()
    .filter(|(_, addresses)| !addresses.is_empty())
    .map(|(name, addresses)| {
        let addresses = addresses
            .iter()
            .map(|text| Address { text: text.clone(), is_link: text.starts_with("https://") })
            .collect();
        (name, addresses)
    })
    .collect()
}
