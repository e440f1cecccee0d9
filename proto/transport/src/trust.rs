//! Fetching a tracker's CA certificate before it is trusted: for pinned fingerprints and for trust on first
//! use.

use std::{
    fmt, io,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use data_encoding::{BASE64, HEXUPPER};
use parking_lot::Mutex;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{
    client::ConnectError,
    network::dial,
    tls::{TlsError, certificates, client_config, provider, validity_of},
};

/// SHA-256 of an authority's certificate, as `openssl x509 -fingerprint -sha256` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuthorityFingerprint([u8; 32]);

/// Text that is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 hexadecimal digits, optionally separated by colons")]
pub struct FingerprintError;

impl AuthorityFingerprint {
    /// The SHA-256.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for AuthorityFingerprint {
    fn from(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }
}

impl FromStr for AuthorityFingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits = text.replace(':', "").to_ascii_uppercase();
        let bytes = HEXUPPER.decode(digits.as_bytes()).map_err(|_| FingerprintError)?;
        bytes.try_into().map(Self).map_err(|_| FingerprintError)
    }
}

impl fmt::Display for AuthorityFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// The fingerprints of the authorities in PEM text, in order.
///
/// # Errors
/// Fails if the text has no certificate.
pub fn fingerprints(ca_pem: &str) -> Result<Vec<AuthorityFingerprint>, TlsError> {
    Ok(certificates(ca_pem)?.iter().map(fingerprint).collect())
}

fn fingerprint(certificate: &CertificateDer<'_>) -> AuthorityFingerprint {
    AuthorityFingerprint(Sha256::digest(certificate).into())
}

/// The authority that a server presented. It is not trusted yet. A person or a pinned fingerprint decides
/// that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedAuthority {
    /// The authority's certificate. Once it is trusted, store it and pass it to
    /// [`client_config`].
    pub pem: String,
    /// The fingerprint to compare or show.
    pub fingerprint: AuthorityFingerprint,
}

/// Fetches the authority at the end of the server's certificate chain. No application data is sent.
///
/// # Errors
/// Fails if the server cannot be reached, or if its certificate is not signed by that authority or not for
/// that host.
pub async fn fetch_authority(
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<FetchedAuthority, ConnectError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Name(host.to_owned()))?;
    let capture = Arc::new(Capture { provider: provider(), authority: Mutex::default() });
    let fetch = async {
        let socket = dial(host, port).await.map_err(ConnectError::Dial)?;
        let connector = TlsConnector::from(Arc::new(
            capture_config(&capture).map_err(io::Error::other).map_err(ConnectError::Tls)?,
        ));
        connector.connect(name, socket).await.map_err(ConnectError::Tls)
    };
    timeout(limit, fetch).await.map_err(|_| ConnectError::TimedOut)??;
    let authority = capture.authority.lock().take();
    let authority = authority.ok_or_else(|| ConnectError::Tls(io::ErrorKind::InvalidData.into()))?;
    Ok(FetchedAuthority { fingerprint: fingerprint(&authority), pem: to_pem(&authority) })
}

/// Connects to a server that `ca_pem` certifies, and returns the earliest end of the certificates that it
/// presents. No application data is sent.
///
/// # Errors
/// Fails if the server cannot be reached, or is not certified for that host.
pub async fn presented_end(
    host: &str,
    port: u16,
    ca_pem: &str,
    limit: Duration,
) -> Result<SystemTime, ConnectError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Name(host.to_owned()))?;
    let tls = |error: TlsError| ConnectError::Tls(io::Error::other(error));
    let config = client_config(ca_pem, None).map_err(tls)?;
    let look = async {
        let socket = dial(host, port).await.map_err(ConnectError::Dial)?;
        TlsConnector::from(config).connect(name, socket).await.map_err(ConnectError::Tls)
    };
    let stream = timeout(limit, look).await.map_err(|_| ConnectError::TimedOut)??;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(validity_of(chain).map_err(tls)?.not_after)
}

fn capture_config(capture: &Arc<Capture>) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&capture.provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Capture>::clone(capture))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

/// Treats the last certificate of the chain as the authority, checks the first one against it, and keeps the
/// authority.
///
/// Use it only for a connection on which nothing is sent: nobody has trusted this authority yet.
#[derive(Debug)]
struct Capture {
    provider: Arc<CryptoProvider>,
    authority: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Capture {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates.last().ok_or(CertificateError::UnknownIssuer)?.clone().into_owned();
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let verified =
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        *self.authority.lock() = Some(authority);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_read_as_people_write_them() {
        let print = AuthorityFingerprint([0xab; 32]);
        let text = print.to_string();
        assert!(text.starts_with("AB:AB:") && text.len() == 95);
        for same in [text.clone(), text.to_lowercase(), text.replace(':', "")] {
            assert_eq!(same.parse(), Ok(print));
        }
        for bad in ["", "AB", &text[1..], "zz"] {
            assert_eq!(bad.parse::<AuthorityFingerprint>(), Err(FingerprintError));
        }
    }
}
