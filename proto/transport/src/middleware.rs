//! Middleware as one function, instead of a layer, a service and its future.
//!
//! tower-http 0.7 has layers for request ids and timeouts, but they behave differently. Its request-id layer
//! keeps any id that a caller sends, while [`RequestIds`](crate::RequestIds) accepts only ids that are safe in
//! a log, and keeps them out of HTTP/2's header table. Its timeout layer answers with an HTTP status and ignores
//! `grpc-timeout`, while [`Deadlines`](crate::Deadlines) answers with a status of gRPC.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Request;
use tower::{Layer, Service};

/// The future of a call to `S`.
pub type ResponseFuture<S, A> = Pin<
    Box<
        dyn Future<Output = Result<<S as Service<Request<A>>>::Response, <S as Service<Request<A>>>::Error>>
            + Send,
    >,
>;

/// Middleware around every call to a service. [`MiddlewareLayer`] makes a layer from it.
pub trait Middleware<S: Service<Request<A>>, A> {
    /// Answers one call. `inner` is ready for the call.
    fn call(&self, inner: &mut S, request: Request<A>) -> ResponseFuture<S, A>;
}

impl<T: Middleware<S, A>, S: Service<Request<A>>, A> Middleware<S, A> for Arc<T> {
    fn call(&self, inner: &mut S, request: Request<A>) -> ResponseFuture<S, A> {
        (**self).call(inner, request)
    }
}

/// The layer that runs `T` around every call.
#[derive(Clone, Copy, Debug, Default)]
pub struct MiddlewareLayer<T>(pub T);

impl<T: Clone, S> Layer<S> for MiddlewareLayer<T> {
    type Service = MiddlewareService<T, S>;

    fn layer(&self, inner: S) -> Self::Service {
        MiddlewareService { middleware: self.0.clone(), inner }
    }
}

/// The service that [`MiddlewareLayer`] makes.
#[derive(Clone, Debug)]
pub struct MiddlewareService<T, S> {
    middleware: T,
    inner: S,
}

impl<T, S, A> Service<Request<A>> for MiddlewareService<T, S>
where
    T: Middleware<S, A>,
    S: Service<Request<A>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, A>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        self.middleware.call(&mut self.inner, request)
    }
}
