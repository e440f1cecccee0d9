//! The daemon's Unix socket: what verbs ask of the daemon, and what it passes on to its tracker.
//!
//! - here: [`service`], all that the socket answers.
//! - `handlers`: ControlService, decode → agent → encode.
//! - `convert`: the agent's words for the wire.
//! - `forward`: whole services that are passed on as they are, with the session's token.

mod convert;
mod forward;
mod handlers;

use std::{convert::Infallible, sync::Arc};

use http::Response;
use proto::{
    pb::{
        auth_service_server::AuthServiceServer, control_service_server::ControlServiceServer,
        file_service_server::FileServiceServer, group_service_server::GroupServiceServer,
    },
    transport::{Around, RequestIds},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, body::Body, metadata::MetadataMap, service::Routes};
use tower::{Layer as _, Service, layer::util::Stack};

use crate::{agent::Agent, error::PeerError, observe::CarryRequestId};

/// Metadata of a verb that means one tracker and no other: its URL.
pub const TRACKER_METADATA: &str = "x-peer-tracker";

/// All that the socket answers. `shutdown` ends the daemon.
pub fn service(
    agent: &Arc<Agent>,
    shutdown: CancellationToken,
) -> impl Service<http::Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ use<> {
    let control = handlers::Control::new(Arc::clone(agent), shutdown);
    let guarded = Arc::clone(agent);
    let guard = move |request: Request<()>| {
        same_tracker(&guarded, request.metadata())?;
        Ok(request)
    };
    let routes = Routes::new(ControlServiceServer::with_interceptor(control, guard))
        .add_service(forward::Forward::<GroupServiceServer<()>>::new(agent, &[]))
        .add_service(forward::Forward::<FileServiceServer<()>>::new(agent, &["ListFiles", "UnpublishFile"]))
        .add_service(forward::Forward::<AuthServiceServer<()>>::new(
            agent,
            &["CreateUser", "ChangePassword"],
        ));
    Stack::new(Around(CarryRequestId), Around(RequestIds)).layer(routes)
}

/// The verb means this daemon's tracker, or doesn't say.
fn same_tracker(agent: &Agent, metadata: &MetadataMap) -> Result<(), Status> {
    let Some(asked) = metadata.get(TRACKER_METADATA).and_then(|value| value.to_str().ok()) else {
        return Ok(());
    };
    let daemon = agent.tracker().url();
    if asked == daemon {
        return Ok(());
    }
    Err(PeerError::AnotherTracker { daemon: daemon.to_owned(), asked: asked.to_owned() }.into())
}
