//! Subscriptions: downloads that start by themselves.

use std::path::Path;

use proto::pb;
use serde_json::json;

use super::download::{located, umask};
use crate::{
    cli::{context::Context, exit::Failure, render, resolve},
    paths,
};

/// Subscribes to the group of the request, with this directory.
pub(super) async fn subscribe(
    context: &Context,
    directory: &Path,
    request: pb::SubscribeRequest,
) -> Result<(), Failure> {
    if directory.as_os_str().is_empty() {
        return Err(Failure::usage("the directory is empty; write . for the current directory"));
    }
    let path = resolve::absolute(&context.directory, directory)?;
    let (directory, directory_bytes) = paths::to_wire(&path);
    let group = request.group_id.clone();
    let request = pb::SubscribeRequest {
        directory,
        directory_bytes,
        umask: Some(umask()),
        exec: located(context, request.exec),
        ..request
    };
    context.daemon().await?.control().subscribe(request).await?;
    let shown = render::name(&path.to_string_lossy());
    let object =
        json!({"group": group, "directory": path.to_string_lossy(), "directory_base64": paths::exact(&path)});
    context.style.done(&object, &format!("what is published in {} goes to {shown}", render::name(&group)));
    Ok(())
}

pub(super) async fn list(context: &Context) -> Result<(), Failure> {
    let answer =
        context.daemon().await?.control().list_subscriptions(pb::ListSubscriptionsRequest {}).await?;
    let (object, text) = render::subscriptions(&answer.into_inner().subscriptions);
    context.style.result(&object, &text);
    Ok(())
}

pub(super) async fn unsubscribe(context: &Context, group: &str) -> Result<(), Failure> {
    let request = pb::UnsubscribeRequest { group_id: group.to_owned() };
    context.daemon().await?.control().unsubscribe(request).await?;
    let text = format!("the subscription of {} has ended; its downloads go on", render::name(group));
    context.style.done(&json!({"group": group}), &text);
    Ok(())
}
