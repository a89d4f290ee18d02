//! The cluster's own certificate authority: ECDSA P-256, ten years; leaf certificates 397 days.
//!
//! Everything is kept in the state folder (`ca.pem`, `ca.key`, `certificates/HOST/NAME.{pem,key}`), so that a second
//! run issues nothing. A leaf is issued anew when fewer than 30 days are left, when its names changed, or when the
//! authority changed. Like secrets, an authority can be used without being saved (dry run).

use crate::error::EngineError;
use crate::files;
use maxim_model::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

const AUTHORITY_DAYS: i64 = 3652;
const LEAF_DAYS: i64 = 397;
const RENEW_DAYS: i64 = 30;

/// The authority of one cluster.
pub struct Authority {
    folder: PathBuf,
    certificate: String,
    key: KeyPair,
    index: BTreeMap<String, Leaf>,
    changed: bool,
    now: OffsetDateTime,
}

/// A leaf certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// PEM chain: the leaf alone (clients have the authority).
    pub certificate: String,
    /// PEM key.
    pub key: Secret,
    /// Names and addresses it holds for, in order.
    names: Vec<String>,
    /// Unix seconds at which it ends.
    expires: i64,
    /// Digest of the authority that signed it.
    authority: String,
}

impl Authority {
    /// Reads the authority of a state folder, or makes one in memory.
    pub fn load(folder: &Path, cluster: &str, now: OffsetDateTime) -> Result<Self, EngineError> {
        let certificate = files::read_optional(&folder.join("ca.pem"))?;
        let key = files::read_optional(&folder.join("ca.key"))?;
        let index = match files::read_optional(&folder.join("certificates/index.json"))? {
            Some(text) => serde_json::from_str(&text).map_err(|error| {
                EngineError::failed(
                    "certificates",
                    format!("{}/certificates/index.json: {error}", folder.display()),
                )
                .hint("remove the file: certificates are then issued anew")
            })?,
            None => BTreeMap::new(),
        };
        let folder = folder.to_owned();
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let key = KeyPair::from_pem(&key).map_err(|error| broken(&folder, &error))?;
                Ok(Self { folder, certificate, key, index, changed: false, now })
            }
            (None, None) => {
                let (certificate, key) = make_authority(cluster, now).map_err(|error| broken(&folder, &error))?;
                Ok(Self { folder, certificate, key, index, changed: true, now })
            }
            _ => Err(EngineError::failed("certificates", format!("{} has only one of ca.pem and ca.key", folder.display()))
                .hint("restore the other one from a copy; removing both makes a new authority that every client must trust anew")),
        }
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The certificate `name` of a host, issued now if needed.
    pub fn leaf(&mut self, host: &str, name: &str, names: &[String]) -> Result<Leaf, EngineError> {
        let authority = hex::encode(Sha256::digest(self.certificate.as_bytes()));
        let id = format!("{host}/{name}");
        let renew_before = (self.now + Duration::days(RENEW_DAYS)).unix_timestamp();
        if let Some(leaf) = self.index.get(&id)
            && leaf.names == names
            && leaf.authority == authority
            && leaf.expires > renew_before
        {
            return Ok(leaf.clone());
        }
        let (certificate, key, expires) = self.issue(names).map_err(|error| broken(&self.folder, &error))?;
        let leaf = Leaf { certificate, key, names: names.to_vec(), expires, authority };
        self.index.insert(id, leaf.clone());
        self.changed = true;
        Ok(leaf)
    }

    /// Forgets all certificates of a host, so that new ones are issued; their names.
    pub(crate) fn forget(&mut self, host: &str) -> Vec<String> {
        let prefix = format!("{host}/");
        let names: Vec<String> = self.index.keys().filter(|id| id.starts_with(&prefix)).cloned().collect();
        for name in &names {
            self.index.remove(name);
            self.changed = true;
        }
        names
    }

    fn issue(&self, names: &[String]) -> Result<(String, Secret, i64), rcgen::Error> {
        let mut parameters = CertificateParams::new(names.to_vec())?;
        let expires = self.now + Duration::days(LEAF_DAYS);
        parameters.not_before = self.now - Duration::days(1);
        parameters.not_after = expires;
        parameters.serial_number = Some(serial());
        parameters.distinguished_name = DistinguishedName::new();
        parameters
            .distinguished_name
            .push(DnType::CommonName, names.first().map_or("maxim", |name| common_name(name)));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, &self.key)?;
        let certificate = parameters.signed_by(&key, &issuer)?;
        Ok((certificate.pem(), Secret::new(key.serialize_pem()), expires.unix_timestamp()))
    }

    /// Writes what is new. Must happen before any of it reaches a host.
    pub fn save(&mut self) -> Result<(), EngineError> {
        if !self.changed {
            return Ok(());
        }
        // The key first: a certificate without its key is worse than a key without its certificate.
        let (key, certificate) = (self.folder.join("ca.key"), self.folder.join("ca.pem"));
        if !certificate.exists() {
            files::write_whole(&key, self.key.serialize_pem().as_bytes(), 0o600)?;
            files::write_whole(&certificate, self.certificate.as_bytes(), 0o644)?;
        }
        let folder = self.folder.join("certificates");
        files::private_folder(&folder)?;
        let index = serde_json::to_string_pretty(&self.index)
            .map_err(|error| EngineError::failed("certificates", error.to_string()))?;
        files::write_whole(&folder.join("index.json"), index.as_bytes(), 0o600)?;
        self.changed = false;
        Ok(())
    }
}

