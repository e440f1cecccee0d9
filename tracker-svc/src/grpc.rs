//! The services, one file each: decode, decide, store, encode. Also the layers around them.
//!
//! Nothing that waits for a client holds a database connection, a lock or a permit that others need. A
//! streaming call that waits for its client holds the following:
//!
//! - `GetManifest`: at most two rows of hashes (2 x 212 KiB) in memory. Each row is read in a separate task,
//!   which waits for nobody.
//! - `PublishFile`: its part of the user's own quota of manifest bytes, and less than one row of hashes. Each
//!   row is a transaction that begins and ends between two frames.
//! - `Announce`: a task and two responses. It reads the store between messages. It reads the swarms under
//!   locks that are never held while it waits. Its marks in the mailbox do not grow during the wait.
//! - `Health/Watch`: a receiver of the last status. `ServerReflectionInfo`: a task and one response.
//!
//! A call with a single response finishes its work before the response is sent. The transport ends every call
//! whose client reads nothing for 30 s ([`transport::Limits::stall`]). [`rights`] ends every call whose
//! caller loses the right to it.

mod announce;
pub mod auth;
pub mod authn;
pub mod file;
pub mod gate;
pub mod group;
mod guesses;
pub mod limits;
mod methods;
mod page;
pub mod rights;
pub mod swarm;
mod swarm_state;
mod tokens;

use std::sync::Arc;

use proto::{
    domain::limits::{MAX_ANNOUNCE, MAX_MANIFEST_FRAME, MAX_REQUEST},
    pb::{
        self, auth_service_server::AuthServiceServer, file_service_server::FileServiceServer,
        group_service_server::GroupServiceServer, swarm_service_server::SwarmServiceServer,
    },
};
use tonic::{
    body::Body,
    server::NamedService,
    service::{Routes, RoutesBuilder},
};
use tower::{Service, ServiceBuilder};
use transport::{Deadlines, MiddlewareLayer, RequestIds};

use self::{
    authn::Authn,
    limits::{Rates, Unreadable},
    methods::methods,
    rights::Rights,
};
use crate::{domain::access, metrics::Metrics};

/// Maximum size of a response, in bytes: a page of 1,000 files with the longest names.
const MAX_ANSWER: usize = 1 << 20;
/// Maximum size of a response about swarms, in bytes: the sources of 64 files, 50 each.
const MAX_SWARM_ANSWER: usize = 4 << 20;

/// A served method that is not in the access table.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not in the access table")]
pub struct Unlisted(String);

/// The served services. Every method is checked against the access table.
pub struct Services {
    routes: RoutesBuilder,
    names: Vec<&'static str>,
}

impl Services {
    /// Starts without services.
    pub fn new() -> Self {
        Self { routes: RoutesBuilder::default(), names: Vec::new() }
    }

