//! What the parts of a served page share.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Instant};

use parking_lot::Mutex;

use super::{api::Api, doors::Doors, rates::Rates};

/// What a served page consists of.
pub(super) struct App {
    pub(super) address: SocketAddr,
    /// The address in links.
    pub(super) named: SocketAddr,
    /// SHA-256 of the certificate. `None` for a page that is served to this machine alone, without TLS.
    pub(super) fingerprint: Option<String>,
    pub(super) started: Instant,
    pub(super) doors: Mutex<Doors>,
    pub(super) api: Api,
    pub(super) rates: Arc<Mutex<Rates>>,
    /// The file of the CA that this home trusts.
    pub(super) trusted_ca: PathBuf,
}

impl App {
    /// Whether other hosts are served, over TLS.
    pub(super) fn is_public(&self) -> bool {
        self.fingerprint.is_some()
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.is_public() { "https" } else { "http" }
    }
}
