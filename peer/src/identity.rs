//! The identity of this peer: a key made on this machine, one for each user, and the certificate that the
//! tracker issues for it.
//!
//! The key never leaves the machine, except by `export-cert` at the user's request. The peer's id is the hash
//! of its public key. So a lost certificate can be requested again, but a lost key means a new peer.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use program::durable::{self, Readers};
use proto::domain::{PeerId, Username};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::{ClientConfig, ServerConfig, pki_types::pem::PemObject as _};
use tokio::sync::watch;
use tonic::transport::Channel;
use transport::{
    AuthorityFingerprint, ChannelTuning, ClientSecurity, Remote, TlsError, client_config, connect,
    fingerprints, peer_id_of_spki, server_config,
};
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use crate::engine::{BoxFuture, DialError, Dialer};

/// A key and its certificate, ready for use.
pub struct Identity {
    /// The user that it belongs to.
    pub user: Username,
    /// The peer's id.
    pub peer: PeerId,
    /// The certificate, as PEM.
    pub certificate_pem: String,
    /// The tracker's authorities. There are several while one replaces another.
    pub authorities: Vec<AuthorityFingerprint>,
    /// The start of the certificate's validity.
    pub not_before: SystemTime,
    /// The end of the certificate's validity.
    pub not_after: SystemTime,
    /// The TLS configuration that the daemon serves with.
    pub server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("user", &self.user).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The reason why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file can't be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// What the file system answered.
        error: io::Error,
    },
    /// The key or the certificate is damaged, or they don't belong together.
    #[error("the peer's key or certificate can't be used: {0}")]
    Unusable(String),
}

impl From<TlsError> for IdentityError {
    fn from(error: TlsError) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl From<rcgen::Error> for IdentityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// The file of a key that a new one replaced.
const OLD_KEY: &str = "key.pem.old";

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// A user's key on this machine, and the path of its certificate.
#[derive(Debug)]
pub struct PeerKey {
    user: Username,
    key: KeyPair,
    certificate: PathBuf,
    /// The path of the authority that signed the certificate. It need not be the one that signed the tracker's.
    authority: PathBuf,
}

impl PeerKey {
    /// Reads the key in the user's directory, or creates it if there is none.
    ///
    /// # Errors
    /// Fails when the key can't be read, written or used.
    pub fn open_or_create(user: &Username, directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join("key.pem");
        let io_error = |error| IdentityError::Io { path: path.clone(), error };
        let key = match durable::read_secret_if_there(&path).map_err(io_error)?.map(Zeroizing::new) {
            Some(pem) => KeyPair::from_pem(&pem)?,
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                durable::private_dir(directory).map_err(io_error)?;
                let pem = Zeroizing::new(key.serialize_pem());
                durable::write(&path, pem.as_bytes(), Readers::Owner).map_err(io_error)?;
                key
            }
        };
        Ok(Self {
            user: user.clone(),
            key,
            certificate: directory.join("cert.pem"),
            authority: directory.join("authority.pem"),
        })
    }

    /// Puts the key and certificate in the user's directory aside, so that a new key is made.
    ///
    /// # Errors
    /// Fails when the file system does.
    pub fn set_aside(directory: &Path) -> io::Result<()> {
        durable::remove_if_there(&directory.join("cert.pem"))?;
        rename_if_there(&directory.join("key.pem"), &directory.join(OLD_KEY))
    }

    /// Puts the key back that [`PeerKey::set_aside`] put aside.
    ///
    /// # Errors
    /// Fails when the file system does.
    pub fn put_back(directory: &Path) -> io::Result<()> {
        rename_if_there(&directory.join(OLD_KEY), &directory.join("key.pem"))
    }

    /// The id of the peer with this key.
    pub fn peer(&self) -> PeerId {
        peer_id_of_spki(&self.key.subject_public_key_info())
    }

    /// Returns a certificate request, which proves that this machine has the key. It asks for no name: the
    /// tracker assigns one.
    ///
    /// # Errors
    /// Fails when the key can't sign.
    pub fn request(&self) -> Result<Vec<u8>, IdentityError> {
        let request = CertificateParams::default().serialize_request(&self.key)?;
        Ok(request.der().to_vec())
    }

