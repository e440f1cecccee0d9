//! The tracker's certificate authority: the authority itself, the tracker's own certificate, and those of the
//! peers.
//!
//! The authority is made once and kept (`ca.key` has mode 0600; `ca.pem` has 0644 and is public). The tracker
//! makes its own certificate again at each start and well before it expires. The key of that certificate is
//! never on disk. Clients trust the authority, so they do not notice. All keys are ECDSA P-256, which every
//! TLS client supports.
//!
//! Non-goals: revocation lists (peers' certificates are short-lived, and tickets control access to data),
//! intermediates.

use std::{
    collections::HashMap,
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use program::durable::{self, Readers};
use proto::domain::{PeerId, expiry};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transport::{TlsError, Validity, peer_id_of_spki, server_config, validity};
use x509_parser::{
    certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer as _,
};
use zeroize::Zeroizing;

const AUTHORITY_LIFE: Duration = Duration::from_hours(24 * 365 * 10);
const OWN_LIFE: Duration = Duration::from_hours(24 * 90);
const PEER_LIFE: Duration = Duration::from_hours(24 * 7);
/// Certificates are valid from this long before their issue, for clients whose clocks are slow.
const BACKDATED: Duration = Duration::from_hours(1);
/// Interval at which the tracker checks whether its own certificate is due for renewal, or was replaced on
/// disk.
const TEND_EVERY: Duration = Duration::from_mins(1);
/// Maximum length of a certificate request, in bytes.
const MAX_CSR: usize = 4 << 10;
/// Names that the tracker's own certificate always has.
const OWN_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "tracker"];

/// The reason why there is no authority, or no certificate of the tracker.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        error: std::io::Error,
    },
    /// A file has invalid content.
    #[error("{path}: {what}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: &'static str,
    },
    /// A certificate is over, or not valid yet.
    #[error("{path}: the certificate {what}")]
    NotValid {
        /// The certificate file.
        path: PathBuf,
        /// Which of the two, and what to do.
        what: &'static str,
    },
    /// A certificate cannot contain this name.
    #[error("{0:?} is not a host name or an IP address")]
    Name(String),
    /// The operator's certificate and key cannot be used.
    #[error("{path}: {error}")]
    Tls {
        /// The certificate file.
        path: PathBuf,
        /// The error of the TLS configuration.
        #[source]
        error: TlsError,
    },
    /// Cryptography failed, for a reason that the caller cannot influence.
    #[error("the certificate can't be created: {0}")]
    Crypto(String),
}

impl From<rcgen::Error> for CaError {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

/// The reason why a certificate request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsrError {
    /// More than 4 KiB.
    TooLong,
    /// Not PKCS #10.
    Malformed,
    /// Not a P-256 key.
    NotP256,
    /// Its private key did not sign it.
    BadSignature,
    /// An internal fault.
    Failed,
}

/// The source of the tracker's own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnCertificate {
    /// Issued by the authority, for the standard names and these.
    Issued(Vec<String>),
    /// The operator's files. They are read again whenever they change.
    Files {
        /// PEM, the certificate first.
        chain: PathBuf,
        /// PEM.
        key: PathBuf,
    },
}

/// A certificate for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCert {
    /// The peer that the certified key belongs to.
    pub peer: PeerId,
    /// PEM.
    pub certificate_pem: String,
    /// The end of its validity.
    pub expires: SystemTime,
}

/// The certificate authority, and the tracker's own TLS configuration.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    own: OwnCertificate,
    config: watch::Sender<Option<Arc<ServerConfig>>>,
    /// The end of the tracker's own certificate, in seconds since 1970.
    own_ends: AtomicU64,
}

