//! Certificate and key of the server, read again on demand, and what SCRAM binds to (RFC 5929, RFC 9266).
//!
//! [`Tls::load`] reads the files; [`Tls::reload`] replaces the certificate for connections made from then on and
//! leaves the old one in place when the new files do not fit together.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use ring::digest;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read.
    #[error("cannot read {what} from {path}: {reason}")]
    File {
        /// `certificate` or `key`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key do not fit together.
    #[error("certificate {path} and its key cannot be used")]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// What the TLS library said.
        #[source]
        source: rustls::Error,
    },
}

#[derive(Debug)]
struct Loaded {
    xmpp: Arc<ServerConfig>,
    https: Arc<ServerConfig>,
    end_point: Arc<[u8]>,
}

/// TLS of the server.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    loaded: RwLock<Loaded>,
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// [`TlsError`] naming the file.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), loaded: RwLock::new(read(files)?) })
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// As [`Tls::load`]; what was in use stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = read(&self.files)?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// For XMPP; also the hash of the certificate that `tls-server-end-point` binds to.
    pub fn xmpp(&self) -> (TlsAcceptor, Arc<[u8]>) {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        (TlsAcceptor::from(Arc::clone(&loaded.xmpp)), Arc::clone(&loaded.end_point))
    }

    /// For HTTPS.
    pub fn https(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner).https))
    }
}

fn read(files: &TlsFiles) -> Result<Loaded, TlsError> {
    let error = |what, path: &Path, reason: String| TlsError::File { what, path: path.into(), reason };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|e| error("certificate", &files.certificate, e.to_string()))?;
    let own = chain
        .first()
        .ok_or_else(|| error("certificate", &files.certificate, "it holds no certificate".into()))?;
    let end_point = end_point_hash(own);
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|e| error("key", &files.key, e.to_string()))?;
    let make = |protocols: &[&[u8]]| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|b| b.with_no_client_auth().with_single_cert(chain.clone(), key.clone_key()))
            .map_err(|source| TlsError::Unusable { path: files.certificate.clone(), source })?;
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        // Tickets instead of a cache: nothing is held per client, and several nodes need not share it.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    };
    Ok(Loaded { xmpp: make(&[b"xmpp-client"])?, https: make(&[b"http/1.1"])?, end_point })
}

/// The hash of RFC 5929 §4.1: that of the certificate's signature, SHA-256 for the outdated ones.
fn end_point_hash(certificate: &CertificateDer<'_>) -> Arc<[u8]> {
    use x509_parser::oid_registry as oid;
    let algorithm = x509_parser::parse_x509_certificate(certificate).ok().map(|(_, c)| {
        let id = &c.signature_algorithm.algorithm;
        if *id == oid::OID_PKCS1_SHA384WITHRSA || *id == oid::OID_SIG_ECDSA_WITH_SHA384 {
            &digest::SHA384
        } else if *id == oid::OID_PKCS1_SHA512WITHRSA || *id == oid::OID_SIG_ECDSA_WITH_SHA512 {
            &digest::SHA512
        } else {
            &digest::SHA256
        }
    });
    digest::digest(algorithm.unwrap_or(&digest::SHA256), certificate).as_ref().into()
}