    /// The key as PEM, for `export-cert`.
    pub fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// Saves a certificate that the tracker issued, with the authority that signs those of all peers, and makes
    /// an identity of it.
    ///
    /// # Errors
    /// Fails when the certificate is not for this key, or can't be saved.
    pub fn certify(&self, certificate_pem: String, authority_pem: &str) -> Result<Identity, IdentityError> {
        let identity = self.identity(certificate_pem, authority_pem)?;
        let write = |path: &Path, text: &str| {
            durable::write(path, text.as_bytes(), Readers::Owner)
                .map_err(|error| IdentityError::Io { path: path.to_owned(), error })
        };
        write(&self.authority, authority_pem)?;
        write(&self.certificate, &identity.certificate_pem)?;
        Ok(identity)
    }

    /// The identity with the saved certificate. Returns `None` if no certificate is saved or it is not valid
    /// at `now`. `ca_pem` is the tracker's CA, for a certificate that was saved without its authority.
    pub fn kept(&self, ca_pem: &str, now: SystemTime) -> Option<Identity> {
        let pem = durable::read_if_there(&self.certificate).ok()??;
        let authority = durable::read_if_there(&self.authority).ok()?;
        let authority = authority.and_then(|pem| String::from_utf8(pem).ok());
        let ca_pem = authority.as_deref().unwrap_or(ca_pem);
        let identity = self.identity(String::from_utf8(pem).ok()?, ca_pem).ok()?;
        (identity.not_before <= now && now < identity.not_after).then_some(identity)
    }

    fn identity(&self, certificate_pem: String, ca_pem: &str) -> Result<Identity, IdentityError> {
        let key_pem = self.pem();
        let unusable = |error: &dyn fmt::Display| IdentityError::Unusable(error.to_string());
        let der = rustls::pki_types::CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| unusable(&error))?;
        let (_, parsed) =
            x509_parser::certificate::X509Certificate::from_der(&der).map_err(|error| unusable(&error))?;
        let time = |at: x509_parser::time::ASN1Time| {
            let seconds = u64::try_from(at.timestamp()).unwrap_or_default();
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        };
        let validity = parsed.validity();
        let (not_before, not_after) = (time(validity.not_before), time(validity.not_after));
        if peer_id_of_spki(parsed.public_key().raw) != self.peer() {
            return Err(unusable(&"the certificate belongs to another key"));
        }
        Ok(Identity {
            authorities: fingerprints(ca_pem)?,
            user: self.user.clone(),
            peer: self.peer(),
            server: server_config(&certificate_pem, &key_pem, Some(ca_pem))?,
            client: client_config(ca_pem, Some((&certificate_pem, &key_pem)))?,
            certificate_pem,
            not_before,
            not_after,
        })
    }
}

impl Identity {
    /// The time at which to renew the certificate: after two thirds of its validity.
    pub fn renew_at(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + life * 2 / 3
    }
}

/// Connects to other peers with the identity of the user who is logged in.
#[derive(Debug)]
pub struct PeerDialer(pub watch::Receiver<Option<Arc<Identity>>>);

impl Dialer for PeerDialer {
    fn dial(&self, peer: PeerId, address: &str, window: u32) -> BoxFuture<'_, Result<Channel, DialError>> {
        let identity = self.0.borrow().clone();
        let remote = split_host_port(address);
        let address = address.to_owned();
        Box::pin(async move {
            let identity = identity.ok_or_else(|| DialError::other("nobody is logged in"))?;
            let unusable = || DialError::other(format!("{address:?} is not an IP address and port"));
            let (host, port) = remote.ok_or_else(unusable)?;
            let security =
                ClientSecurity::Tls { config: Arc::clone(&identity.client), server_name: peer.tls_name() };
            let channel =
                connect(Remote::Tcp { host, port }, security, &ChannelTuning::data_within(window)).await;
            channel.map_err(|error| {
                transport::ConnectError::of(&error)
                    .map_or_else(|| DialError::other(error.to_string()), DialError::from)
            })
        })
    }

    fn own_id(&self) -> Option<PeerId> {
        self.0.borrow().as_ref().map(|identity| identity.peer)
    }
}

/// Splits `host:port`. Removes the brackets of an IPv6 address.
pub fn split_host_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!bare.is_empty() && (bare == host) != host.contains(':')).then(|| (bare.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart() {
        for (text, parts) in [
            ("1.2.3.4:5", Some(("1.2.3.4", 5))),
            ("[::1]:5", Some(("::1", 5))),
            ("peer1:7801", Some(("peer1", 7801))),
            ("::1:5", None),
            ("peer1", None),
            (":5", None),
            ("peer1:0", None),
            ("peer1:70000", None),
        ] {
            let expected = parts.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(split_host_port(text), expected, "{text}");
        }
    }
}
