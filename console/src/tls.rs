//! TLS of the listener: certificate and key from PEM files, TLS 1.2 and 1.3, HTTP/1.1.

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or holds nothing usable.
    #[error("{path}: {cause}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: rustls_pki_types::pem::Error,
    },
    /// The file holds no certificate.
    #[error("{0}: no certificate in it; a PEM chain is needed")]
    Empty(PathBuf),
    /// Certificate and key do not fit together, or are of a kind that is not supported.
    #[error("certificate {certificate} with key {key}: {cause}")]
    Unusable {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        cause: rustls::Error,
    },
}

/// Loads certificate and key.
pub fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |cause| TlsError::Pem { path, cause }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(failed(certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(certificate.to_path_buf()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
    let unusable =
        |cause| TlsError::Unusable { certificate: certificate.to_path_buf(), key: key.to_path_buf(), cause };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::{TlsError, server_config};

    #[test]
    fn takes_a_pair_that_fits_and_names_what_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let one = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let certificate = write("a.crt", &one.cert.pem());
        let key = write("a.key", &one.signing_key.serialize_pem());
        let wrong = write("b.key", &other.signing_key.serialize_pem());
        let empty = write("empty", "");
        server_config(&certificate, &key).unwrap();
        assert!(matches!(server_config(&certificate, &wrong), Err(TlsError::Unusable { .. })));
        assert!(matches!(server_config(&empty, &key), Err(TlsError::Empty(path)) if path == empty));
        let error = server_config(&certificate, &folder.path().join("absent")).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
