//! `ca export`: the cluster's authority for phones and browsers.

use crate::error::EngineError;
use crate::files;
use crate::state::StateDir;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

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
    let path = state.file("ca.pem");
    let pem = files::read_optional(&path)?.ok_or_else(|| {
        EngineError::failed("ca export", format!("there is no authority yet ({})", path.display()))
            .hint("`maxim.ctl install` makes one")
    })?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| EngineError::failed("ca export", format!("{}: {error}", path.display())))?
        .to_vec();
    let digest = Sha256::digest(&der);
    let fingerprint = digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    let mobileconfig = mobileconfig(cluster, &der, &digest);
    Ok(CaExport { pem, der, mobileconfig, fingerprint })
}

/// A profile with one root certificate. Its identifiers come from the certificate: the same authority gives the same
/// profile, so that a phone replaces it instead of keeping two.
fn mobileconfig(cluster: &str, der: &[u8], digest: &[u8]) -> String {
    let uuid = |seed: u8| {
        let bytes: Vec<u8> = digest.iter().take(16).map(|byte| byte ^ seed).collect();
        let text = hex::encode_upper(bytes);
        format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
    };
    let content = STANDARD.encode(der);
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>PayloadContent</key>
  <array>
    <dict>
      <key>PayloadCertificateFileName</key><string>maxim-{cluster}.cer</string>
      <key>PayloadContent</key><data>{content}</data>
      <key>PayloadDisplayName</key><string>Maxim CA {cluster}</string>
      <key>PayloadIdentifier</key><string>maxim.{cluster}.ca</string>
      <key>PayloadType</key><string>com.apple.security.root</string>
      <key>PayloadUUID</key><string>{inner}</string>
      <key>PayloadVersion</key><integer>1</integer>
    </dict>
  </array>
  <key>PayloadDisplayName</key><string>Maxim {cluster}</string>
  <key>PayloadIdentifier</key><string>maxim.{cluster}</string>
  <key>PayloadType</key><string>Configuration</string>
  <key>PayloadUUID</key><string>{outer}</string>
  <key>PayloadVersion</key><integer>1</integer>
</dict>
</plist>
"#,
        inner = uuid(0),
        outer = uuid(0xff),
    )
}

#[cfg(test)]
mod tests {
    use super::ca_export;
    use crate::authority::Authority;
    use crate::state::StateDir;
    use time::OffsetDateTime;

    #[test]
    fn the_authority_is_exported_in_every_form_and_without_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        assert!(ca_export(&state, "acme").unwrap_err().hint.contains("install"));
        let mut authority = Authority::load(folder.path(), "acme", OffsetDateTime::now_utc()).unwrap();
        authority.leaf("a", "im", &["localhost".to_owned()]).unwrap();
        authority.save().unwrap();
        let export = ca_export(&state, "acme").unwrap();
        assert_eq!(export, ca_export(&state, "acme").unwrap());
        assert_eq!(export.der[0], 0x30, "a DER sequence");
        assert_eq!(export.fingerprint.len(), 95);
        assert!(export.mobileconfig.contains("com.apple.security.root"));
        assert!(!format!("{export:?}").contains("PRIVATE KEY"));
    }
}
