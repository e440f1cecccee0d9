//! AuthService.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use proto::{convert, domain::Username, pb};
use tonic::{Request, Response, Status, async_trait};
use transport::{ConnInfo, network_of};

use super::{
    gate::{caller, origin, unless_done},
    group::invite_key,
    guesses::Guesses,
    tokens::Tokens,
};
use crate::{
    ca::Authority,
    domain::{Action, Origin, Refusal, SessionHash, invite::Registration, session, throttle::Login},
    error::TrackerError,
    keys::TicketKeys,
    password::{Hasher, Password, Verdict},
    store::{Credentials, Store},
};

/// AuthService over a store and the tracker's keys.
pub struct AuthService {
    store: Arc<dyn Store>,
    hasher: Hasher,
    authority: Arc<Authority>,
    keys: Arc<TicketKeys>,
    guesses: Arc<Guesses>,
    loopback_exempt: bool,
    registration: Registration,
    tokens: Tokens,
}

impl AuthService {
    /// Makes the service for the accounts of this store. With `loopback_exempt`, failed logins from this
    /// machine are counted per account only, and its new accounts are not counted.
    pub fn new(
        store: Arc<dyn Store>,
        hasher: Hasher,
        authority: Arc<Authority>,
        keys: Arc<TicketKeys>,
        loopback_exempt: bool,
        registration: Registration,
    ) -> Self {
        let guesses = Guesses::new(Arc::clone(&store));
        let tokens = Tokens::new(Arc::clone(&store));
        Self { store, hasher, authority, keys, guesses, loopback_exempt, registration, tokens }
    }

    /// Counts a new account over all trackers of the network.
    async fn count_newcomer(&self, origin: &Origin) -> Result<(), TrackerError> {
        let ip = origin.ip.filter(|ip| !(self.loopback_exempt && ip.is_loopback()));
        let (Some(shared), Some(ip)) = (self.store.shared(), ip) else { return Ok(()) };
        shared.count_newcomer(network_of(ip)).await?.map_err(TrackerError::RateLimited)
    }

    /// Checks a user's password. An unknown or disabled user costs the same work.
    async fn verify(
        &self,
        user: &Username,
        password: Password,
        origin: &Origin,
    ) -> Result<Option<(Credentials, Option<String>)>, TrackerError> {
        let ip = origin.ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let exempt = self.loopback_exempt && ip.is_loopback();
        let guess = Guesses::start(&self.guesses, Login::new(user, ip, exempt)).await?;
        let credentials = self.store.credentials(user).await?;
        let stored = credentials.as_ref().map(|credentials| credentials.password.as_str());
        let verdict = self.hasher.verify(password, stored).await?;
        let rehashed = match verdict {
            Verdict::Wrong => {
                guess.was_wrong();
                return Ok(None);
            }
            Verdict::Right => None,
            Verdict::Rehashed(hash) => Some(hash),
        };
        guess.was_right().await?;
        Ok(credentials.filter(|credentials| !credentials.disabled).map(|credentials| (credentials, rehashed)))
    }

    async fn open_session(
        &self,
        request: Request<pb::LoginRequest>,
    ) -> Result<pb::LoginResponse, TrackerError> {
        let origin = origin(&request)?;
        let asked = request.into_inner();
        let user = convert::username(&asked.username)?;
        let password = Password::given(asked.password)?;
        let Some((credentials, rehashed)) = self.verify(&user, password, &origin).await? else {
            self.store.record(Action::LoginFailed, user.as_str(), &origin).await?;
            return Err(Refusal::BadCredentials.into());
        };
        let session_token = session::token(&rand::random());
        let hash = SessionHash::of_token(&session_token)
            .ok_or_else(|| TrackerError::Internal("a token of ours is none".into()))?;
        let origin = Origin { actor: Some(user.into()), ..origin };
        self.store.open_session(&credentials, rehashed.as_deref(), hash, &origin).await?;
        Ok(pb::LoginResponse { session_token, expires_at: Some((origin.at + session::ABSOLUTE).into()) })
    }
}

#[async_trait]
impl pb::auth_service_server::AuthService for AuthService {
    async fn create_user(
        &self,
        request: Request<pb::CreateUserRequest>,
    ) -> Result<Response<pb::CreateUserResponse>, Status> {
        let origin = origin(&request)?;
        let asked = request.into_inner();
        self.registration.admit(asked.invite.is_some()).map_err(TrackerError::from)?;
        let user = convert::username(&asked.username)?;
        let password = Password::chosen(asked.password)?;
        let invite = asked.invite.map(|key| invite_key(Some(&key))).transpose()?;
        let origin = Origin { actor: Some(user.clone().into()), ..origin };
        let made = async {
            self.count_newcomer(&origin).await?;
            // A guess costs no hash, and learns no name. The transaction decides whether there is a use left.
            if let Some(invite) = &invite
                && !self.store.is_invited(invite, origin.at).await?
            {
                return Err(Refusal::InviteInvalid.into());
            }
            // No hash is computed for a name that is already in use. The database's constraint decides if two
            // requests arrive at once.
            if self.store.credentials(&user).await?.is_some() {
                return Err(Refusal::UsernameTaken.into());
            }
            let hash = self.hasher.hash(password).await?;
            Ok(self.store.create_account(&user, &hash, invite.as_ref(), &origin).await?)
        };
        let made = made.await;
        unless_done(&*self.store, &[Action::CreateUser], user.as_str(), &origin, made).await?;
        Ok(Response::new(pb::CreateUserResponse {}))
    }

