//! Tokens for machines.

use proto::{pb, reason::Reason};
use serde_json::json;

use crate::{
    cli::{args::TokenArgs, context::Context, exit::Failure, render},
    units,
};

pub(super) async fn create(context: &Context, args: TokenArgs) -> Result<(), Failure> {
    let TokenArgs { token: name, groups, allow, expires } = args;
    let expires = expires.map(|text| units::parse_lifetime(&text)).transpose().map_err(Failure::usage)?;
    let lifetime = expires.map(prost_types::Duration::try_from).transpose().map_err(Failure::usage)?;
    let allow = match allow.as_str() {
        "share" => pb::TokenAllow::Share,
        "manage" => pb::TokenAllow::Manage,
        _ => pb::TokenAllow::Read,
    };
    let request = pb::CreateTokenRequest { name, group_ids: groups, allow: allow.into(), lifetime };
    let answer = context.daemon().await?.auth().create_token(request).await?.into_inner();
    let token =
        answer.details.ok_or_else(|| Failure::of(Reason::Corrupt, "the tracker's answer has no token"))?;
    let mut object = render::token_json(&token);
    object["token"] = answer.token.as_str().into();
    context.style.result(&object, &answer.token);
    Ok(())
}

pub(super) async fn list(context: &Context) -> Result<(), Failure> {
    let answer = context.daemon().await?.auth().list_tokens(pb::ListTokensRequest {}).await?.into_inner();
    let (object, text) = render::tokens(&answer.tokens);
    context.style.result(&object, &text);
    Ok(())
}

pub(super) async fn revoke(context: &Context, name: &str) -> Result<(), Failure> {
    let request = pb::RevokeTokenRequest { name: name.to_owned() };
    context.daemon().await?.auth().revoke_token(request).await?;
    let text = format!("the token {} was revoked", render::name(name));
    context.style.done(&json!({"name": name}), &text);
    Ok(())
}
