//! A certificate chain and its key. The key is written first, so that no server ever reads a new certificate with an
//! old key for longer than the moment between two renames; its content is never shown.

use super::Outcome;
use super::file::compare;
use crate::error::{Failure, Result};
use crate::files::{Ownership, absolute, write_atomic};
use maxim_model::task::{CertificateTask, Change};

/// What would change.
pub fn check(task: &CertificateTask) -> Result<Change> {
    let ownership = match Ownership::resolve(&task.owner, &task.group, &task.key_mode) {
        Ok(ownership) => Some(ownership),
        Err(Failure::Refused { .. }) => None,
        Err(other) => return Err(other),
    };
    let public = ownership.map(|ownership| Ownership { mode: 0o644, ..ownership });
    let key = compare(&absolute(&task.key_path)?, task.key.expose(), true, false, ownership)?;
    let certificate = compare(&absolute(&task.certificate_path)?, &task.certificate, true, false, public)?;
    let parts: Vec<&str> =
        [&certificate, &key].into_iter().filter(|change| change.is_change()).map(Change::summary).collect();
    Ok(match (&certificate, &key) {
        (Change::None, Change::None) => Change::None,
        (Change::Create { .. }, _) => Change::Create { summary: parts.join("; "), diff: String::new() },
        _ => Change::Update { summary: parts.join("; "), diff: String::new() },
    })
}

/// Makes it so.
pub fn apply(task: &CertificateTask) -> Result<Outcome> {
    let ownership = Ownership::resolve(&task.owner, &task.group, &task.key_mode)?;
    write_atomic(&absolute(&task.key_path)?, task.key.expose().as_bytes(), ownership)?;
    let public = Ownership { mode: 0o644, ..ownership };
    write_atomic(&absolute(&task.certificate_path)?, task.certificate.as_bytes(), public)?;
    Ok(Outcome::changed(format!("installed the certificate {}", task.certificate_path)))
}
