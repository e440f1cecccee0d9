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

use std::{convert::Infallible, sync::Arc};

use http::Response;
use proto::pb::{
    auth_service_server::AuthServiceServer, control_service_server::ControlServiceServer,
    file_service_server::FileServiceServer, group_service_server::GroupServiceServer,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, body::Body, service::Routes};
use tower::{Layer as _, Service, layer::util::Stack};
use transport::{MiddlewareLayer, RequestIds};

use self::tracker_choice::same_tracker;
pub(crate) use self::{socket::Socket, tracker_choice::TRACKER_METADATA};
use crate::{agent::Agent, observe::CarryRequestId};

/// Returns the service that answers all calls on the socket. Cancelling `shutdown` ends the daemon.
pub(crate) fn service(
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
            &["CreateUser", "ChangePassword", "GetTrackerKeys"],
        ));
    Stack::new(MiddlewareLayer(CarryRequestId), MiddlewareLayer(RequestIds)).layer(routes)
}
