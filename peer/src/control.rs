//! The daemon's Unix socket: the daemon's own calls, and the calls that it forwards to its tracker.
//!
//! - here: [`service`], which answers all calls on the socket.
//! - `handlers`: ControlService, decode → agent → encode.
//! - `convert`: conversions from the agent's types to messages.
//! - `tracker_choice`: refuses a verb that means another tracker.
//! - `socket`: the socket itself.
//! - `forward`: forwards whole services unchanged, with the session's token.
//!
//! A stream whose verb reads slowly buffers one message. The work that it reports on continues in a task of its
//! own, and progress that is not read is dropped.

mod convert;
mod forward;
mod handlers;
mod socket;
mod tracker_choice;

use std::sync::Arc;

use proto::pb::{
    auth_service_server::AuthServiceServer, control_service_server::ControlServiceServer,
    file_service_server::FileServiceServer, group_service_server::GroupServiceServer,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, service::Routes};
use tower::{Layer as _, layer::util::Stack, util::BoxCloneSyncService};
use transport::{MiddlewareLayer, RequestIds};

use self::tracker_choice::same_tracker;
pub(crate) use self::{socket::Socket, tracker_choice::TRACKER_METADATA};
use crate::{
    agent::Agent,
    observe::CarryRequestId,
    page::{ControlService, Page},
};

/// Returns the service that answers all calls on the socket. Cancelling `shutdown` ends the daemon.
pub(crate) fn service(agent: &Arc<Agent>, shutdown: &CancellationToken) -> ControlService {
    service_with(agent, shutdown, &Arc::new(Page::new(agent.home())))
}

/// As [`service`]. The page of the daemon uses the same service.
fn service_with(agent: &Arc<Agent>, shutdown: &CancellationToken, page: &Arc<Page>) -> ControlService {
    let parts = (Arc::clone(agent), shutdown.clone(), Arc::clone(page));
    let again = Arc::new(move || service_with(&parts.0, &parts.1, &parts.2));
    let control = handlers::Control::new(Arc::clone(agent), shutdown.clone(), Arc::clone(page), again);
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
            &["CreateUser", "ChangePassword", "GetTrackerKeys", "CreateToken", "ListTokens", "RevokeToken"],
        ));
    let layers = Stack::new(MiddlewareLayer(CarryRequestId), MiddlewareLayer(RequestIds));
    BoxCloneSyncService::new(layers.layer(routes))
}
