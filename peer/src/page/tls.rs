//! The certificate with which the page is served to other hosts.
//!
//! It is self-signed, made once and kept, and `peer ui` prints its fingerprint. The peer's own certificate would be of no
//! use: its name is a hash, and it is signed by the tracker's CA. A browser that trusts that CA would believe whoever runs
//! the tracker about every site of the web.
//!
//! The login is the one-time link, as on loopback. It is printed for whoever may use the daemon's socket, and it is worth
//! only this page. A password that is typed into a page behind a browser's warning would be worth the account.

use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use program::durable::{self, Readers};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use transport::{fingerprints, server_config, validity};

/// How long a new certificate is valid.
const LIFE: Duration = Duration::from_secs(3_650 * 24 * 3_600);
/// How much of its life a certificate that is used must have left.
const LEFT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// What the page is served with.
pub(super) struct Pair {
    pub(super) config: Arc<ServerConfig>,
    /// SHA-256 of the certificate, as browsers show it.
    pub(super) fingerprint: String,
}

/// Reads certificate and key from this file. Makes them if there is no file, or none that can be used for long enough.
///
/// # Errors
/// Says what can't be read, written or used.
pub(super) fn open_or_create(path: &Path, names: &[IpAddr], now: SystemTime) -> Result<Pair, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let kept = durable::read_secret_if_there(path).map_err(|error| failed(&error))?;
    let is_good = |pem: &String| validity(pem).is_ok_and(|valid| valid.not_after > now + LEFT);
    let pem = match kept.filter(is_good) {
        Some(pem) => pem,
        None => {
            let pem = make(names, now).map_err(|error| failed(&error))?;
            durable::write(path, pem.as_bytes(), Readers::Owner).map_err(|error| failed(&error))?;
            pem
        }
    };
    let mut config = (*server_config(&pem, &pem, None).map_err(|error| failed(&error))?).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let fingerprint = fingerprints(&pem).map_err(|error| failed(&error))?;
    let fingerprint = fingerprint.first().ok_or_else(|| failed(&"no certificate"))?.to_string();
    Ok(Pair { config: Arc::new(config), fingerprint })
}

/// A new certificate and its key, as PEM.
fn make(names: &[IpAddr], now: SystemTime) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let names: Vec<String> = names.iter().map(ToString::to_string).chain(["localhost".to_owned()]).collect();
    let mut params = CertificateParams::new(names)?;
    params.not_before = (now - LEFT).into();
    params.not_after = (now + LIFE).into();
    let certificate = params.self_signed(&key)?;
    Ok(certificate.pem() + &key.serialize_pem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_kept_until_it_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("page.pem");
        let now = SystemTime::now();
        let opened = |now| open_or_create(&path, &[IpAddr::from([10, 0, 0, 1])], now);
        let first = opened(now).expect("made").fingerprint;
        assert_eq!(first.len(), 32 * 3 - 1);
        assert_eq!(opened(now).expect("kept").fingerprint, first);
        assert_ne!(opened(now + LIFE).expect("made").fingerprint, first);
        std::fs::write(&path, "nonsense").expect("written");
        assert!(opened(now).is_ok(), "what is damaged is made again");
    }
}
