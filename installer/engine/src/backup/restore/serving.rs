//! The services around a restore: which stop, whether they go on when nothing was put in place, who starts them again.

use super::{Only, RestoreOptions};
use crate::authority::Authority;
use crate::error::EngineError;
use crate::phases::{measure, verify};
use crate::run::{Run, Session};
use maxim_model::names::Role;
use maxim_model::status::Health;
use maxim_model::wire::{Request, ServiceAction};
use std::time::Duration;
use time::OffsetDateTime;

const SERVICE_SECONDS: u64 = 90;

/// What comes after the data is in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The services start, and a message proves them.
    Serve,
    /// An install does both; until then nobody is served.
    Install,
}

/// Whether the services go on with what is there when nothing was put in its place: never where the database is empty,
/// as on a host that has just taken another one's place. Uploaded files are beside a database that is whole.
pub(super) const fn goes_on(options: &RestoreOptions, then: Then) -> bool {
    matches!(then, Then::Serve) && (!options.fresh || matches!(options.only, Only::Files))
}

/// Starts or stops the services of these roles, in their order; stops in the other one.
pub(super) fn act(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    roles: &[Role],
    action: ServiceAction,
) -> Result<(), EngineError> {
    let mut roles = roles.to_vec();
    if matches!(action, ServiceAction::Stop) {
        roles.reverse();
    }
    // One that does not start keeps none of the others from it; one that does not stop leaves the others to serve.
    let mut first = None;
    for role in roles {
        for session in sessions.iter_mut().filter(|session| session.host.roles.contains(&role)) {
            let Some(agent) = session.writer.as_mut() else { continue };
            let request = Request::Service {
                action,
                names: vec![role.service()],
                manager: run.manager(),
                deadline_seconds: SERVICE_SECONDS,
            };
            let done = agent.request("restore", &request, Duration::from_secs(SERVICE_SECONDS + 10), |_| {});
            if matches!(action, ServiceAction::Stop) {
                done?;
            } else {
                first = first.or(done.err());
            }
        }
    }
    first.map_or(Ok(()), Err)
}

/// The end of a restore, with the data in its place.
pub(super) fn end(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    roles: &[Role],
    then: Then,
) -> Result<(), EngineError> {
    if then == Then::Install {
        return Ok(());
    }
    let context = run.context;
    run.emitter.phase("start", || act(run, sessions, roles, ServiceAction::Start))?;
    run.emitter.phase("verify", || {
        let installed = context.state.installed()?.unwrap_or_default();
        let components = measure::components_when_ready(run, sessions, &installed);
        if let Some(broken) =
            components.iter().find(|one| one.component == "im" && one.health == Health::Broken)
        {
            return Err(EngineError::failed(
                "verify",
                format!("the IM core does not serve: {}", broken.detail),
            )
            .on(&broken.host)
            .hint("`maxim.ctl logs im` shows why; once that is mended, the same command goes on from here"));
        }
        let authority =
            Authority::load(context.state.path(), &context.topology.name, OffsetDateTime::now_utc())?;
        verify::canary(run, sessions, authority.certificate())
    })
}

#[cfg(test)]
mod tests {
    use super::{Only, RestoreOptions, Role, Then, act, end, goes_on};
    use crate::context::CancelFlag;
    use crate::fake::Fleet;
    use crate::phases::connect;
    use crate::run::Run;
    use crate::sample;
    use crate::state::StateDir;
    use maxim_model::wire::ServiceAction;
    use std::sync::Arc;

    #[test]
    fn nobody_is_served_from_what_a_new_host_has_before_its_data_is_there() {
        let options =
            |only, fresh| RestoreOptions { only, fresh, overwrite: true, ..RestoreOptions::default() };
        assert!(goes_on(&options(Only::All, false), Then::Serve));
        assert!(!goes_on(&options(Only::All, true), Then::Serve));
        assert!(!goes_on(&options(Only::Database, true), Then::Install));
        assert!(goes_on(&options(Only::Files, true), Then::Serve), "the database was served before");
    }

    /// A record of a replacement is written between the data and whoever is served: else a second run would put the set
    /// over what was acknowledged since.
    #[test]
    fn a_restore_before_an_install_starts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let context = sample::context(sample::three_hosts(), StateDir::at(folder.path()));
        let fleet = Arc::new(Fleet::new(&context.topology, CancelFlag::new()));
        let run = Run::with_connector(&context, "backup-restore", true, fleet.clone()).unwrap();
        let mut sessions = connect::connect(&run).unwrap();
        connect::lock_hosts(&run, &mut sessions, "backup restore").unwrap();
        let asked = || fleet.with("app1", |host| host.services.clone());
        let roles = [Role::Im, Role::Console];
        act(&run, &mut sessions, &roles, ServiceAction::Stop).unwrap();
        assert_eq!(asked(), ["stop maxim-console", "stop maxim-im"]);
        end(&run, &mut sessions, &roles, Then::Install).unwrap();
        assert_eq!(asked().len(), 2, "nothing was started");
        // The fake host runs nothing: what counts is that it was to.
        end(&run, &mut sessions, &roles, Then::Serve).ok();
        assert_eq!(asked()[2..], ["start maxim-im", "start maxim-console"]);
        connect::release(&mut sessions);
    }
}
