//! The identities of the two engines, and the connection between them. The serving process creates everything
//! and leaves the files that the fetching process needs in a directory.

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
};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use testkit::authority::Authority;
use tonic::transport::Channel;
use transport::{
    ChannelTuning, ClientSecurity, Remote, client_config, connect, peer_id_of_spki, server_config,
};

/// The seed of the key that signs the benchmark's tickets.
const TICKET_SEED: [u8; 32] = [7; 32];

/// The id of the file that is transferred.
pub(super) fn file_id() -> Result<FileId> {
    Ok(FileId::try_from(&[1; 16][..])?)
}

/// The group of the file.
pub(super) fn group() -> Result<GroupId> {
    "bench".parse().context("a valid name")
}

/// The paths of the parts of an identity.
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

/// Creates a certificate authority, and the identities `seeder` and `leecher` signed by it.
pub(super) fn make_all(dir: &Path) -> Result<()> {
    let authority = Authority::new();
    fs::create_dir_all(dir)?;
    fs::write(dir.join("ca.pem"), &authority.pem)?;
    for who in ["seeder", "leecher"] {
        let identity = authority.peer();
        let files = kept(dir, who);
        fs::write(files.certificate, identity.chain)?;
        fs::write(files.key, identity.key)?;
    }
    Ok(())
}

/// The peer id of the identity `who`.
pub(super) fn peer_id(dir: &Path, who: &str) -> Result<PeerId> {
    let key = KeyPair::from_pem(&fs::read_to_string(kept(dir, who).key)?)?;
    Ok(peer_id_of_spki(&key.subject_public_key_info()))
}

/// The TLS configuration of the seeder.
pub(super) fn server(dir: &Path) -> Result<Arc<ServerConfig>> {
    let files = kept(dir, "seeder");
    let ca = fs::read_to_string(files.ca)?;
    let chain = fs::read_to_string(files.certificate)?;
    Ok(server_config(&chain, &fs::read_to_string(files.key)?, Some(&ca))?)
}

/// The keys that verify the benchmark's tickets.
pub(super) fn ticket_keys() -> Result<Vec<VerifyingKey>> {
    Ok(vec![signer()?.verifying_key().clone()])
}

fn signer() -> Result<Signer> {
    Signer::from_seed(&TICKET_SEED).context("the seed is of no key")
}

/// Issues tickets in place of the tracker.
pub(super) struct Tickets(Arc<str>);

impl Tickets {
    /// Creates tickets with which `peer` may fetch the file that has this root.
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

/// Dials as the leecher, over TLS or in plaintext.
pub(super) struct Dial {
    own: PeerId,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Dial {
    /// Creates a dialer with the identity `who`.
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
    fn dial(&self, peer: PeerId, address: &str, window: u32) -> BoxFuture<'_, Result<Channel, DialError>> {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
        let remote = Remote::Tcp { host: host.to_owned(), port: port.parse().unwrap_or(0) };
        let security = match &self.tls {
            None => ClientSecurity::Plaintext,
            Some(config) => ClientSecurity::Tls { config: Arc::clone(config), server_name: peer.tls_name() },
        };
        Box::pin(async move {
            connect(remote, security, &ChannelTuning::data_within(window))
                .await
                .map_err(|error| DialError::other(error.to_string()))
        })
    }

    fn own_id(&self) -> Option<PeerId> {
        Some(self.own)
    }
}
