//! The ids of a download's requests.

/// The id of a request of a download. An id is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DownloadRequestId(pub u64);