/// A certificate, and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateEnd {
    /// `own` or `authority`.
    pub name: &'static str,
    /// The end of its validity.
    pub ends: SystemTime,
    /// The time left at which it is renewed by itself, if it is.
    renewed_with: Option<Duration>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority in the data directory, or makes it there. Then makes or reads the tracker's own
    /// certificate.
    ///
    /// # Errors
    /// Fails if a file cannot be read or written or is broken, or if a certificate cannot contain a name. A
    /// broken file is never replaced.
    pub fn open_or_create(data_dir: &Path, own: OwnCertificate, now: SystemTime) -> Result<Self, CaError> {
        let (key, ca_pem) = open_or_create_root(data_dir, now)?;
        Self::new(key, ca_pem, own, now)
    }

    /// Uses an authority that is kept elsewhere, in PEM. Then makes or reads the tracker's own certificate.
    pub(crate) fn of_root(
        key: &str,
        ca_pem: String,
        own: OwnCertificate,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let broken = |what| CaError::Broken { path: "the authority in the database".into(), what };
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| broken("its key is not a P-256 private key"))?;
        check_root(&ca_pem, &key, now).map_err(broken)?;
        Self::new(key, ca_pem, own, now)
    }

    fn new(key: KeyPair, ca_pem: String, own: OwnCertificate, now: SystemTime) -> Result<Self, CaError> {
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key)?;
        let (config, own_ends) = (watch::Sender::new(None), AtomicU64::new(0));
        let authority = Self { issuer, ca_pem, own, config, own_ends };
        authority.config.send_replace(Some(authority.own_config(now)?));
        Ok(authority)
    }

    /// The authority's certificate, which clients and peers trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Writes the authority's certificate to another path, readable by everybody.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write_ca(&self, path: &Path) -> Result<(), CaError> {
        write(path, self.ca_pem.as_bytes(), Readers::All)
    }

    /// The tracker's own TLS configuration, with its renewals.
    pub fn server_config(&self) -> watch::Receiver<Option<Arc<ServerConfig>>> {
        self.config.subscribe()
    }

    /// Issues a certificate for a peer's key, valid for 7 days. Only the key is used of the request, and the
    /// key must have signed the request. The only name in the certificate is the peer's name, derived from
    /// the key.
    ///
    /// # Errors
    /// Fails if the request is not PKCS #10, is not signed by its key, or has a key other than P-256.
    pub fn issue_peer(&self, csr_der: &[u8], now: SystemTime) -> Result<IssuedCert, CsrError> {
        let key = requested_key(csr_der)?;
        let peer = peer_id_of_spki(&key.subject_public_key_info());
        let expires = now + PEER_LIFE;
        let mut params = leaf_params(now, expires);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        params.subject_alt_names = vec![dns_name(&peer.tls_name()).map_err(|_| CsrError::Failed)?];
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| {
            tracing::error!(%error, "a peer's certificate can't be signed");
            CsrError::Failed
        })?;
        Ok(IssuedCert { peer, certificate_pem: certificate.pem(), expires })
    }

    /// Keeps the tracker's own certificate valid until `shutdown`. It is renewed after two thirds of its
    /// life, or read again when its files change. Open connections are not affected.
    pub async fn tend(&self, shutdown: CancellationToken) {
        let mut warned = HashMap::new();
        self.warn(&mut warned, SystemTime::now());
        let mut issued = SystemTime::now();
        let mut files = self.own_files().ok();
        while shutdown.run_until_cancelled(tokio::time::sleep(TEND_EVERY)).await.is_some() {
            let now = SystemTime::now();
            self.warn(&mut warned, now);
            let due = match self.own {
                OwnCertificate::Issued(_) => {
                    now.duration_since(issued).is_ok_and(|age| age >= OWN_LIFE * 2 / 3)
                }
                OwnCertificate::Files { .. } => {
                    let found = self.own_files().ok();
                    std::mem::replace(&mut files, found.clone()) != found
                }
            };
            if due {
                match self.own_config(now) {
                    Ok(config) => {
                        issued = now;
                        self.config.send_replace(Some(config));
                        tracing::info!("the tracker's certificate was renewed");
                    }
                    Err(error) => tracing::error!(%error, "the tracker's certificate can't be renewed"),
                }
            }
        }
    }

    fn own_config(&self, now: SystemTime) -> Result<Arc<ServerConfig>, CaError> {
        let (path, (chain, key)) = match &self.own {
            OwnCertificate::Issued(names) => (PathBuf::from("own certificate"), self.issue_own(names, now)?),
            OwnCertificate::Files { chain, .. } => (chain.clone(), self.own_files()?),
        };
        let tls = |error| CaError::Tls { path: path.clone(), error };
        let config = server_config(&chain, &key, None).map_err(tls)?;
        let Validity { not_before, not_after } = validity(&chain).map_err(tls)?;
        if now >= not_after {
            return Err(CaError::NotValid { path, what: "has ended; put a new pair there" });
        }
        if now < not_before {
            let what = "is not valid yet; is the clock of this host right?";
            return Err(CaError::NotValid { path, what });
        }
        self.own_ends.store(since_1970(not_after), Ordering::Relaxed);
        Ok(config)
    }

    /// When the tracker's own certificate and the authority end.
    pub fn ends(&self) -> Vec<CertificateEnd> {
        let own_ends = UNIX_EPOCH + Duration::from_secs(self.own_ends.load(Ordering::Relaxed));
        let renewed_with = match self.own {
            OwnCertificate::Issued(_) => Some(OWN_LIFE / 3),
            OwnCertificate::Files { .. } => None,
        };
        let own = CertificateEnd { name: "own", ends: own_ends, renewed_with };
        let authority = validity(&self.ca_pem).ok();
        let authority = authority.map(|validity| CertificateEnd {
            name: "authority",
            ends: validity.not_after,
            renewed_with: None,
        });
        std::iter::once(own).chain(authority).collect()
    }

    /// Logs a warning when one more of the days before the end of a certificate has come.
    fn warn(&self, warned: &mut HashMap<&'static str, Option<u32>>, now: SystemTime) {
        for CertificateEnd { name, ends, renewed_with } in self.ends() {
            let left = ends.duration_since(now).unwrap_or_default();
            let days = expiry::warning(left, renewed_with);
            if warned.insert(name, days) != Some(days)
                && let Some(days) = days
            {
                let hours = left.as_secs() / 3_600;
                tracing::warn!(
                    certificate = name,
                    days,
                    hours,
                    "a certificate ends soon: replace it in time"
                );
            }
        }
    }

    /// The operator's chain and key. Empty if the certificate is issued by the authority.
    fn own_files(&self) -> Result<(String, String), CaError> {
        let OwnCertificate::Files { chain, key } = &self.own else { return Ok(Default::default()) };
        let read = |path: &PathBuf| {
            fs::read_to_string(path).map_err(|error| CaError::File { path: path.clone(), error })
        };
        Ok((read(chain)?, read(key)?))
    }

    /// A new certificate and key. The authority's certificate follows in the chain, for clients that fetch it
    /// before they trust it.
    fn issue_own(&self, names: &[String], now: SystemTime) -> Result<(String, String), CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = leaf_params(now, now + OWN_LIFE);
        let mut all: Vec<&str> = OWN_NAMES.into_iter().chain(names.iter().map(String::as_str)).collect();
        all.sort_unstable();
        all.dedup();
        params.subject_alt_names = all.into_iter().map(name).collect::<Result<_, _>>()?;
        params.distinguished_name = common_name("Mini Torrent tracker");
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem() + &self.ca_pem, key.serialize_pem()))
    }
}

