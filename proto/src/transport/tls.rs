//! TLS 1.3 from PEM text, and who a certificate is of.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use sha2::{Digest as _, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use crate::domain::PeerId;

/// Why PEM text makes no TLS configuration. Never holds key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// Not one certificate in the text.
    #[error("there is no valid PEM certificate in it")]
    NoCertificate,
    /// No private key in the text.
    #[error("there is no valid PEM private key in it")]
    NoKey,
    /// Certificate, key or authority don't go together.
    #[error("certificate and key can't be used: {0}")]
    Unusable(String),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// A server's TLS: version 1.3 only, HTTP/2 only.
///
/// `chain_pem` starts with the server's own certificate and should end with its authority's, so that
/// [`fetch_authority`](super::fetch_authority) can show it. With `client_ca_pem`, clients may authenticate with a
/// certificate of that authority; one that doesn't verify ends the handshake, none at all is let in.
///
/// # Errors
/// When the PEM text is off, or certificate and key don't belong together.
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
    // No resumption: each connection proves anew who it is, so that a certificate that ran out or was swapped counts.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A client's TLS: version 1.3 only, HTTP/2 only, trusting the authorities in `ca_pem` and nobody else.
/// `identity` is the client's own certificate and key, in PEM.
///
/// # Errors
/// When the PEM text is off, or certificate and key don't belong together.
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

/// The peer that a certificate is of: its one name must be the name of the peer with the certificate's own key.
///
/// Says nothing about who signed it: only for certificates that were verified.
pub fn peer_of_certificate(certificate: &CertificateDer<'_>) -> Option<PeerId> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let [GeneralName::DNSName(name)] = names.value.general_names[..] else { return None };
    let peer = peer_id_of_spki(certificate.public_key().raw);
    (PeerId::from_tls_name(name) == Some(peer)).then_some(peer)
}

/// The peer with this public key, a SubjectPublicKeyInfo in DER.
pub fn peer_id_of_spki(spki_der: &[u8]) -> PeerId {
    PeerId::from(<[u8; 32]>::from(Sha256::digest(spki_der)))
}

/// ring, with the cheapest strong cipher first: both ends have AES in hardware more often than not.
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
