//! The schema of the database, as the IM cores see it, asked through their administration sockets.

use crate::error::EngineError;
use crate::phases::verify::{AdminError, admin, admin_get};
use crate::remote::Agent;
use crate::run::{Run, Session};
use im_admin_api::{Empty, ErrorCode, Schema, paths};
use maxim_model::manifest::Manifest;
use maxim_model::names::Role;
use std::time::{Duration, Instant};

/// What takes away from a large archive may take long.
const FINALIZING: Duration = Duration::from_hours(2);
const LOOK: Duration = Duration::from_millis(250);

/// How far the schema is, from the first IM core that answers. None: no core answers, or it is of a version that
/// cannot say.
pub(super) fn of_cluster(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    writer: bool,
) -> Result<Option<Schema>, EngineError> {
    for session in sessions.iter_mut().filter(|session| session.host.roles.contains(&Role::Im)) {
        let agent = if writer { session.writer.as_mut() } else { session.reader.as_mut() };
        let Some(agent) = agent else { continue };
        match admin_get(agent, &run.context.topology, "schema", paths::SCHEMA) {
            Ok(schema) => return Ok(Some(schema)),
            Err(AdminError::Refused(error)) if error.code == ErrorCode::UnknownOperation => return Ok(None),
            Err(AdminError::Failed(error)) if run.context.cancel.is_cancelled() => return Err(error),
            // A core that is down, or whose upgrade is in the middle: another may answer.
            Err(error) => {
                let error = error.into_engine("schema", &session.host.name);
                tracing::debug!(host = session.host.name, cause = error.cause, "no answer about the schema");
            }
        }
    }
    Ok(None)
}

/// Whether a bundle's version can start on the schema. `resumed`: some hosts may run it already.
pub(super) fn fits(schema: Option<&Schema>, manifest: &Manifest, resumed: bool) -> Result<(), EngineError> {
    let (Some(schema), Some(matrix)) = (schema, &manifest.compatibility) else { return Ok(()) };
    let range = matrix.schema;
    let newest = schema.applied.last().copied().unwrap_or_default();
    if !resumed && schema.version != manifest.version && !schema.waiting.is_empty() {
        return Err(EngineError::refused(
            "schema",
            format!("the upgrade to {} was not finalized: {}", schema.version, schema.waiting.join(", ")),
        )
        .hint("`maxim.ctl upgrade --finalize` finishes it; then upgrade again"));
    }
    if newest < range.oldest || schema.compatible_from > range.finalized {
        return Err(EngineError::refused(
            "schema",
            format!(
                "the database's schema is at {newest}; version {} works on {} to {}",
                manifest.version, range.oldest, range.finalized
            ),
        )
        .hint("upgrade to a version in between first, and finalize that"));
    }
    Ok(())
}

/// Does what waits for the end of an upgrade, through one IM core, and waits for it. Returns what was done.
pub(super) fn finalize(run: &Run<'_>, agent: &mut Agent) -> Result<Vec<String>, EngineError> {
    let topology = &run.context.topology;
    let host = agent.host().to_owned();
    let failed = |error: AdminError| error.into_engine("schema", &host);
    let before: Schema = admin_get(agent, topology, "schema", paths::SCHEMA).map_err(failed)?;
    if before.waiting.is_empty() {
        return Ok(Vec::new());
    }
    let mut now: Schema =
        admin(agent, topology, "schema", paths::SCHEMA_FINALIZE, &Empty {}).map_err(failed)?;
    let until = Instant::now() + FINALIZING;
    while now.finalizing {
        // It goes on without us; the next run joins it.
        run.context.cancel.check("schema")?;
        if Instant::now() > until {
            return Err(EngineError::failed("schema", "the schema was not finalized within two hours")
                .on(&host)
                .hint("it goes on; run `maxim.ctl upgrade --finalize` again to wait for it"));
        }
        std::thread::sleep(LOOK);
        now = admin_get(agent, topology, "schema", paths::SCHEMA).map_err(failed)?;
    }
    match now.failed {
        Some(cause) => Err(EngineError::failed("schema", cause)
            .on(&host)
            .hint("nothing is lost; when the cause is gone, run `maxim.ctl upgrade --finalize` again")),
        None if now.waiting.is_empty() => Ok(before.waiting),
        None => Err(EngineError::failed("schema", format!("not done: {}", now.waiting.join(", "))).on(&host)),
    }
}

#[cfg(test)]
mod tests {
    use super::fits;
    use im_admin_api::Schema;
    use maxim_model::manifest::{MANIFEST_FORMAT, Manifest};
    use maxim_model::upgrade::{Compatibility, SchemaRange};

    #[test]
    fn a_schema_that_is_not_finalized_or_too_far_off_is_refused() {
        let manifest = Manifest {
            format: MANIFEST_FORMAT,
            version: "0.3.0".into(),
            architecture: String::new(),
            lock_sha256: String::new(),
            public_key: String::new(),
            compatibility: Some(Compatibility {
                upgrades_from: vec!["0.2".into()],
                schema: SchemaRange { oldest: 4, expanded: 5, finalized: 6 },
            }),
            members: Vec::new(),
        };
        let schema = |applied: &[u32], waiting: &[&str], compatible_from| Schema {
            version: "0.2.0".into(),
            applied: applied.to_vec(),
            waiting: waiting.iter().map(ToString::to_string).collect(),
            compatible_from,
            ..Schema::default()
        };
        let code = |schema: &Schema| fits(Some(schema), &manifest, false).map_err(|error| error.exit_code());
        assert_eq!(code(&schema(&[1, 2, 3, 4], &[], 4)), Ok(()));
        assert_eq!(code(&schema(&[1, 2], &["0003_fill", "0004_drop"], 1)), Err(5));
        assert_eq!(code(&schema(&[1, 2], &[], 1)), Err(5), "too old");
        assert_eq!(code(&schema(&[1, 2, 3, 4, 5, 6, 7], &[], 7)), Err(5), "too new");
        assert!(fits(Some(&schema(&[1, 2, 3, 4], &["0006_x"], 4)), &manifest, true).is_ok());
        assert!(fits(None, &manifest, false).is_ok());
    }
}