/// The authority's key and certificate. The key is written first. If only the key exists, the certificate was
/// never given out, and a new one is made from the key.
fn open_or_create_root(data_dir: &Path, now: SystemTime) -> Result<(KeyPair, String), CaError> {
    let (key_path, pem_path) = (data_dir.join("ca.key"), data_dir.join("ca.pem"));
    let key = durable::read_secret_if_there(&key_path);
    let key = key.map_err(|error| CaError::File { path: key_path.clone(), error })?;
    let pem = durable::read_if_there(&pem_path);
    let pem = pem.map_err(|error| CaError::File { path: pem_path.clone(), error })?;
    let pem = pem.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let key = match (key, &pem) {
        (Some(text), _) => {
            let what = "the file is not a P-256 private key in PEM format; restore the original file";
            KeyPair::from_pkcs8_pem_and_sign_algo(&text, &PKCS_ECDSA_P256_SHA256)
                .map_err(|_| CaError::Broken { path: key_path, what })?
        }
        (None, Some(_)) => {
            let what = "the key of ca.pem is missing; restore it, or remove ca.pem to create a new authority";
            return Err(CaError::Broken { path: key_path, what });
        }
        (None, None) => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            write(&key_path, key.serialize_pem().as_bytes(), Readers::Owner)?;
            key
        }
    };
    match pem {
        Some(pem) => {
            check_root(&pem, &key, now).map_err(|what| CaError::Broken { path: pem_path, what })?;
            Ok((key, pem))
        }
        None => {
            let pem = self_signed(&key, now)?;
            write(&pem_path, pem.as_bytes(), Readers::All)?;
            Ok((key, pem))
        }
    }
}

