//! The tracker's certificate authority: its own certificate, and those of the peers.
//!
//! The authority is made once and kept (`ca.key` 0600, `ca.pem` 0644 is for everybody). The tracker's own certificate is
//! made anew at each start and well before it runs out, its key never on disk; clients trust the authority, so they
//! don't notice. ECDSA P-256 throughout, which every TLS client speaks.
//!
//! Non-goals: revocation lists (peers' certificates are short-lived, and tickets decide about data), intermediates.

use std::{
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::{
    domain::PeerId,
    durable::{self, Readers},
    transport::{TlsError, peer_id_of_spki, server_config},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use x509_parser::{
    certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer as _,
};

const AUTHORITY_LIFE: Duration = Duration::from_hours(24 * 365 * 10);
const OWN_LIFE: Duration = Duration::from_hours(24 * 90);
const PEER_LIFE: Duration = Duration::from_hours(24 * 7);
/// Certificates count from a while ago, for clients whose clocks are behind.
const BACKDATED: Duration = Duration::from_hours(1);
/// How often the tracker looks whether its own certificate should be renewed, or was replaced on disk.
const TEND_EVERY: Duration = Duration::from_mins(1);
/// Longest certificate request, in bytes.
const MAX_CSR: usize = 4 << 10;
/// Names that the tracker's own certificate always bears.
const OWN_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "tracker"];

/// Why there is no authority, or no certificate of its own.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file can't be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {what}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: &'static str,
    },
    /// A name can't be in a certificate.
    #[error("not a host name or an IP address: {0:?}")]
    Name(String),
    /// Certificate and key of the operator's own can't be used.
    #[error("{path}: {error}")]
    Tls {
        /// The certificate file.
        path: PathBuf,
        /// Why.
        #[source]
        error: TlsError,
    },
    /// Cryptography failed; not for any reason of the caller's.
    #[error("can't make a certificate: {0}")]
    Crypto(String),
}

impl From<rcgen::Error> for CaError {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

/// Why a certificate request is refused.
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
    /// A fault of ours.
    Failed,
}

/// Where the tracker's own certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnCertificate {
    /// Issued by the authority, for the names that are always there and these.
    Issued(Vec<String>),
    /// The operator's. The files are read again whenever they change.
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
    /// The peer with the key that was certified.
    pub peer: PeerId,
    /// PEM.
    pub certificate_pem: String,
    /// When it runs out.
    pub expires: SystemTime,
}

