//! What the parts of a served page share.

use std::{net::SocketAddr, time::Instant};

use parking_lot::Mutex;

use super::{api::Api, doors::Doors};

/// What a served page consists of.
pub(super) struct App {
    pub(super) address: SocketAddr,
    pub(super) started: Instant,
    pub(super) doors: Mutex<Doors>,
    pub(super) api: Api,
}
