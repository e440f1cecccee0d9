//! The downloading side: from sources to verified pieces in a store.
//!
//! - `lifecycle`: one download from its acceptance to its end; `driver`: the task that owns its machine,
//!   [`crate::domain::download::Download`], and carries out the machine's actions; `context`: the parts that
//!   their tasks share.
//! - `source`: the availability of one source; `request`: one `GetChunk`, from the call to complete pieces.
//! - `frames`: parses gRPC frames; `assembly`: assembles pieces from chunks; `checks`: the queue of pieces to
//!   check; `check`: verifies and writes them; `recheck`: reads the pieces of an earlier run again.
//! - `links`: connections, shared by all downloads from a peer; `source_directory`: the sources that
//!   the tracker named.
//! - `local`: what arriving data waits for on this side.
//! - `reservations`: the space that running downloads still need.
//! - `wishes`: which bytes its readers wait for.
//! - `view`: what is shown of a download.

mod assembly;
mod check;
mod checks;
mod context;
mod driver;
mod frames;
pub(crate) mod lifecycle;
pub(crate) mod links;
mod local;
pub(crate) mod recheck;
mod request;
pub(crate) mod reservations;
mod source;
mod source_directory;
mod view;
pub(crate) mod wishes;

#[cfg(fuzzing)]
pub use frames::parse;
