//! `apply FILE`: exactly that plan, or a refusal (exit code 5) when what was measured is no longer so.

use super::{Call, Outcome, install};
use crate::arguments::ApplyArguments;
use crate::cluster::{self, Needs, Target};
use crate::failure::Failure;
use maxim_engine::{StateDir, actions};
use maxim_model::names::Profile;
use maxim_model::plan::{PLAN_FORMAT, Plan};
use maxim_model::topology::{self, Source};
use std::path::Path;

/// Largest plan that is read.
const LIMIT: u64 = 256 << 20;

/// Applies a plan.
pub(super) fn run(call: &Call<'_>, arguments: &ApplyArguments) -> Outcome {
    if !call.global.set.is_empty() || call.global.file.is_some() {
        return Err(Failure::usage(
            "a plan holds its topology: `-f` and `--set` cannot change it",
            "make a new plan with them: `maxim.ctl plan -f … -o FILE`",
        ));
    }
    let plan = read(&arguments.plan)?;
    let root = cluster::root(call.global)?;
    let root_text = root.to_string_lossy();
    let name = format!("{} (topology)", arguments.plan.display());
    let source = Source {
        file: &name,
        text: &plan.topology,
        sets: &[],
        environment: &|name| std::env::var(name).ok(),
        base: Path::new("/"),
        root: &root_text,
    };
    let loaded = topology::load(&source)?;
    let state = match loaded.topology.profile {
        Profile::Embedded => StateDir::embedded(&root),
        Profile::Standard => StateDir::of_cluster(&StateDir::default_clusters()?, &loaded.topology.name),
    };
    let target = Target { loaded, state, reason: String::new(), file: None, existing: false };
    let session = cluster::session(call.global, target, Needs::Delivery, call.printer)?;
    install::announce(call, &session);
    let outcome = actions::apply_plan(&session.context, &plan)?;
    install::finish(call, &session, &outcome)
}

fn read(path: &Path) -> Result<Plan, Failure> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LIMIT).read_to_end(&mut bytes))
        .map_err(|error| Failure { code: 2, ..Failure::file(path, &error) })?;
    let plan: Plan = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::usage(
            format!("{}: not a plan: {error}", path.display()),
            "plans are made by `maxim.ctl plan -o FILE`",
        )
    })?;
    if plan.format != PLAN_FORMAT {
        return Err(Failure::new(
            5,
            format!("{}: a plan of format {}, this program knows {PLAN_FORMAT}", path.display(), plan.format),
            "make the plan anew with this version",
        ));
    }
    Ok(plan)
}
