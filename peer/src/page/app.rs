//! What the parts of a served page share.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Instant};

use parking_lot::Mutex;

use super::{api::Api, doors::Doors, rates::Rates};

/// What a served page consists of.
pub(super) struct App {
    pub(super) address: SocketAddr,
    pub(super) started: Instant,
    pub(super) doors: Mutex<Doors>,
    pub(super) api: Api,
    pub(super) rates: Arc<Mutex<Rates>>,
    /// The file of the CA that this home trusts.
    pub(super) trusted_ca: PathBuf,
}
