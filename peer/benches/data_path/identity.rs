//! Who the two engines are, and how the one reaches the other. The serving process makes it all and leaves in a folder
//! what the fetching one needs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use peer::engine::{BoxFuture, DialError, Dialer, TicketRefused, TicketSource};
use proto::{
    domain::{Blake3, FileId, GroupId, PeerId},
    ticket::{Claims, Signer, VerifyingKey},
    transport::{
        ChannelTuning, ClientSecurity, Remote, client_config, connect, peer_id_of_spki, server_config,
    },
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use tonic::transport::Channel;

/// The seed of the key that signs the bench's tickets.
const TICKET_SEED: [u8; 32] = [7; 32];

/// The file that is moved.
pub(super) fn file_id() -> Result<FileId> {
    Ok(FileId::try_from(&[1; 16][..])?)
}

/// The group that it is in.
pub(super) fn group() -> Result<GroupId> {
    "bench".parse().context("a valid name")
}

/// Where the parts of an identity are.
struct Kept {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

fn kept(dir: &Path, who: &str) -> Kept {
    Kept {
        certificate: dir.join(format!("{who}.pem")),
        key: dir.join(format!("{who}.key")),
        ca: dir.join("ca.pem"),
    }
}

/// Makes an authority and the identities `seeder` and `leecher` by it.
pub(super) fn make_all(dir: &Path) -> Result<()> {
    let ca_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = params.self_signed(&ca_key)?;
    fs::create_dir_all(dir)?;
    fs::write(dir.join("ca.pem"), ca.pem())?;
    let issuer = Issuer::new(params, ca_key);
    for who in ["seeder", "leecher"] {
        let key = KeyPair::generate()?;
        let name = peer_id_of_spki(&key.subject_public_key_info()).tls_name();
        let certificate = CertificateParams::new(vec![name])?.signed_by(&key, &issuer)?;
        let files = kept(dir, who);
        fs::write(files.certificate, certificate.pem())?;
        fs::write(files.key, key.serialize_pem())?;
    }
    Ok(())
}

/// The peer that `who` is.
pub(super) fn peer_id(dir: &Path, who: &str) -> Result<PeerId> {
    let key = KeyPair::from_pem(&fs::read_to_string(kept(dir, who).key)?)?;
    Ok(peer_id_of_spki(&key.subject_public_key_info()))
}

/// The seeder's side of TLS.
pub(super) fn server(dir: &Path) -> Result<Arc<ServerConfig>> {
    let files = kept(dir, "seeder");
    let ca = fs::read_to_string(files.ca)?;
    let chain = fs::read_to_string(files.certificate)? + &ca;
    Ok(server_config(&chain, &fs::read_to_string(files.key)?, Some(&ca))?)
}

/// The keys that the bench's tickets are verified with.
pub(super) fn ticket_keys() -> Result<Vec<VerifyingKey>> {
    Ok(vec![signer()?.verifying_key().clone()])
}

fn signer() -> Result<Signer> {
    Signer::from_seed(&TICKET_SEED).context("the seed is of no key")
}

/// Signs its own tickets, as the tracker would.
pub(super) struct Tickets(Arc<str>);

impl Tickets {
    /// Tickets for `peer` to fetch the file with this root.
    pub(super) fn of(peer: PeerId, root: Blake3) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = Claims {
            user: "leecher".parse().context("a valid name")?,
            group: group()?,
            file: file_id()?,
            root,
            peer,
            epoch: 1,
            issued: now,
            not_before: now,
            expires: now + 900,
            id: [0; 16],
        };
        Ok(Self(signer()?.sign(&claims).into()))
    }
}

impl TicketSource for Tickets {
    fn ticket(&self, _: &GroupId, _: FileId, _: bool) -> BoxFuture<'_, Result<Arc<str>, TicketRefused>> {
        let ticket = Arc::clone(&self.0);
        Box::pin(async move { Ok(ticket) })
    }
}

/// Dials over TLS as the leecher, or in the open.
pub(super) struct Dial {
    own: PeerId,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Dial {
    /// As `who`.
    pub(super) fn of(dir: &Path, who: &str, tls: bool) -> Result<Self> {
        let files = kept(dir, who);
        let tls = if tls {
            let ca = fs::read_to_string(files.ca)?;
            let (chain, key) = (fs::read_to_string(files.certificate)?, fs::read_to_string(files.key)?);
            Some(client_config(&ca, Some((&chain, &key)))?)
        } else {
            None
        };
        Ok(Self { own: peer_id(dir, who)?, tls })
    }
}

impl Dialer for Dial {
    fn dial(&self, peer: PeerId, address: &str) -> BoxFuture<'_, Result<Channel, DialError>> {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
        let remote = Remote::Tcp { host: host.to_owned(), port: port.parse().unwrap_or(0) };
        let security = match &self.tls {
            None => ClientSecurity::Plaintext,
            Some(config) => ClientSecurity::Tls { config: Arc::clone(config), server_name: peer.tls_name() },
        };
        Box::pin(async move {
            connect(remote, security, &ChannelTuning::data())
                .await
                .map_err(|error| DialError(error.to_string()))
        })
    }

    fn own_id(&self) -> Option<PeerId> {
        Some(self.own)
    }
}
