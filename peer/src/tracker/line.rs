//! The line to one tracker: its channel, the CA that it trusts, and the session's token.
//!
//! A missing CA file is not an error for good: every call looks for it again. The same is true of a tracker
//! that is down.

use std::{
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use program::durable::{self, Readers};
use proto::{
    domain::limits::{MAX_ANNOUNCE, MAX_MANIFEST_FRAME},
    pb::{
        auth_service_client::AuthServiceClient, file_service_client::FileServiceClient,
        swarm_service_client::SwarmServiceClient,
    },
};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use transport::{
    AuthorityFingerprint, ChannelTuning, ClientSecurity, ConnectError, ConnectFault, Remote, client_config,
    connect_lazy, fetch_authority, fingerprints, has_several_addresses,
};

use super::list::{TrackerList, url_parts};
use crate::{error::PeerError, observe};

/// How long a call to the tracker may take before it counts as unreachable.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(10);

/// The trackers' addresses, and how their CA is known.
#[derive(Clone, Debug)]
pub(crate) struct TrackerAddress {
    /// The trackers of the network.
    pub trackers: TrackerList,
    /// The CA's certificate file, if one was given.
    pub ca: Option<PathBuf>,
    /// The CA's fingerprint, if one was given.
    pub pin: Option<AuthorityFingerprint>,
    /// The file that keeps a CA that was trusted by its fingerprint.
    pub trusted_ca: PathBuf,
}

/// What the lines to all trackers share.
#[derive(Debug)]
pub(super) struct Network {
    address: TrackerAddress,
    token: RwLock<Option<MetadataValue<Ascii>>>,
    /// The channel to each tracker, if one is open.
    open: Mutex<Vec<Option<Open>>>,
    /// There are several trackers, or the name of one has several addresses.
    has_spares: AtomicBool,
}

/// A channel, and the CA that it trusts.
#[derive(Clone, Debug)]
struct Open {
    ca_pem: Option<Arc<str>>,
    channel: Channel,
}

impl Network {
    /// The trackers at these addresses. Nothing is connected yet.
    pub(super) fn new(address: TrackerAddress) -> Arc<Self> {
        let number = address.trackers.urls().len();
        let (open, has_spares) = (Mutex::new(vec![None; number]), AtomicBool::new(number > 1));
        Arc::new(Self { token: RwLock::default(), open, has_spares, address })
    }

    /// The trackers' addresses.
    pub(super) fn address(&self) -> &TrackerAddress {
        &self.address
    }

    /// Sets the token of all later calls.
    pub(super) fn set_token(&self, token: Option<&str>) {
        *self.token.write() = token.and_then(bearer);
    }

    /// Whether a call that fails may reach another tracker when it is repeated.
    pub(super) fn has_spares(&self) -> bool {
        self.has_spares.load(Ordering::Relaxed)
    }
}

/// A channel that adds the session's token and the request's id to each call.
pub(crate) type AuthedChannel = InterceptedService<Channel, Bearer>;

/// The line to one tracker. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    network: Arc<Network>,
    number: usize,
}

impl Line {
    /// The line to the tracker with this number in the list.
    pub(super) fn new(network: &Arc<Network>, number: usize) -> Self {
        Self { network: Arc::clone(network), number }
    }

    /// The tracker's number in the list.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The tracker's URL.
    pub(crate) fn url(&self) -> &str {
        self.network.address.trackers.urls().get(self.number).map_or("", String::as_str)
    }

    /// The client for accounts, sessions and certificates.
    ///
    /// # Errors
    /// [`PeerError::TrackerUnreachable`] while the tracker's CA is not known.
    pub(crate) async fn auth(&self) -> Result<AuthServiceClient<AuthedChannel>, PeerError> {
        Ok(AuthServiceClient::new(self.authed().await?))
    }

    /// Like [`Line::auth`], without a token.
    ///
    /// # Errors
    /// Those of [`Line::auth`].
    pub(crate) async fn auth_without_token(&self) -> Result<AuthServiceClient<AuthedChannel>, PeerError> {
        Ok(AuthServiceClient::new(InterceptedService::new(self.channel().await?, Bearer(None))))
    }

    /// Like [`Line::auth`], with another token than the daemon's.
    ///
    /// # Errors
    /// Those of [`Line::auth`].
    pub(crate) async fn auth_with(&self, token: &str) -> Result<AuthServiceClient<AuthedChannel>, PeerError> {
        let bearer = Bearer(bearer(token));
        Ok(AuthServiceClient::new(InterceptedService::new(self.channel().await?, bearer)))
    }