/// The certificate authority, and the tracker's own TLS.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    own: OwnCertificate,
    config: watch::Sender<Option<Arc<ServerConfig>>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority in the data directory, or makes it there; then the tracker's own certificate.
    ///
    /// # Errors
    /// When a file can't be read or written or is broken (nothing is ever made anew over a broken one), or a name can't
    /// be in a certificate.
    pub fn open_or_create(data_dir: &Path, own: OwnCertificate, now: SystemTime) -> Result<Self, CaError> {
        let (key, ca_pem) = open_or_create_root(data_dir, now)?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key)?;
        let authority = Self { issuer, ca_pem, own, config: watch::Sender::new(None) };
        authority.config.send_replace(Some(authority.own_config(now)?));
        Ok(authority)
    }

    /// The authority's certificate: what clients and peers trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Writes the authority's certificate to a second place, readable by everybody.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_ca(&self, path: &Path) -> Result<(), CaError> {
        write(path, self.ca_pem.as_bytes(), Readers::All)
    }

    /// The tracker's own TLS, now and as it is renewed.
    pub fn server_config(&self) -> watch::Receiver<Option<Arc<ServerConfig>>> {
        self.config.subscribe()
    }

    /// Certifies a peer's key for 7 days. Only the key is taken from the request, which it must have signed; the one
    /// name in the certificate is the peer's, made from the key.
    ///
    /// # Errors
    /// When the request is not PKCS #10, not signed by its key, or not of a P-256 key.
    pub fn issue_peer(&self, csr_der: &[u8], now: SystemTime) -> Result<IssuedCert, CsrError> {
        let key = requested_key(csr_der)?;
        let peer = peer_id_of_spki(&key.subject_public_key_info());
        let expires = now + PEER_LIFE;
        let mut params = leaf_params(now, expires);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        params.subject_alt_names = vec![dns_name(&peer.tls_name()).map_err(|_| CsrError::Failed)?];
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| {
            tracing::error!(%error, "can't sign a peer's certificate");
            CsrError::Failed
        })?;
        Ok(IssuedCert { peer, certificate_pem: certificate.pem(), expires })
    }

    /// Keeps the tracker's own certificate fresh until `shutdown`: renewed after two thirds of its life, or read again
    /// when its files change. Connections that stand are not disturbed.
    pub async fn tend(&self, shutdown: CancellationToken) {
        let mut issued = SystemTime::now();
        let mut files = self.own_files().ok();
        while shutdown.run_until_cancelled(tokio::time::sleep(TEND_EVERY)).await.is_some() {
            let now = SystemTime::now();
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
        server_config(&chain, &key, None).map_err(|error| CaError::Tls { path, error })
    }

    /// The operator's chain and key; empty when there are none.
    fn own_files(&self) -> Result<(String, String), CaError> {
        let OwnCertificate::Files { chain, key } = &self.own else { return Ok(Default::default()) };
        let read = |path: &PathBuf| {
            fs::read_to_string(path).map_err(|error| CaError::File { path: path.clone(), error })
        };
        Ok((read(chain)?, read(key)?))
    }

    /// A new certificate and key, and the authority's certificate at the end, for those who want to look at it before
    /// they trust it.
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

/// The authority's key and certificate. The key is written first: with the key alone, the certificate was never handed
/// out, and is made from it again.
fn open_or_create_root(data_dir: &Path, now: SystemTime) -> Result<(KeyPair, String), CaError> {
    let (key_path, pem_path) = (data_dir.join("ca.key"), data_dir.join("ca.pem"));
    let key = durable::read_secret_if_there(&key_path);
    let key = key.map_err(|error| CaError::File { path: key_path.clone(), error })?;
    let pem = durable::read_if_there(&pem_path);
    let pem = pem.map_err(|error| CaError::File { path: pem_path.clone(), error })?;
    let pem = pem.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let key = match (key, &pem) {
        (Some(text), _) => {
            let what = "not a P-256 private key in PEM; put back the file that belongs here";
            KeyPair::from_pkcs8_pem_and_sign_algo(&text, &PKCS_ECDSA_P256_SHA256)
                .map_err(|_| CaError::Broken { path: key_path, what })?
        }
        (None, Some(_)) => {
            let what =
                "the key of ca.pem is missing; put it back, or remove ca.pem to begin with a new authority";
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

fn self_signed(key: &KeyPair, now: SystemTime) -> Result<String, CaError> {
    let mut params = base_params(now, now + AUTHORITY_LIFE);
    // The key's own id in the name keeps two trackers' authorities apart in a trust store.
    let id = peer_id_of_spki(&key.subject_public_key_info()).to_string();
    params.distinguished_name = common_name(&format!("Mini Torrent authority {}", &id[..8]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params.self_signed(key)?.pem())
}

fn check_root(pem: &str, key: &KeyPair, now: SystemTime) -> Result<(), &'static str> {
    let broken = "not a certificate in PEM; put back the file that belongs here";
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|_| broken)?;
    let certificate = pem.parse_x509().map_err(|_| broken)?;
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err("ca.pem and ca.key don't belong together; put back the right ones");
    }
    let ends = certificate.validity().not_after.timestamp();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if i64::try_from(now).is_ok_and(|now| now >= ends) {
        return Err("the authority has run out; remove ca.pem and ca.key to begin with a new one");
    }
    Ok(())
}

/// The key that a certificate request is for, once it proved that it holds the private one.
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
    // 127 random bits, positive and never the same: clients mix up certificates of one issuer and serial.
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
    // The TLS library's own idea of a host name: one that it would refuse later must be refused now.
    rustls::pki_types::DnsName::try_from(text).map_err(|_| bad())?;
    Ok(SanType::DnsName(text.try_into().map_err(|_| bad())?))
}

fn write(path: &Path, contents: &[u8], readers: Readers) -> Result<(), CaError> {
    durable::write(path, contents, readers).map_err(|error| CaError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proto::transport::{client_config, peer_of_certificate};
    use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    fn open(directory: &Path, names: &[&str]) -> Authority {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Authority::open_or_create(directory, OwnCertificate::Issued(names), SystemTime::now())
            .expect("opened")
    }

    /// Whether a client that trusts `ca_pem` takes the server for `name`, over the whole handshake.
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
        // As after a crash between the two first writes.
        fs::remove_file(path("ca.pem")).expect("removed");
        open(directory.path(), &[]);
        assert_eq!(fs::read(path("ca.key")).expect("there"), key);
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
            // A changed tag outside of what is signed may pass; another key never does.
            let issued = authority.issue_peer(&changed, SystemTime::now());
            assert!(issued.is_err() || issued.is_ok_and(|issued| issued.peer == peer), "byte {at}");
        }
    }
}
