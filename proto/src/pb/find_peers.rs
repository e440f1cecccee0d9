//! `FindPeersResponse` with its sources still encoded.

use bytes::Bytes;
use prost::Message;

/// `FindPeersResponse` of the .proto. Its sources stay encoded. [`crate::convert::found`] writes and reads
/// them.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FindPeersResponse {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub file_id: Bytes,
    /// In the order of the selection policy. Each is an encoded `Source`.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub sources: Vec<Bytes>,
    /// With `everyone`; empty after the last page.
    #[prost(string, tag = "3")]
    pub next_page_token: String,
}