    /// Adds a service.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = std::convert::Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self.names.push(S::NAME);
        self
    }

    /// Adds reflection of all services added so far, and of itself.
    #[must_use]
    pub fn with_reflection(self) -> Self {
        let builder = || {
            let all = [pb::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
            let builder = tonic_reflection::server::Builder::configure();
            let builder = all.into_iter().fold(builder, |b, set| b.register_encoded_file_descriptor_set(set));
            self.names.iter().fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let v1 = builder().with_service_name(REFLECTION_V1).build_v1();
        let v1alpha = builder().with_service_name(REFLECTION_V1ALPHA).build_v1alpha();
        let (Ok(v1), Ok(v1alpha)) = (v1, v1alpha) else {
            unreachable!("compiled-in descriptors can be read")
        };
        self.with(v1).with(v1alpha)
    }

    /// The names of the services.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// Returns all services as routes, if the access table has every method.
    ///
    /// # Errors
    /// [`Unlisted`].
    pub fn routes(self) -> Result<Routes, Unlisted> {
        for name in &self.names {
            let methods = methods(name);
            if methods.is_empty() {
                return Err(Unlisted((*name).to_owned()));
            }
            if let Some(path) = methods.into_iter().find(|path| access::requirement(path).is_none()) {
                return Err(Unlisted(path));
            }
        }
        Ok(self.routes.routes().prepare())
    }
}

impl Default for Services {
    fn default() -> Self {
        Self::new()
    }
}

const REFLECTION_V1: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// Adds the layers to the services, the outermost first.
pub fn layered(
    routes: Routes,
    rights: Arc<Rights>,
    rates: Arc<Rates>,
    metrics: Metrics,
) -> impl transport::GrpcService<Body> {
    ServiceBuilder::new()
        .layer(MiddlewareLayer(RequestIds))
        .layer(MiddlewareLayer(metrics))
        .layer(MiddlewareLayer(Unreadable))
        .layer(MiddlewareLayer(Deadlines::new(limits::deadline)))
        .layer(MiddlewareLayer(Authn::new(rights)))
        .layer(MiddlewareLayer(rates))
        .service(routes)
}

/// Limits the size of a service's messages, in bytes.
macro_rules! bounded {
    ($server:expr, $request:expr, $answer:expr) => {
        $server.max_decoding_message_size($request).max_encoding_message_size($answer)
    };
}

/// AuthService as a server.
pub fn auth_server(service: auth::AuthService) -> AuthServiceServer<auth::AuthService> {
    bounded!(AuthServiceServer::new(service), MAX_REQUEST, MAX_ANSWER)
}

/// GroupService as a server.
pub fn group_server(service: group::GroupService) -> GroupServiceServer<group::GroupService> {
    bounded!(GroupServiceServer::new(service), MAX_REQUEST, MAX_ANSWER)
}

/// FileService as a server. Its largest request is a frame of a manifest.
pub fn file_server(service: file::FileService) -> FileServiceServer<file::FileService> {
    bounded!(FileServiceServer::new(service), MAX_MANIFEST_FRAME, MAX_ANSWER)
}

/// SwarmService as a server. Its largest request is an announce.
pub fn swarm_server(service: swarm::SwarmService) -> SwarmServiceServer<swarm::SwarmService> {
    bounded!(SwarmServiceServer::new(service), MAX_ANNOUNCE, MAX_SWARM_ANSWER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: [&str; 7] = [
        "minitorrent.v1.AuthService",
        "minitorrent.v1.GroupService",
        "minitorrent.v1.FileService",
        "minitorrent.v1.SwarmService",
        "grpc.health.v1.Health",
        REFLECTION_V1,
        REFLECTION_V1ALPHA,
    ];

    #[test]
    fn the_access_table_lists_exactly_what_is_served() {
        let mut served: Vec<String> = SERVED.into_iter().flat_map(methods).collect();
        let mut listed: Vec<String> = access::TABLE.iter().map(|(path, ..)| (*path).to_owned()).collect();
        served.sort();
        listed.sort();
        assert_eq!(served, listed);
    }

    #[test]
    fn a_service_that_is_not_in_the_table_does_not_start() {
        struct Stranger;
        #[tonic::async_trait]
        impl pb::peer_service_server::PeerService for Stranger {
            type GetChunkStream = tokio_stream::Empty<Result<pb::GetChunkResponse, tonic::Status>>;
            type WatchAvailabilityStream =
                tokio_stream::Empty<Result<pb::WatchAvailabilityResponse, tonic::Status>>;
            async fn get_chunk(
                &self,
                _: tonic::Request<pb::GetChunkRequest>,
            ) -> Result<tonic::Response<Self::GetChunkStream>, tonic::Status> {
                Ok(tonic::Response::new(tokio_stream::empty()))
            }
            async fn watch_availability(
                &self,
                _: tonic::Request<pb::WatchAvailabilityRequest>,
            ) -> Result<tonic::Response<Self::WatchAvailabilityStream>, tonic::Status> {
                Ok(tonic::Response::new(tokio_stream::empty()))
            }
        }
        let (_, health) = tonic_health::server::health_reporter();
        assert!(Services::new().with(health.clone()).with_reflection().routes().is_ok());
        let stranger = pb::peer_service_server::PeerServiceServer::new(Stranger);
        assert!(Services::new().with(health).with(stranger).routes().is_err());
    }
}
