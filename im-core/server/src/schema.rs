//! The schema as the administration sees it: how far it is, and the end of an upgrade.
//!
//! What fills and takes away may take minutes on a large archive, so it is begun and asked after, not waited for. The
//! server serves meanwhile. A process that ends in the middle loses nothing: the next request goes on.

use std::sync::{Arc, Mutex, PoisonError};

use im_admin_api::Schema;
use im_store::{StoreError, finalize_schema, schema_state};

use crate::chain;
use crate::core::Core;

/// Whether the end of an upgrade is under way on this node, and how the last one ended.
#[derive(Debug, Default)]
pub struct Finalizing(Mutex<(bool, Option<String>)>);

impl Finalizing {
    fn now(&self) -> (bool, Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, running: bool, failed: Option<String>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *state, (running, failed)).0
    }
}

/// How far the schema is.
pub async fn state(core: &Arc<Core>) -> Result<Schema, StoreError> {
    let config = core.config.store_config().map_err(|e| StoreError::Configuration(chain(&e)))?;
    let state = schema_state(&config).await?;
    let (finalizing, failed) = core.finalizing.now();
    Ok(Schema {
        version: env!("CARGO_PKG_VERSION").into(),
        applied: state.applied,
        waiting: state.waiting,
        compatible_from: state.compatible_from,
        finalizing,
        failed,
    })
}

/// Begins the end of an upgrade, unless it is under way.
pub async fn finalize(core: &Arc<Core>) -> Result<Schema, StoreError> {
    let config = core.config.store_config().map_err(|e| StoreError::Configuration(chain(&e)))?;
    if !core.finalizing.set(true, None) {
        let core = Arc::clone(core);
        tokio::spawn(async move {
            let failed = finalize_schema(&config).await.err().map(|error| {
                core.report("cannot finalize the schema", &error);
                chain(&error)
            });
            core.finalizing.set(false, failed);
        });
    }
    state(core).await
}
