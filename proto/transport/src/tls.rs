//! TLS 1.3 configurations from PEM text, and the peer that a certificate belongs to.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use sha2::{Digest as _, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use domain::PeerId;

/// The reason why PEM text is not a TLS configuration. Never contains key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The text has no certificate.
    #[error("the file contains no valid PEM certificate")]
    NoCertificate,
    /// The text has no private key.
    #[error("the file contains no valid PEM private key")]
    NoKey,
    /// Certificate, key or authority do not fit together.
    #[error("the certificate and key can't be used: {0}")]
    Unusable(String),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// A server's TLS configuration: version 1.3 only, HTTP/2 only.
///
/// `chain_pem` starts with the server's own certificate and should end with its authority's, so that
/// [`fetch_authority`](super::fetch_authority) can show it. With `client_ca_pem`, clients may authenticate
/// with a certificate of that authority. A client certificate that does not verify ends the handshake. A
/// client without a certificate is let in.
///
/// # Errors
/// Fails if the PEM text is invalid, or if certificate and key do not belong together.
pub fn server_config(
    chain_pem: &str,
    key_pem: &str,
    client_ca_pem: Option<&str>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13])?;
    let builder = match client_ca_pem {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsError::Unusable(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(certificates(chain_pem)?, key(key_pem)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption: each connection proves its identity again, so that an expired or replaced certificate
    // takes effect.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A client's TLS configuration: version 1.3 only, HTTP/2 only, trusting only the authorities in `ca_pem`.
/// `identity` is the client's own certificate and key, in PEM.
///
/// # Errors
/// Fails if the PEM text is invalid, or if certificate and key do not belong together.
pub fn client_config(ca_pem: &str, identity: Option<(&str, &str)>) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(ca_pem)?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain_pem, key_pem)) => {
            builder.with_client_auth_cert(certificates(chain_pem)?, key(key_pem)?)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The time in which all certificates of a chain are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The latest beginning.
    pub not_before: SystemTime,
    /// The earliest end.
    pub not_after: SystemTime,
}

/// Reads the validity of the certificates in a PEM text.
///
/// # Errors
/// Fails if the text has no certificate, or one that is broken.
pub fn validity(pem: &str) -> Result<Validity, TlsError> {
    validity_of(&certificates(pem)?)
}

/// Reads the validity of a chain.
pub(super) fn validity_of(chain: &[CertificateDer<'_>]) -> Result<Validity, TlsError> {
    let time = |at: x509_parser::time::ASN1Time| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or_default())
    };
    let mut all: Option<Validity> = None;
    for certificate in chain {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|error| TlsError::Unusable(error.to_string()))?;
        let one = Validity {
            not_before: time(certificate.validity().not_before),
            not_after: time(certificate.validity().not_after),
        };
        let known = all.unwrap_or(one);
        all = Some(Validity {
            not_before: known.not_before.max(one.not_before),
            not_after: known.not_after.min(one.not_after),
        });
    }
    all.ok_or_else(|| TlsError::Unusable("there is no certificate".into()))
}

/// The peer that a certificate belongs to. The only name in the certificate must be the name derived from the
/// certificate's own key.
///
/// This does not check the signature. Use it only for verified certificates.
pub fn peer_of_certificate(certificate: &CertificateDer<'_>) -> Option<PeerId> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let [GeneralName::DNSName(name)] = names.value.general_names[..] else { return None };
    let peer = peer_id_of_spki(certificate.public_key().raw);
    (PeerId::from_tls_name(name) == Some(peer)).then_some(peer)
}

/// The peer with this public key, given as a SubjectPublicKeyInfo in DER.
pub fn peer_id_of_spki(spki_der: &[u8]) -> PeerId {
    PeerId::from(<[u8; 32]>::from(Sha256::digest(spki_der)))
}

/// The ring provider, with the cheapest strong cipher first: most machines have AES in hardware.
pub(super) fn provider() -> Arc<CryptoProvider> {
    use ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let cipher_suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}

pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or(TlsError::NoCertificate)
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| TlsError::NoKey)
}

fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}
