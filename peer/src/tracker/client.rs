//! The channel to the tracker: whom it trusts, and the token that it bears.
//!
//! A CA file that is not there yet is no fault: every call looks again. So is a tracker that is down.

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use proto::{
    domain::limits::{MAX_ANNOUNCE, MAX_MANIFEST_FRAME},
    durable::{self, Readers},
    pb::{
        auth_service_client::AuthServiceClient, file_service_client::FileServiceClient,
        group_service_client::GroupServiceClient, swarm_service_client::SwarmServiceClient,
    },
    transport::{
        AuthorityFingerprint, ChannelTuning, ClientSecurity, ConnectError, Remote, client_config,
        connect_lazy, fetch_authority, fingerprints,
    },
};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::{error::PeerError, observe};

/// How long a call to the tracker may take before it counts as unreachable.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Where the tracker is and how its CA is known.
#[derive(Clone, Debug)]
pub struct TrackerAddress {
    /// `https://host:port`, spelled as [`crate::config::tracker_url`] does.
    pub url: String,
    /// The CA's certificate file, if one was given.
    pub ca: Option<PathBuf>,
    /// The CA's fingerprint, if one was given.
    pub pin: Option<AuthorityFingerprint>,
    /// Where a CA is kept that was trusted by its fingerprint.
    pub trusted_ca: PathBuf,
}

/// A channel whose calls bear the session's token and the request's id.
pub type AuthedChannel = InterceptedService<Channel, Bearer>;

/// The tracker, as this daemon calls it. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct TrackerClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: TrackerAddress,
    token: RwLock<Option<MetadataValue<Ascii>>>,
    open: tokio::sync::Mutex<Option<Open>>,
}

/// The channel, and the CA that it trusts.
#[derive(Clone, Debug)]
struct Open {
    ca_pem: Option<Arc<str>>,
    channel: Channel,
}

