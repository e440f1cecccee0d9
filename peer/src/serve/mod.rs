//! The serving side: what this peer offers, to whom, in which order, and how it goes out.
//!
//! - [`shares`]: what is offered; [`have`]: which pieces of it, told as it changes; [`holdings`]: the same for the announcer.
//! - [`admission`]: who may fetch what.
//! - [`slots`]: whose turn it is, an asynchronous shell around the pure [`crate::domain::upload`].
//! - [`get_chunk`], [`watch`]: the two calls; [`service`] takes them in; [`grpc`] is their framing.

pub(crate) mod admission;
mod buffers;
pub(crate) mod get_chunk;
mod grpc;
pub(crate) mod have;
pub(crate) mod holdings;
pub(crate) mod service;
pub(crate) mod shares;
pub(crate) mod slots;
mod watch;

pub use service::PeerService;
