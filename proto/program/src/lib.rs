//! Code that the programs of tracker and peer share.
//!
//! - [`durable`]: small files that are complete or absent.
//! - [`log`]: log output in which an entry cannot forge another line.
//! - [`man`]: manual pages.
//! - [`settings`]: values from flag, environment, file or default, resolved in the same way by both programs.

pub mod durable;
pub mod log;
pub mod man;
pub mod settings;