impl TrackerClient {
    /// Nothing is looked at or connected yet.
    pub fn new(address: TrackerAddress) -> Self {
        let inner = Inner { address, token: RwLock::default(), open: tokio::sync::Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The tracker's URL.
    pub fn url(&self) -> &str {
        &self.inner.address.url
    }

    /// The token that calls bear from now on.
    pub fn set_token(&self, token: Option<&str>) {
        let mut held = self.inner.token.write().unwrap_or_else(PoisonError::into_inner);
        *held = token.and_then(bearer);
    }

    /// Accounts, sessions, certificates.
    ///
    /// # Errors
    /// [`PeerError::TrackerUnreachable`] while its CA is not known.
    pub async fn auth(&self) -> Result<AuthServiceClient<AuthedChannel>, PeerError> {
        Ok(AuthServiceClient::new(self.authed().await?))
    }

    /// As [`TrackerClient::auth`], bearing no token.
    ///
    /// # Errors
    /// As [`TrackerClient::auth`].
    pub async fn auth_without_token(&self) -> Result<AuthServiceClient<AuthedChannel>, PeerError> {
        Ok(AuthServiceClient::new(InterceptedService::new(self.channel().await?, Bearer(None))))
    }

    /// As [`TrackerClient::auth`], bearing another token than the daemon's.
    ///
    /// # Errors
    /// As [`TrackerClient::auth`].
    pub async fn auth_with(&self, token: &str) -> Result<AuthServiceClient<AuthedChannel>, PeerError> {
        let bearer = Bearer(bearer(token));
        Ok(AuthServiceClient::new(InterceptedService::new(self.channel().await?, bearer)))
    }

    /// Groups.
    ///
    /// # Errors
    /// As [`TrackerClient::auth`].
    pub async fn groups(&self) -> Result<GroupServiceClient<AuthedChannel>, PeerError> {
        Ok(GroupServiceClient::new(self.authed().await?))
    }

    /// Files.
    ///
    /// # Errors
    /// As [`TrackerClient::auth`].
    pub async fn files(&self) -> Result<FileServiceClient<AuthedChannel>, PeerError> {
        // A frame of a manifest, with room for its framing; a page of files is larger.
        Ok(FileServiceClient::new(self.authed().await?).max_decoding_message_size(4 * MAX_MANIFEST_FRAME))
    }

    /// Swarms.
    ///
    /// # Errors
    /// As [`TrackerClient::auth`].
    pub async fn swarm(&self) -> Result<SwarmServiceClient<AuthedChannel>, PeerError> {
        Ok(SwarmServiceClient::new(self.authed().await?).max_decoding_message_size(2 * MAX_ANNOUNCE))
    }

    /// Waits for a unary call's answer, at most [`CALL_LIMIT`].
    ///
    /// # Errors
    /// What the tracker says, or that it can't be reached.
    pub async fn within<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, PeerError> {
        match tokio::time::timeout(CALL_LIMIT, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.explained(status)),
            Err(_) => Err(self.unreachable("no answer within 10 s")),
        }
    }

    /// What a failed call means. Where the CA is another than the one that was trusted, says what was trusted.
    fn explained(&self, status: Status) -> PeerError {
        let tls = matches!(ConnectError::of(&status), Some(ConnectError::Tls(_)));
        let error = PeerError::of_call(self.url(), status);
        match error {
            PeerError::TrackerUnreachable { tracker, why } if tls && self.inner.address.ca.is_none() => {
                let path = self.inner.address.trusted_ca.display();
                let why = format!(
                    "{why}; this peer trusts the CA in {path}. If the tracker has a new one, which its operator can \
                     tell, delete that file and log in again; otherwise somebody else answers there"
                );
                PeerError::TrackerUnreachable { tracker, why }
            }
            error => error,
        }
    }

    /// The tracker can't be reached, for this reason.
    pub fn unreachable(&self, why: impl Into<String>) -> PeerError {
        PeerError::TrackerUnreachable { tracker: self.url().to_owned(), why: why.into() }
    }

    /// A channel without a token.
    ///
    /// # Errors
    /// [`PeerError::TrackerUnreachable`] while its CA is not known.
    pub async fn channel(&self) -> Result<Channel, PeerError> {
        Ok(self.open().await?.channel)
    }

    /// The CA that the tracker and all its peers are trusted by.
    ///
    /// # Errors
    /// As [`TrackerClient::channel`].
    pub async fn ca_pem(&self) -> Result<Arc<str>, PeerError> {
        let open = self.open().await?;
        open.ca_pem.ok_or_else(|| self.unreachable("its CA is not known: give --ca FILE"))
    }

    /// The bearer token, for calls that are passed on as they are.
    pub fn bearer(&self) -> Bearer {
        Bearer(self.inner.token.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn authed(&self) -> Result<AuthedChannel, PeerError> {
        Ok(InterceptedService::new(self.channel().await?, self.bearer()))
    }

    /// The channel, made anew when the CA on disk is another.
    async fn open(&self) -> Result<Open, PeerError> {
        let mut held = self.inner.open.lock().await;
        let ca_pem = match self.authority().await {
            Ok(ca_pem) => ca_pem,
            // What was trusted before is still the same CA.
            Err(error) => return held.clone().ok_or(error),
        };
        if let Some(open) = held.as_ref().filter(|open| open.ca_pem == ca_pem) {
            return Ok(open.clone());
        }
        let channel = self.connect(ca_pem.as_deref())?;
        Ok(held.insert(Open { ca_pem, channel }).clone())
    }

    fn connect(&self, ca_pem: Option<&str>) -> Result<Channel, PeerError> {
        let (scheme, host, port) = self.parts();
        let security = match (scheme, ca_pem) {
            ("http", _) => ClientSecurity::Plaintext,
            (_, Some(ca_pem)) => {
                let config = client_config(ca_pem, None)
                    .map_err(|error| self.unreachable(format!("its CA: {error}")))?;
                ClientSecurity::Tls { config, server_name: host.to_owned() }
            }
            (_, None) => return Err(PeerError::AuthorityUnknown(self.url().to_owned())),
        };
        Ok(connect_lazy(Remote::Tcp { host: host.to_owned(), port }, security, &ChannelTuning::control()))
    }

    fn parts(&self) -> (&str, &str, u16) {
        url_parts(self.url())
    }

    /// The CA by file or by fingerprint; none when none is needed.
    async fn authority(&self) -> Result<Option<Arc<str>>, PeerError> {
        let address = &self.inner.address;
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
                Err(self.unreachable(format!("its CA file {}: {error}", path.display())))
            }
            _ => Err(PeerError::AuthorityUnknown(self.url().to_owned())),
        }
    }

    /// Fetches the CA from the tracker itself, and keeps it if it is the one with that fingerprint.
    async fn fetch_pinned(&self, pin: AuthorityFingerprint) -> Result<Arc<str>, PeerError> {
        let (_, host, port) = self.parts();
        let fetched = fetch_authority(host, port, Duration::from_secs(5)).await;
        let fetched = fetched.map_err(|error| self.unreachable(error.to_string()))?;
        if fetched.fingerprint != pin {
            let found = fetched.fingerprint;
            return Err(self
                .unreachable(format!("its CA has the fingerprint {found}, not {pin}: it may be another's")));
        }
        let path = self.inner.address.trusted_ca.clone();
        durable::write(&path, fetched.pem.as_bytes(), Readers::Owner)
            .map_err(|error| PeerError::Io { path, error })?;
        Ok(fetched.pem.into())
    }
}

/// Scheme, host without brackets, and port of a tracker's URL that was checked when it was resolved.
pub(crate) fn url_parts(url: &str) -> (&str, &str, u16) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "7700"));
    (scheme, host.trim_matches(['[', ']']), port.parse().unwrap_or(7700))
}

fn bearer(token: &str) -> Option<MetadataValue<Ascii>> {
    let mut value = MetadataValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Puts the token and the request's id into each call.
#[derive(Clone, Debug)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// The token's header, if somebody is logged in.
    pub fn header(&self) -> Option<&MetadataValue<Ascii>> {
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
