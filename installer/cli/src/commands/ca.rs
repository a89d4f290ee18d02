//! `ca export`: the private authority's certificate for phones and browsers. Its key is never given out.

use super::{Call, Outcome, plan};
use crate::arguments::{CaCommand, CaFormat};
use crate::cluster;
use crate::messages::values;
use maxim_engine::actions;
use serde_json::json;

/// Writes it to a file, or to standard output.
pub(super) fn run(call: &Call<'_>, command: &CaCommand) -> Outcome {
    let CaCommand::Export { out, format } = command;
    let target = cluster::existing(call.global, call.printer)?;
    let export = actions::ca_export(&target.state, &target.loaded.topology.name)?;
    let bytes = match format {
        CaFormat::Pem => export.pem.as_bytes(),
        CaFormat::Der => export.der.as_slice(),
        CaFormat::Mobileconfig => export.mobileconfig.as_bytes(),
    };
    let messages = call.printer.messages();
    if let Some(path) = out {
        plan::write_whole(path, bytes, 0o644)?;
        let text = messages.with(
            "ca-written",
            values!["path" => path.display().to_string(), "fingerprint" => export.fingerprint.as_str()],
        );
        call.printer.human(&format!("{text}\n"));
    } else if !call.printer.is_json() {
        call.printer.raw(bytes);
    }
    call.printer.result(
        0,
        json!({
            "cluster": target.loaded.topology.name,
            "changes": 0,
            "fingerprint": export.fingerprint,
            "certificate": export.pem,
            "path": out,
        }),
    );
    Ok(0)
}
