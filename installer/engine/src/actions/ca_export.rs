//! `ca export`: the cluster's authority for phones and browsers.

use crate::error::EngineError;
use crate::state::StateDir;

/// The authority's certificate in the usual forms. Its key is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaExport {
    /// PEM text.
    pub pem: String,
    /// DER bytes.
    pub der: Vec<u8>,
    /// Apple configuration profile (XML).
    pub mobileconfig: String,
    /// SHA-256 of the DER, as `AB:CD:…`.
    pub fingerprint: String,
}

/// Reads the authority from the cluster's state.
pub fn ca_export(state: &StateDir, cluster: &str) -> Result<CaExport, EngineError> {
    let _ = (state, cluster);
    Err(EngineError::failed("ca export", "not there yet"))
}