/// X.509 limits a common name to 64 characters; the names that count are the alternative names.
fn common_name(name: &str) -> &str {
    if name.len() <= 64 { name } else { "maxim" }
}

fn make_authority(cluster: &str, now: OffsetDateTime) -> Result<(String, KeyPair), rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.not_before = now - Duration::days(1);
    parameters.not_after = now + Duration::days(AUTHORITY_DAYS);
    parameters.serial_number = Some(serial());
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, format!("Maxim CA {cluster}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = parameters.self_signed(&key)?;
    Ok((certificate.pem(), key))
}

/// 127 random bits: positive in DER, and unguessable as the CA/Browser rules ask.
fn serial() -> SerialNumber {
    let mut bytes = rand::random::<[u8; 16]>();
    bytes[0] &= 0x7f;
    bytes[0] |= 0x01;
    SerialNumber::from_slice(&bytes)
}

fn broken(folder: &Path, error: &rcgen::Error) -> EngineError {
    EngineError::failed(
        "certificates",
        format!("the authority in {} cannot be used: {error}", folder.display()),
    )
    .hint("restore ca.pem and ca.key from a copy")
}

#[cfg(test)]
mod tests {
    use super::{Authority, Duration};
    use time::OffsetDateTime;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_second_run_issues_nothing_and_names_or_age_renew() {
        let folder = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let mut first = Authority::load(folder.path(), "acme", now).unwrap();
        let leaf = first.leaf("app1", "im", &names(&["im.acme.example", "10.77.0.11"])).unwrap();
        assert!(!folder.path().join("ca.pem").exists(), "nothing is written before save");
        first.save().unwrap();

        let mut second = Authority::load(folder.path(), "acme", now + Duration::days(300)).unwrap();
        assert_eq!(second.certificate(), first.certificate());
        assert_eq!(second.leaf("app1", "im", &names(&["im.acme.example", "10.77.0.11"])).unwrap(), leaf);
        assert!(!second.changed);
        assert_ne!(second.leaf("app1", "im", &names(&["im.acme.example", "10.77.0.12"])).unwrap(), leaf);

        let mut late = Authority::load(folder.path(), "acme", now + Duration::days(368)).unwrap();
        assert_ne!(late.leaf("app1", "im", &names(&["im.acme.example", "10.77.0.11"])).unwrap(), leaf);
    }

    #[test]
    fn half_an_authority_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), "x").unwrap();
        let error = Authority::load(folder.path(), "acme", OffsetDateTime::now_utc()).err().unwrap();
        assert!(error.cause.contains("only one of"));
    }
}