    /// The client for files.
    ///
    /// # Errors
    /// Those of [`Line::auth`].
    pub(crate) async fn files(&self) -> Result<FileServiceClient<AuthedChannel>, PeerError> {
        // A page of files is longer than a frame of a manifest.
        Ok(FileServiceClient::new(self.authed().await?).max_decoding_message_size(4 * MAX_MANIFEST_FRAME))
    }

    /// The client for swarms.
    ///
    /// # Errors
    /// Those of [`Line::auth`].
    pub(crate) async fn swarm(&self) -> Result<SwarmServiceClient<AuthedChannel>, PeerError> {
        Ok(SwarmServiceClient::new(self.authed().await?).max_decoding_message_size(2 * MAX_ANNOUNCE))
    }

    /// Waits for the answer to a unary call, at most [`CALL_LIMIT`].
    ///
    /// # Errors
    /// The tracker's error, or that it can't be reached.
    pub(crate) async fn within<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, PeerError> {
        match tokio::time::timeout(CALL_LIMIT, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.explained(status)),
            Err(_) => Err(self.unreachable("no answer within 10 s")),
        }
    }

    /// The error of a failed call, with what to do.
    pub(crate) fn explained(&self, status: Status) -> PeerError {
        let fault = ConnectError::of(&status).map(ConnectError::fault);
        self.advised(fault, PeerError::of_call(self.url(), status))
    }

    /// The error of a channel that does not connect, with what to do.
    pub(crate) fn not_connected(&self, error: &tonic::transport::Error) -> PeerError {
        let fault = ConnectError::of(error).map(ConnectError::fault);
        self.advised(fault, PeerError::of_connection(self.url(), error))
    }

    fn advised(&self, fault: Option<ConnectFault>, error: PeerError) -> PeerError {
        let PeerError::TrackerUnreachable { tracker, why } = error else { return error };
        let (scheme, host, port) = self.parts();
        let TrackerAddress { ca, trusted_ca, .. } = &self.network.address;
        let advice = match fault {
            None if scheme == "http" => format!("; does it serve TLS? Then use https://{host}:{port}"),
            Some(ConnectFault::AnotherName) => format!(
                "; its operator adds the name with `tracker-svc serve --tls-name {host}`, or use a name that it has"
            ),
            Some(ConnectFault::UnknownAuthority) => match ca {
                Some(path) => format!(
                    "; {} must contain the CA that signed the tracker's certificate: its ca.pem, or with its \
                     --tls-cert the CA of that",
                    path.display()
                ),
                None => format!(
                    "; this peer trusts the CA in {}. If the tracker has a new one, which its operator can tell, delete \
                     that file and log in again; otherwise somebody else answers there",
                    trusted_ca.display()
                ),
            },
            Some(ConnectFault::Expired) => {
                "; set the clock of this host right (NTP); if it is, the tracker's operator has to renew it"
                    .to_owned()
            }
            Some(ConnectFault::Forbidden) => "; allow it in this host's firewall".to_owned(),
            Some(ConnectFault::NotTls) => "; does it serve without TLS, or is it another program?".to_owned(),
            _ => String::new(),
        };
        PeerError::TrackerUnreachable { tracker, why: why + &advice }
    }

    /// The error that the tracker can't be reached, for this reason.
    pub(crate) fn unreachable(&self, why: impl Into<String>) -> PeerError {
        PeerError::TrackerUnreachable { tracker: self.url().to_owned(), why: why.into() }
    }

    /// The channel, without a token.
    ///
    /// # Errors
    /// [`PeerError::TrackerUnreachable`] while the tracker's CA is not known.
    pub(crate) async fn channel(&self) -> Result<Channel, PeerError> {
        Ok(self.open().await?.channel)
    }

    /// The CA that certifies the tracker and all its peers.
    ///
    /// # Errors
    /// Those of [`Line::channel`].
    pub(crate) async fn ca_pem(&self) -> Result<Arc<str>, PeerError> {
        let open = self.open().await?;
        open.ca_pem.ok_or_else(|| self.unreachable("the tracker's CA is not known; give --ca FILE"))
    }

    /// The bearer token, for calls that are forwarded unchanged.
    pub(crate) fn bearer(&self) -> Bearer {
        Bearer(self.network.token.read().clone())
    }

    async fn authed(&self) -> Result<AuthedChannel, PeerError> {
        Ok(InterceptedService::new(self.channel().await?, self.bearer()))
    }

    /// Closes the channel. The next call opens another one.
    pub(super) fn close(&self) {
        self.hold(None);
    }

    fn held(&self) -> Option<Open> {
        self.network.open.lock().get(self.number).cloned().flatten()
    }

    fn hold(&self, open: Option<Open>) {
        if let Some(held) = self.network.open.lock().get_mut(self.number) {
            *held = open;
        }
    }

    /// The channel. A new one is opened when the CA on disk has changed.
    async fn open(&self) -> Result<Open, PeerError> {
        let ca_pem = match self.authority().await {
            Ok(ca_pem) => ca_pem,
            // The CA that was trusted before is still good.
            Err(error) => return self.held().ok_or(error),
        };
        let is_same = |open: &Open| open.ca_pem == ca_pem;
        if let Some(open) = self.held().filter(is_same) {
            return Ok(open);
        }
        let channel = self.connect(ca_pem.as_deref()).await?;
        // Another call may have been faster. All calls share one channel.
        let open = self.held().filter(is_same).unwrap_or(Open { ca_pem: ca_pem.clone(), channel });
        self.hold(Some(open.clone()));
        Ok(open)
    }

    async fn connect(&self, ca_pem: Option<&str>) -> Result<Channel, PeerError> {
        let (scheme, host, port) = self.parts();
        let is_name = host.parse::<std::net::IpAddr>().is_err();
        if is_name && has_several_addresses(host, port).await {
            self.network.has_spares.store(true, Ordering::Relaxed);
        }
        let tuning = if self.network.has_spares() {
            ChannelTuning::one_of_several()
        } else {
            ChannelTuning::control()
        };
        let security = match (scheme, ca_pem) {
            ("http", _) => ClientSecurity::Plaintext,
            (_, Some(ca_pem)) => {
                let config = client_config(ca_pem, None)
                    .map_err(|error| self.unreachable(format!("the tracker's CA can't be used: {error}")))?;
                ClientSecurity::Tls { config, server_name: host.to_owned() }
            }
            (_, None) => return Err(PeerError::AuthorityUnknown(self.url().to_owned())),
        };
        Ok(connect_lazy(Remote::Tcp { host: host.to_owned(), port }, security, &tuning))
    }

    fn parts(&self) -> (&str, &str, u16) {
        url_parts(self.url())
    }

    /// The CA, by file or by fingerprint. `None` for a tracker without TLS.
    async fn authority(&self) -> Result<Option<Arc<str>>, PeerError> {
        let address = &self.network.address;
        let path = address.ca.as_ref().unwrap_or(&address.trusted_ca);
        let read = tokio::fs::read_to_string(path).await;
        let matches = |pem: &str| {
            address.pin.is_none_or(|pin| fingerprints(pem).is_ok_and(|found| found.contains(&pin)))
        };
        match (read, address.pin) {
            (Ok(pem), _) if matches(&pem) => Ok(Some(pem.into())),
            (Ok(_), Some(pin)) if address.ca.is_some() => {
                Err(self.unreachable(format!("{} is not the CA with the fingerprint {pin}", path.display())))
            }
            (_, Some(pin)) if address.ca.is_none() => self.fetch_pinned(pin).await.map(Some),
            (Err(_), _) if self.parts().0 == "http" => Ok(None),
            (Err(error), _) if address.ca.is_some() => {
                Err(self.unreachable(format!("the CA file {} can't be read: {error}", path.display())))
            }
            _ => Err(PeerError::AuthorityUnknown(self.url().to_owned())),
        }
    }

    /// Fetches the CA from the tracker itself, and keeps it if it has that fingerprint.
    async fn fetch_pinned(&self, pin: AuthorityFingerprint) -> Result<Arc<str>, PeerError> {
        let (_, host, port) = self.parts();
        let fetched = fetch_authority(host, port, Duration::from_secs(5)).await;
        let fetched = fetched.map_err(|error| self.unreachable(error.to_string()))?;
        if fetched.fingerprint != pin {
            let found = fetched.fingerprint;
            return Err(self.unreachable(format!(
                "the tracker's CA has the fingerprint {found}, not {pin}; it may be the CA of another tracker"
            )));
        }
        let path = self.network.address.trusted_ca.clone();
        durable::write(&path, fetched.pem.as_bytes(), Readers::Owner)
            .map_err(|error| PeerError::Io { path, error })?;
        Ok(fetched.pem.into())
    }
}

/// The header of a session's token.
fn bearer(token: &str) -> Option<MetadataValue<Ascii>> {
    let mut value = MetadataValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Adds the token and the request's id to each call.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// The token's header, if a user is logged in.
    pub(crate) fn header(&self) -> Option<&MetadataValue<Ascii>> {
        self.0.as_ref()
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if let Some(id) = observe::request_id().and_then(|id| MetadataValue::try_from(&*id).ok()) {
            request.metadata_mut().insert("x-request-id", id);
        }
        Ok(request)
    }
}
