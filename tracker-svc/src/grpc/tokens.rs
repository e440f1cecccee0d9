//! Tokens for machines: the part of AuthService that is about them.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::{convert, domain::GroupId, pb};
use tonic::Request;

use super::gate::{Gate, caller, origin, unless_done};
use crate::{
    domain::{
        Action, Membership, SessionHash,
        audit::about_token,
        session,
        token::{Allow, NewToken, TokenScope},
    },
    error::TrackerError,
    store::{Store, TokenRow},
};

/// The tokens of the accounts of a store.
pub(super) struct Tokens {
    store: Arc<dyn Store>,
    gate: Gate,
}

fn allow(asked: pb::TokenAllow) -> Allow {
    match asked {
        pb::TokenAllow::Unspecified | pb::TokenAllow::Read => Allow::Read,
        pb::TokenAllow::Share => Allow::Share,
        pb::TokenAllow::Manage => Allow::Manage,
    }
}

fn to_allow(allow: Allow) -> pb::TokenAllow {
    match allow {
        Allow::Read => pb::TokenAllow::Read,
        Allow::Share => pb::TokenAllow::Share,
        Allow::Manage => pb::TokenAllow::Manage,
    }
}

fn message(row: &TokenRow) -> pb::Token {
    let groups = row.scope.groups.iter().flatten();
    pb::Token {
        name: row.scope.name.to_string(),
        group_ids: groups.map(ToString::to_string).collect(),
        allow: to_allow(row.scope.allow).into(),
        since: Some(row.since.into()),
        last_used_at: Some(row.used.into()),
        expires_at: Some(row.expires.into()),
    }
}

/// What was asked for, as a scope, and for how long.
fn scope(asked: &pb::CreateTokenRequest) -> Result<(TokenScope, Option<Duration>), TrackerError> {
    let known = pb::TokenAllow::try_from(asked.allow);
    let level = known.map_err(|_| TrackerError::Invalid("allow is not known"))?;
    let groups: BTreeSet<GroupId> =
        asked.group_ids.iter().map(|group| convert::group_id(group)).collect::<Result<_, _>>()?;
    let scope = TokenScope {
        name: convert::token_name(&asked.name)?,
        allow: allow(level),
        groups: (!groups.is_empty()).then_some(groups),
    };
    let lifetime = asked.lifetime.map(Duration::try_from).transpose();
    Ok((scope, lifetime.map_err(|_| TrackerError::Invalid("lifetime is not a positive duration"))?))
}

impl Tokens {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { gate: Gate::new(Arc::clone(&store)), store }
    }

    pub(super) async fn create(
        &self,
        request: &Request<pb::CreateTokenRequest>,
    ) -> Result<pb::CreateTokenResponse, TrackerError> {
        let (caller, origin) = (caller(request)?, origin(request)?);
        let (scope, lifetime) = scope(request.get_ref())?;
        let token = session::machine_token(&rand::random());
        let hash = SessionHash::of_token(&token)
            .ok_or_else(|| TrackerError::Internal("a token of ours is none".into()))?;
        let new = NewToken::new(hash, scope, lifetime, origin.at)?;
        for group in new.scope.groups.iter().flatten() {
            self.gate.enter::<Membership>(&caller, group).await?;
        }
        self.store.create_token(&caller, &new, &origin).await?;
        let row = TokenRow { scope: new.scope, since: origin.at, used: origin.at, expires: new.expires };
        Ok(pb::CreateTokenResponse { token, details: Some(message(&row)) })
    }

    pub(super) async fn list(
        &self,
        request: &Request<pb::ListTokensRequest>,
    ) -> Result<pb::ListTokensResponse, TrackerError> {
        let rows = self.store.tokens(&*caller(request)?, SystemTime::now()).await?;
        Ok(pb::ListTokensResponse { tokens: rows.iter().map(message).collect() })
    }

    pub(super) async fn revoke(
        &self,
        request: &Request<pb::RevokeTokenRequest>,
    ) -> Result<pb::RevokeTokenResponse, TrackerError> {
        let (caller, origin) = (caller(request)?, origin(request)?);
        let name = convert::token_name(&request.get_ref().name)?;
        let revoked = self.store.revoke_token(&caller, &name, &origin).await.map_err(Into::into);
        let object = about_token(caller.user(), &name);
        unless_done(&*self.store, &[Action::RevokeToken], &object, &origin, revoked).await?;
        Ok(pb::RevokeTokenResponse {})
    }
}
