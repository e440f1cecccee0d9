//! The downloading side: from sources to verified pieces in a store.
//!
//! - `driver`: one download from start to end; `transfer`: the task that owns its [`crate::domain::download::Download`]
//!   and carries out what it says; `context`: what their tasks share.
//! - `source`: one source's availability; `request`: one `GetChunk`, from asking to whole pieces.
//! - `frames`: gRPC frames taken apart by hand; `assembly`: chunks put together to pieces; `check`: pieces verified and written.
//! - `links`: connections, shared by all downloads from a peer; `book`: the sources that the tracker named.
//! - `view`: what is shown of a download.

mod assembly;
mod book;
mod check;
mod context;
pub(crate) mod driver;
mod frames;
pub(crate) mod links;
mod request;
mod source;
mod transfer;
mod view;