    async fn login(&self, request: Request<pb::LoginRequest>) -> Result<Response<pb::LoginResponse>, Status> {
        Ok(Response::new(self.open_session(request).await?))
    }

    async fn logout(
        &self,
        request: Request<pb::LogoutRequest>,
    ) -> Result<Response<pb::LogoutResponse>, Status> {
        let caller = caller(&request)?;
        self.store.end_session(&caller, &origin(&request)?).await?;
        Ok(Response::new(pb::LogoutResponse {}))
    }

    async fn logout_all(
        &self,
        request: Request<pb::LogoutAllRequest>,
    ) -> Result<Response<pb::LogoutAllResponse>, Status> {
        let caller = caller(&request)?;
        let sessions_ended = self.store.end_sessions(&caller, &origin(&request)?).await?;
        Ok(Response::new(pb::LogoutAllResponse { sessions_ended }))
    }

    async fn who_am_i(
        &self,
        request: Request<pb::WhoAmIRequest>,
    ) -> Result<Response<pb::WhoAmIResponse>, Status> {
        let caller = caller(&request)?;
        let remote = request.extensions().get::<ConnInfo>().and_then(|info| info.remote);
        Ok(Response::new(pb::WhoAmIResponse {
            username: caller.user().to_string(),
            expires_at: Some(caller.session_ends().into()),
            observed_ip: remote.map(|remote| remote.ip().to_string()).unwrap_or_default(),
            token_name: caller.token().map(|token| token.name.to_string()).unwrap_or_default(),
        }))
    }

    async fn change_password(
        &self,
        request: Request<pb::ChangePasswordRequest>,
    ) -> Result<Response<pb::ChangePasswordResponse>, Status> {
        let (caller, origin) = (caller(&request)?, origin(&request)?);
        let asked = request.into_inner();
        let (old, new) = (Password::given(asked.old_password)?, Password::chosen(asked.new_password)?);
        let Some((credentials, _)) = self.verify(caller.user(), old, &origin).await? else {
            let (user, wrong) = (caller.user().as_str(), Err(Refusal::WrongPassword.into()));
            let outcome = unless_done(&*self.store, &[Action::ChangePassword], user, &origin, wrong).await;
            if outcome.is_err() {
                self.store.record(Action::LoginFailed, user, &origin).await?;
            }
            return Ok(outcome.map(|()| Response::new(pb::ChangePasswordResponse {}))?);
        };
        let hash = self.hasher.hash(new).await?;
        self.store.change_password(&caller, &credentials.password, &hash, &origin).await?;
        Ok(Response::new(pb::ChangePasswordResponse {}))
    }

    async fn issue_peer_cert(
        &self,
        request: Request<pb::IssuePeerCertRequest>,
    ) -> Result<Response<pb::IssuePeerCertResponse>, Status> {
        let (caller, origin) = (caller(&request)?, origin(&request)?);
        let issued =
            self.authority.issue_peer(&request.get_ref().csr_der, origin.at).map_err(TrackerError::from)?;
        // The certificate is returned only after the peer is registered to its user.
        self.store.register_peer(&caller, issued.peer, issued.expires, &origin).await?;
        Ok(Response::new(pb::IssuePeerCertResponse {
            certificate_pem: issued.certificate_pem,
            expires_at: Some(issued.expires.into()),
            peer_id: issued.peer.to_string(),
            tls_name: issued.peer.tls_name(),
            authority_pem: self.authority.ca_pem().to_owned(),
        }))
    }

    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        Ok(Response::new(self.tokens.create(&request).await?))
    }

    async fn list_tokens(
        &self,
        request: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        Ok(Response::new(self.tokens.list(&request).await?))
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        Ok(Response::new(self.tokens.revoke(&request).await?))
    }

    async fn get_tracker_keys(
        &self,
        _: Request<pb::GetTrackerKeysRequest>,
    ) -> Result<Response<pb::GetTrackerKeysResponse>, Status> {
        let keys = self.keys.verifying_keys().borrow().iter().map(convert::to_ticket_key).collect();
        Ok(Response::new(pb::GetTrackerKeysResponse { keys }))
    }
}
