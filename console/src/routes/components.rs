//! `/components`: what runs where, in which version, and how it is.

use super::App;
use super::list::{Column, ListQuery, worst_first};
use super::live::{ComponentRow, Fresh, Live};
use super::page;
use super::visitor::Visitor;
use crate::view::ui::{Section, Ui};
use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use maxim_model::status::Health;
use std::cmp::Ordering;
use std::sync::Arc;

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/components", get(list))
}

#[derive(Template)]
#[template(path = "components.html")]
struct ComponentList {
    ui: Ui,
    fresh: Fresh,
    sentence: String,
    query: ListQuery,
    columns: Vec<Column>,
    rows: Vec<ComponentRow>,
    total: usize,
}

async fn list(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    Query(query): Query<ListQuery>,
) -> Response {
    let live = Live::look(&app, &visitor);
    let language = visitor.language;
    let all = live.status().map_or(&[][..], |status| status.components.as_slice());
    let total = all.len();
    let mut rows: Vec<ComponentRow> =
        all.iter().map(|component| ComponentRow::of(&live, component)).collect();
    let well = rows.iter().filter(|row| row.state == Health::Well).count();
    let differing = rows.iter().filter(|row| row.differs).count();
    let sentence = if live.fresh.stale || total == 0 {
        String::new()
    } else if well == total {
        language.say("components-all", &[("components", total.into())])
    } else if differing > 0 {
        language.say(
            "components-differ",
            &[
                ("wrong", (total - well).into()),
                ("components", total.into()),
                ("differing", differing.into()),
            ],
        )
    } else {
        language.say("components-some", &[("wrong", (total - well).into()), ("components", total.into())])
    };
    rows.retain(|row| query.wants(row.state, &[&row.name, &row.component, &row.host, &row.running]));
    query.sort(&mut rows, compare);
    let columns = query.columns(
        &visitor,
        "/components",
        &[
            ("state", "column-state", false),
            ("component", "column-component", false),
            ("host", "column-host", false),
            ("running", "column-running", false),
            ("wanted", "column-wanted", false),
            ("memory", "column-memory", true),
            ("since", "column-since", true),
            ("restarts", "column-restarts", true),
        ],
    );
    let ui = Live::ui(&app, &visitor, Section::Components);
    page::render(
        StatusCode::OK,
        &ComponentList { ui, fresh: live.fresh, sentence, query, columns, rows, total },
    )
}

fn compare(column: &str, a: &ComponentRow, b: &ComponentRow) -> Ordering {
    let by_name = || (&a.component, &a.host).cmp(&(&b.component, &b.host));
    match column {
        "component" => by_name(),
        "host" => (&a.host, &a.component).cmp(&(&b.host, &b.component)),
        "running" => a.running.cmp(&b.running).then_with(by_name),
        "wanted" => a.wanted.cmp(&b.wanted).then_with(by_name),
        "memory" => a.memory_bytes.cmp(&b.memory_bytes).then_with(by_name),
        "since" => a.since_seconds.cmp(&b.since_seconds).then_with(by_name),
        "restarts" => a.restarts.cmp(&b.restarts).then_with(by_name),
        _ => worst_first(a.state, b.state).then_with(by_name),
    }
}