/// Makes a new authority: its key and its certificate, in PEM.
pub(crate) fn new_root(now: SystemTime) -> Result<(Zeroizing<String>, String), CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let pem = self_signed(&key, now)?;
    Ok((Zeroizing::new(key.serialize_pem()), pem))
}

fn self_signed(key: &KeyPair, now: SystemTime) -> Result<String, CaError> {
    let mut params = base_params(now, now + AUTHORITY_LIFE);
    // The id of the key in the name distinguishes the authorities of two trackers in a trust store.
    let id = peer_id_of_spki(&key.subject_public_key_info()).to_string();
    params.distinguished_name = common_name(&format!("Mini Torrent authority {}", &id[..8]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params.self_signed(key)?.pem())
}

fn check_root(pem: &str, key: &KeyPair, now: SystemTime) -> Result<(), &'static str> {
    let broken = "the file is not a certificate in PEM format; restore the original file";
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|_| broken)?;
    let certificate = pem.parse_x509().map_err(|_| broken)?;
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err("ca.key is not the key of ca.pem; restore the original files");
    }
    let ends = certificate.validity().not_after.timestamp();
    if i64::try_from(since_1970(now)).is_ok_and(|now| now >= ends) {
        return Err(
            "the authority's certificate has expired; remove ca.pem and ca.key to create a new authority",
        );
    }
    Ok(())
}

/// The public key of a certificate request. The request must be signed with the matching private key.
fn requested_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, CsrError> {
    if csr_der.len() > MAX_CSR {
        return Err(CsrError::TooLong);
    }
    let (rest, csr) = X509CertificationRequest::from_der(csr_der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let spki = csr.certification_request_info.subject_pki.raw;
    let key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| CsrError::NotP256)?;
    if *key.algorithm() != PKCS_ECDSA_P256_SHA256 {
        return Err(CsrError::NotP256);
    }
    csr.verify_signature().map_err(|_| CsrError::BadSignature)?;
    Ok(key)
}

fn leaf_params(now: SystemTime, expires: SystemTime) -> CertificateParams {
    let mut params = base_params(now, expires);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn base_params(now: SystemTime, expires: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now - BACKDATED).into();
    params.not_after = expires.into();
    params.use_authority_key_identifier_extension = true;
    // 127 random bits, positive and unique: clients confuse certificates with the same issuer and serial.
    let mut serial = rand::random::<[u8; 16]>();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn name(text: &str) -> Result<SanType, CaError> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SanType::IpAddress(ip)),
        Err(_) => dns_name(text),
    }
}

fn dns_name(text: &str) -> Result<SanType, CaError> {
    let bad = || CaError::Name(text.to_owned());
    // This is the TLS library's rule for host names. A name that the library would refuse later must be
    // refused now.
    rustls::pki_types::DnsName::try_from(text).map_err(|_| bad())?;
    Ok(SanType::DnsName(text.try_into().map_err(|_| bad())?))
}

fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn write(path: &Path, contents: &[u8], readers: Readers) -> Result<(), CaError> {
    durable::write(path, contents, readers).map_err(|error| CaError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    use tokio_rustls::{TlsAcceptor, TlsConnector};
    use transport::{client_config, peer_of_certificate};

    use super::*;

    fn open(directory: &Path, names: &[&str]) -> Authority {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Authority::open_or_create(directory, OwnCertificate::Issued(names), SystemTime::now())
            .expect("opened")
    }

    /// Whether a client that trusts `ca_pem` completes the handshake with the server as `name`.
    async fn accepted(authority: &Authority, ca_pem: &str, name: &str) -> bool {
        let config = authority.server_config().borrow().clone().expect("there is a certificate");
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let server = tokio::spawn(async move { TlsAcceptor::from(config).accept(ours).await.is_ok() });
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let client = TlsConnector::from(client_config(ca_pem, None).expect("good PEM"));
        let connected = client.connect(name, theirs).await.is_ok();
        connected && server.await.expect("no panic")
    }

    fn csr(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
        params.serialize_request(key).expect("a request").der().to_vec()
    }

    fn p256() -> KeyPair {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
    }

    #[tokio::test]
    async fn the_authority_is_made_once_and_new_names_only_change_the_certificate() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let first = open(directory.path(), &[]);
        let mode = |name: &str| {
            let metadata = fs::metadata(directory.path().join(name)).expect("it is there");
            metadata.permissions().mode() & 0o777
        };
        assert_eq!((mode("ca.key"), mode("ca.pem")), (0o600, 0o644));
        for name in ["localhost", "127.0.0.1", "::1", "tracker"] {
            assert!(accepted(&first, first.ca_pem(), name).await, "{name}");
        }
        assert!(!accepted(&first, first.ca_pem(), "tracker.example").await);

        let second = open(directory.path(), &["tracker.example", "192.0.2.7", "localhost"]);
        assert_eq!(first.ca_pem(), second.ca_pem());
        for name in ["tracker.example", "192.0.2.7", "localhost"] {
            assert!(accepted(&second, first.ca_pem(), name).await, "{name}");
        }
        let stranger = tempfile::tempdir().expect("a temporary directory");
        let stranger = open(stranger.path(), &[]);
        assert!(!accepted(&second, stranger.ca_pem(), "localhost").await);

        let copy = directory.path().join("copy.pem");
        second.write_ca(&copy).expect("written");
        assert_eq!(fs::read_to_string(copy).expect("readable"), second.ca_pem());
        let bad = OwnCertificate::Issued(vec!["not a name".into()]);
        let bad = Authority::open_or_create(directory.path(), bad, SystemTime::now());
        assert!(matches!(bad, Err(CaError::Name(_))));
    }

    #[tokio::test]
    async fn the_operators_own_certificate_is_read_again_and_the_authority_stays() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let issuer = tempfile::tempdir().expect("a temporary directory");
        let issuer = open(issuer.path(), &[]);
        let (chain, key) = issuer.issue_own(&["own.example".into()], SystemTime::now()).expect("issued");
        let (chain_path, key_path) = (directory.path().join("own.pem"), directory.path().join("own.key"));
        let own = OwnCertificate::Files { chain: chain_path.clone(), key: key_path.clone() };
        let open = || Authority::open_or_create(directory.path(), own.clone(), SystemTime::now());
        assert!(matches!(open(), Err(CaError::File { .. })), "no files yet");
        fs::write(&chain_path, &chain).expect("written");
        fs::write(&key_path, p256().serialize_pem()).expect("written");
        assert!(matches!(open(), Err(CaError::Tls { .. })), "another certificate's key");
        fs::write(&key_path, key).expect("written");
        let authority = open().expect("opened");
        assert!(accepted(&authority, issuer.ca_pem(), "own.example").await);
        assert_ne!(authority.ca_pem(), issuer.ca_pem());
    }

    #[test]
    fn a_broken_authority_is_never_replaced() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        let ca_pem = open(directory.path(), &[]).ca_pem;
        let (key, own) = (fs::read(path("ca.key")).expect("there"), OwnCertificate::Issued(Vec::new()));
        let broken = |now| {
            let opened = Authority::open_or_create(directory.path(), own.clone(), now);
            assert!(matches!(opened, Err(CaError::Broken { .. })));
        };
        fs::write(path("ca.key"), p256().serialize_pem()).expect("written");
        broken(SystemTime::now());
        fs::write(path("ca.key"), "").expect("written");
        broken(SystemTime::now());
        fs::remove_file(path("ca.key")).expect("removed");
        broken(SystemTime::now());
        assert_eq!(fs::read_to_string(path("ca.pem")).expect("there"), ca_pem);
        fs::write(path("ca.key"), &key).expect("written");
        broken(SystemTime::now() + AUTHORITY_LIFE);
        fs::write(path("ca.pem"), "not PEM").expect("written");
        broken(SystemTime::now());
        // The state after a crash between the first two writes.
        fs::remove_file(path("ca.pem")).expect("removed");
        open(directory.path(), &[]);
        assert_eq!(fs::read(path("ca.key")).expect("there"), key);
    }

    /// A pair in files that is valid between these days from now.
    fn pair(directory: &Path, days: std::ops::Range<i64>) -> OwnCertificate {
        let day = |days: i64| {
            let length = Duration::from_hours(24) * u32::try_from(days.unsigned_abs()).expect("few");
            if days < 0 { SystemTime::now() - length } else { SystemTime::now() + length }
        };
        let mut params = leaf_params(SystemTime::now(), day(days.end));
        params.not_before = day(days.start).into();
        params.subject_alt_names = vec![dns_name("localhost").expect("a name")];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let (chain, key_path) = (directory.join("own.pem"), directory.join("own.key"));
        fs::write(&chain, params.self_signed(&key).expect("signed").pem()).expect("written");
        fs::write(&key_path, key.serialize_pem()).expect("written");
        OwnCertificate::Files { chain, key: key_path }
    }

    #[test]
    fn a_pair_that_is_over_or_not_valid_yet_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        for (days, says) in [(-9..-1, "has ended"), (2..9, "not valid yet")] {
            let own = pair(dir.path(), days);
            let error = Authority::open_or_create(dir.path(), own, SystemTime::now()).expect_err(says);
            assert!(error.to_string().contains(says) && error.to_string().contains("own.pem"), "{error}");
        }
        let own = pair(dir.path(), -1..20);
        let authority = Authority::open_or_create(dir.path(), own, SystemTime::now()).expect("a good pair");
        // The same check guards a renewal: the old pair stays in use.
        pair(dir.path(), -9..-1);
        assert!(authority.own_config(SystemTime::now()).is_err());
        let [own, root] = authority.ends()[..] else { panic!("two certificates") };
        let mut warned = HashMap::new();
        authority.warn(&mut warned, SystemTime::now());
        assert_eq!(warned, HashMap::from([(own.name, Some(30)), (root.name, None)]));
        authority.warn(&mut warned, SystemTime::now() + Duration::from_hours(24 * 15));
        assert_eq!(warned[own.name], Some(7));
    }

    #[test]
    fn a_peers_certificate_bears_the_name_of_its_key_whatever_was_asked() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (authority, now, key) = (open(directory.path(), &[]), SystemTime::now(), p256());
        let other = PeerId::from([9; 32]);
        let mut params = CertificateParams::new([other.tls_name(), "localhost".into()]).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = common_name("root");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.custom_extensions =
            vec![rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![4, 1, 0])];
        let issued = authority.issue_peer(&csr(&params, &key), now).expect("issued");

        assert_eq!(issued.expires, now + PEER_LIFE);
        assert_eq!(issued.peer, peer_id_of_spki(&key.subject_public_key_info()));
        let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("PEM");
        assert_eq!(peer_of_certificate(&der), Some(issued.peer));
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
        assert!(!certificate.is_ca());
        assert_eq!(certificate.subject().iter().count(), 0);
        let usage = certificate.extended_key_usage().expect("well-formed").expect("there").value;
        assert!(usage.client_auth && usage.server_auth && !usage.any);
        let extensions = certificate.extensions().iter().map(|extension| extension.oid.to_id_string());
        assert!(!extensions.into_iter().any(|oid| oid == "1.2.3.4"));
        let (_, ca) = parse_x509_pem(authority.ca_pem().as_bytes()).expect("PEM");
        let ca = ca.parse_x509().expect("a certificate");
        assert!(certificate.verify_signature(Some(ca.public_key())).is_ok());
        let limits = ca.basic_constraints().expect("well-formed").expect("there").value;
        assert_eq!((limits.ca, limits.path_len_constraint), (true, Some(0)));
    }

    #[test]
    fn only_p256_requests_signed_by_their_own_key_are_taken() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (authority, params) = (open(directory.path(), &[]), CertificateParams::default());
        let refusal = |der: &[u8]| authority.issue_peer(der, SystemTime::now()).expect_err("refused");
        let good = csr(&params, &p256());
        let peer = authority.issue_peer(&good, SystemTime::now()).expect("issued").peer;
        for kind in [&PKCS_ED25519, &PKCS_ECDSA_P384_SHA384] {
            let key = KeyPair::generate_for(kind).expect("a key");
            assert_eq!(refusal(&csr(&params, &key)), CsrError::NotP256);
        }
        let mut forged = good.clone();
        *forged.last_mut().expect("not empty") ^= 1;
        assert_eq!(refusal(&forged), CsrError::BadSignature);
        assert_eq!(refusal(&[good.clone(), vec![0]].concat()), CsrError::Malformed);
        assert_eq!(refusal(&[]), CsrError::Malformed);
        assert_eq!(refusal(&vec![0x30; MAX_CSR + 1]), CsrError::TooLong);
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0x10;
            // A changed tag outside the signed part may be accepted. Another key is never accepted.
            let issued = authority.issue_peer(&changed, SystemTime::now());
            assert!(issued.is_err() || issued.is_ok_and(|issued| issued.peer == peer), "byte {at}");
        }
    }
}
