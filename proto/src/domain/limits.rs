//! Every limit that both sides know, with its unit. All are enforced before anything is allocated.

/// Longest file, in bytes: 1 TiB.
pub const MAX_FILE_LENGTH: u64 = 1 << 40;
/// Most pieces of a file.
pub const MAX_PIECES: u32 = 1 << 21;
/// Most piece hashes in one frame of a manifest: 52 bytes each keep the frame under 256 KiB.
pub const MANIFEST_FRAME_PIECES: usize = 4_096;
/// Largest frame of a manifest stream, in bytes.
pub const MAX_MANIFEST_FRAME: usize = 256 << 10;
/// Largest unary request to the tracker, in bytes.
pub const MAX_REQUEST: usize = 64 << 10;
/// Largest announce message, in bytes.
pub const MAX_ANNOUNCE: usize = 512 << 10;
/// Largest request to a peer, in bytes: a set of pieces.
pub const MAX_PEER_REQUEST: usize = 512 << 10;
/// Most pieces in one GetChunk request or one announce.
pub const MAX_PIECES_A_REQUEST: usize = 65_536;
/// Most bytes of file data in one chunk.
pub const MAX_CHUNK: usize = 524_288;
/// Longest ticket, in bytes.
pub const MAX_TICKET: usize = 2 << 10;
/// Longest file name, in bytes of UTF-8.
pub const MAX_FILE_NAME: usize = 255;
/// Longest group name, in characters and in bytes of UTF-8.
pub const MAX_GROUP_CHARS: usize = 64;
/// Longest group name, in bytes of UTF-8.
pub const MAX_GROUP_BYTES: usize = 256;
/// Shortest and longest username, in bytes.
pub const USERNAME_LENGTH: std::ops::RangeInclusive<usize> = 3..=32;
/// Shortest and longest password, in bytes.
pub const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 8..=1_024;
/// Most files in one IssueTickets call.
pub const MAX_TICKETS_A_CALL: usize = 64;
/// Most connections that a peer takes, and so most leechers that it can serve.
pub const MAX_PEER_CONNECTIONS: usize = 200;
/// Most sources handed out for one file.
pub const MAX_SOURCES: usize = 50;
/// Page size where none is asked for.
pub const DEFAULT_PAGE: u32 = 100;
/// Largest page.
pub const MAX_PAGE: u32 = 1_000;
