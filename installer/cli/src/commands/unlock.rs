//! `unlock`: who holds the locks of a cluster, since when; takes them when their lease expired, or by name.

use super::{Call, Outcome};
use crate::arguments::UnlockArguments;
use crate::cluster::{self, Needs};
use crate::messages::values;
use crate::printer::style::age;
use crate::printer::table::{Align, render};
use maxim_engine::actions;
use maxim_engine::actions::unlock::Unlock;
use serde_json::json;
use time::OffsetDateTime;

/// Shows, and removes what was asked for.
pub(super) fn run(call: &Call<'_>, arguments: UnlockArguments) -> Outcome {
    let which = match (arguments.owner, arguments.expired) {
        (Some(owner), _) => Unlock::Owner(owner),
        (None, true) => Unlock::Expired,
        (None, false) => Unlock::Show,
    };
    let target = cluster::existing(call.global, call.printer)?;
    let session = cluster::session(call.global, target, Needs::Nothing, call.printer)?;
    let which = if call.global.dry_run { Unlock::Show } else { which };
    let states = actions::unlock(&session.context, &which)?;
    let (messages, style) = (call.printer.messages(), call.printer.style());
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let mut rows = vec![vec![
        messages.text("column-host"),
        messages.text("column-owner"),
        messages.text("column-cluster"),
        messages.text("column-since"),
        messages.text("column-state"),
    ]];
    for state in &states {
        let Some(holder) = &state.holder else {
            rows.push(vec![state.host.clone(), messages.text("lock-free")]);
            continue;
        };
        let since = age(u64::try_from(now - holder.since).unwrap_or(0));
        let remark = if state.removed {
            style.green(&messages.text("lock-removed"))
        } else if holder.expires <= now {
            style.yellow(&messages.text("lock-expired"))
        } else {
            let seconds = usize::try_from(holder.expires - now).unwrap_or(0);
            messages.with("lock-held", values!["seconds" => seconds])
        };
        rows.push(vec![state.host.clone(), holder.owner.clone(), holder.cluster.clone(), since, remark]);
    }
    let mut text = render(&rows, &[Align::Left, Align::Left, Align::Left, Align::Right, Align::Left], style);
    let removed = states.iter().filter(|state| state.removed).count();
    if which == Unlock::Show && states.iter().any(|state| state.holder.is_some()) {
        text.push_str(&format!("\n{}\n", messages.text("lock-hint")));
    }
    call.printer.human(&text);
    call.printer.result(0, json!({ "changes": removed, "locks": states }));
    Ok(0)
}
