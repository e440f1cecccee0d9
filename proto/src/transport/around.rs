//! What is done around every call, as one function rather than a layer, a service and its future.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Request;
use tower::{Layer, Service};

/// What a call to `S` comes to.
pub type Answer<S, A> = Pin<
    Box<
        dyn Future<Output = Result<<S as Service<Request<A>>>::Response, <S as Service<Request<A>>>::Error>>
            + Send,
    >,
>;

/// Something done around every call to a service. [`Around`] makes a layer of it.
pub trait Surround<S: Service<Request<A>>, A> {
    /// Answers one call. `inner` is ready for it.
    fn call(&self, inner: &mut S, request: Request<A>) -> Answer<S, A>;
}

impl<T: Surround<S, A>, S: Service<Request<A>>, A> Surround<S, A> for Arc<T> {
    fn call(&self, inner: &mut S, request: Request<A>) -> Answer<S, A> {
        (**self).call(inner, request)
    }
}

/// The layer that does `T` around every call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<T>(pub T);

impl<T: Clone, S> Layer<S> for Around<T> {
    type Service = Surrounded<T, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Surrounded { around: self.0.clone(), inner }
    }
}

/// See [`Around`].
#[derive(Clone, Debug)]
pub struct Surrounded<T, S> {
    around: T,
    inner: S,
}

impl<T, S, A> Service<Request<A>> for Surrounded<T, S>
where
    T: Surround<S, A>,
    S: Service<Request<A>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<S, A>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        self.around.call(&mut self.inner, request)
    }
}
