//! The limits that tracker and peer share, with their units. Each is enforced before anything is allocated.

use std::time::Duration;

/// Maximum length of a file, in bytes: 1 TiB.
pub const MAX_FILE_LENGTH: u64 = 1 << 40;
/// Maximum number of pieces in a file.
pub const MAX_PIECES: u32 = 1 << 21;
/// Maximum number of piece hashes in one frame of a manifest. At 52 bytes each, a frame stays under 256 KiB.
pub const MANIFEST_FRAME_PIECES: usize = 4_096;
/// Maximum size of a frame of a manifest stream, in bytes.
pub const MAX_MANIFEST_FRAME: usize = 256 << 10;
/// Maximum size of a unary request to the tracker, in bytes.
pub const MAX_REQUEST: usize = 64 << 10;
/// Maximum size of an announce message, in bytes.
pub const MAX_ANNOUNCE: usize = 512 << 10;
/// Maximum size of a request to a peer, in bytes. The largest part of it is a set of pieces.
pub const MAX_PEER_REQUEST: usize = 512 << 10;
/// Maximum number of pieces in one GetChunk request or one announce.
pub const MAX_PIECES_A_REQUEST: usize = 65_536;
/// Maximum file data in one chunk, in bytes.
pub const MAX_CHUNK: usize = 524_288;
/// Maximum length of a ticket, in bytes.
pub const MAX_TICKET: usize = 2 << 10;
/// Maximum length of a file name, in bytes of UTF-8.
pub const MAX_FILE_NAME: usize = 255;
/// Maximum number of entries in a folder.
pub const MAX_FOLDER_ENTRIES: usize = 1_000_000;
/// Maximum length of the path of an entry in a folder, in bytes of UTF-8.
pub const MAX_ENTRY_PATH: usize = 4_095;
/// Maximum number of components in the path of an entry in a folder.
pub const MAX_ENTRY_DEPTH: usize = 256;
/// Maximum length of a folder's index, in bytes.
pub const MAX_INDEX_LENGTH: u64 = 256 << 20;
/// Maximum length of a group name, in characters. [`MAX_GROUP_BYTES`] applies as well.
pub const MAX_GROUP_CHARS: usize = 64;
/// Maximum length of a group name, in bytes of UTF-8.
pub const MAX_GROUP_BYTES: usize = 256;
/// Allowed lengths of a username, in bytes.
pub const USERNAME_LENGTH: std::ops::RangeInclusive<usize> = 3..=32;
/// Allowed lengths of a password, in bytes.
pub const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 8..=1_024;
/// Maximum number of files in one IssueTickets call.
pub const MAX_TICKETS_A_CALL: usize = 64;
/// Maximum number of connections that a peer accepts, and so the maximum number of leechers that it serves.
pub const MAX_PEER_CONNECTIONS: usize = 200;
/// Maximum number of sources that the tracker returns for one file.
pub const MAX_SOURCES: usize = 50;
/// Maximum number of addresses of one peer that others are given.
pub const MAX_ADDRESSES: usize = 4;
/// Page size if the request names none.
pub const DEFAULT_PAGE: u32 = 100;
/// Maximum page size.
pub const MAX_PAGE: u32 = 1_000;
/// How long the tracker keeps a peer in a swarm after the peer's last message.
pub const LEASE: Duration = Duration::from_secs(30);
/// The interval between a peer's heartbeats. A lease survives two lost heartbeats.
pub const HEARTBEAT: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// Allowed numbers of uses of an invitation.
pub const INVITE_USES: std::ops::RangeInclusive<u32> = 1..=1_000;
/// Allowed lifetimes of an invitation.
pub const INVITE_LIFETIME: std::ops::RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(90 * 24);
/// Lifetime of an invitation if the request names none.
pub const DEFAULT_INVITE_LIFETIME: Duration = Duration::from_hours(7 * 24);
/// Allowed lengths of the name of a token, in bytes.
pub const TOKEN_NAME_LENGTH: std::ops::RangeInclusive<usize> = 1..=32;
/// Allowed lifetimes of a token.
pub const TOKEN_LIFETIME: std::ops::RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(366 * 24);
/// Lifetime of a token if the request names none.
pub const DEFAULT_TOKEN_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// Maximum number of groups that a token is limited to.
pub const MAX_TOKEN_GROUPS: usize = 64;
