//! The serving side: which files and pieces are offered, to whom, in which order, and how they are sent.
//!
//! - [`shares`]: the offered files; [`have`]: their pieces and the changes; [`holdings`]: the same for the
//!   announcer.
//! - [`admission`]: who may fetch what.
//! - [`receivers`]: who fetches what, for people to look at.
//! - [`slots`]: whose turn it is, an asynchronous shell around the pure [`crate::domain::upload`].
//! - [`get_chunk`], [`watch`]: the two calls; [`service`] receives them; [`guard`] ends them from outside;
//!   [`grpc`] frames their messages.
//!
//! While a call waits for its client, its upload slot is the only thing it holds that others need. It holds
//! the slot for at most 30 s: [`slots`] ends an upload whose client takes nothing for that long. A chunk is
//! read, and passes the rate limit, between two waits. A watcher holds a bitfield and the changes that did
//! not fit into its last message.

pub(crate) mod admission;
mod buffers;
pub(crate) mod get_chunk;
mod grpc;
mod guard;
pub(crate) mod have;
pub(crate) mod holdings;
mod news;
pub(crate) mod receivers;
pub(crate) mod service;
pub(crate) mod shares;
pub(crate) mod slots;
pub(crate) mod upkeep;
mod watch;

pub use service::PeerService;
