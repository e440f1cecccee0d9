//! The page that the daemon serves to browsers: of this machine, or of others over TLS. It is off until a verb asks for a
//! link to it.
//!
//! - here: [`Page`], which starts the server and makes links.
//! - `app`: what its parts share; `rates`: how fast bytes went in the last minutes.
//! - `doors`: who may use it; `guard`: the checks of each request, and the headers of each answer.
//! - `serve`: the server; `tls`: its certificate for other hosts.
//! - `routes`: what is where; `actions`: what a form may change; `reading`: files, whole or in parts, by `range`;
//!   `events`: news of what a page shows.
//! - `api`: the calls. All of them go to the service that also answers the verbs, so there is one set of rules.
//! - `views`: from answers to HTML. Pure.

mod actions;
mod api;
mod app;
mod doors;
mod events;
mod guard;
mod range;
mod rates;
mod reading;
mod refusal;
mod routes;
mod serve;
mod tls;
mod views;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Instant, SystemTime},
};

use parking_lot::Mutex;
use proto::reason::Reason;
use tokio_util::sync::CancellationToken;

use self::{api::Api, app::App};
pub(crate) use api::ControlService;

use crate::{home::Home, interfaces};

/// The reason why the page is not served.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The text is no address.
    #[error("{0:?} is not an address with a port, such as 127.0.0.1:7780")]
    BadAddress(String),
    /// It is already served.
    #[error("the page is already served at {0}; `peer ui` without --listen prints a link to it")]
    Elsewhere(SocketAddr),
    /// The address can't be bound.
    #[error("the page can't be served at {0}: {1}; choose another --listen")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// There is no certificate to serve it to other hosts with.
    #[error("the page needs a certificate of its own to be served to other hosts: {0}")]
    Certificate(String),
}

impl PageError {
    /// The reason that represents the error on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Self::BadAddress(_) => Reason::InvalidRequest,
            Self::Elsewhere(_) => Reason::AlreadyExists,
            Self::Bind(_, error) => Reason::of_io(error),
            Self::Certificate(_) => Reason::Internal,
        }
    }
}

/// The page of a daemon, served or not.
pub(crate) struct Page {
    app: tokio::sync::Mutex<Option<Arc<App>>>,
    home: Home,
}

/// A link to the page.
pub(crate) struct Opened {
    pub(crate) url: String,
    /// SHA-256 of the certificate, if the page is served with one of its own.
    pub(crate) fingerprint: Option<String>,
}

impl Page {
    pub(crate) fn new(home: Home) -> Self {
        Self { app: tokio::sync::Mutex::default(), home }
    }

    /// A new link to the page, which works once and for a few minutes. Starts to serve the page if it is not served yet:
    /// at `listen`, or at a free port of loopback if that is empty. Other hosts are served over TLS alone.
    ///
    /// # Errors
    /// Fails when the page can't be served there.
    pub(crate) async fn link(
        &self,
        listen: &str,
        service: &(dyn Fn() -> ControlService + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Opened, PageError> {
        let asked = (!listen.is_empty()).then(|| listen.parse::<SocketAddr>()).transpose();
        let asked = asked.map_err(|_| PageError::BadAddress(listen.to_owned()))?;
        let mut running = self.app.lock().await;
        let app = match &*running {
            Some(app) if asked.is_none_or(|asked| is_same(asked, app.address)) => app.clone(),
            Some(app) => return Err(PageError::Elsewhere(app.address)),
            None => {
                let address = asked.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
                let failed = |error| PageError::Bind(address, error);
                let listener = transport::listen(address).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                let named = reachable(address);
                let tls = (!address.ip().is_loopback()).then(|| {
                    tls::open_or_create(&self.home.page_certificate(), &[named.ip()], SystemTime::now())
                });
                let (config, fingerprint) = match tls.transpose().map_err(PageError::Certificate)? {
                    Some(pair) => (Some(pair.config), Some(pair.fingerprint)),
                    None => (None, None),
                };
                let app = Arc::new(App {
                    address,
                    named,
                    fingerprint,
                    started: Instant::now(),
                    doors: Mutex::default(),
                    api: Api::new(service()),
                    rates: Arc::default(),
                    trusted_ca: self.home.trusted_ca(),
                });
                tracing::info!(address = %app.address, "serving the page");
                tokio::spawn(serve::serve(listener, config, routes::router(&app), stop.clone()));
                tokio::spawn(
                    stop.clone().run_until_cancelled_owned(rates::follow(app.api.clone(), app.rates.clone())),
                );
                running.insert(app).clone()
            }
        };
        let link = app.doors.lock().add_link(app.started.elapsed(), &rand::random());
        let url = format!("{}://{}/enter/{link}", app.scheme(), app.named);
        Ok(Opened { url, fingerprint: app.fingerprint.clone() })
    }
}

/// The address that a link names: one of this host's for a page that listens at all of them.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let all =
        if bound.ip().is_unspecified() { interfaces::announceable(bound.ip()) } else { vec![bound.ip()] };
    SocketAddr::new(all.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), bound.port())
}

fn is_same(asked: SocketAddr, bound: SocketAddr) -> bool {
    asked.ip() == bound.ip() && (asked.port() == 0 || asked.port() == bound.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_an_address_that_can_be_dialled() {
        for address in ["127.0.0.1:80", "[::1]:7780", "10.0.0.1:1"] {
            let address: SocketAddr = address.parse().expect("an address");
            assert_eq!(reachable(address), address);
        }
        let named = reachable("0.0.0.0:80".parse().expect("an address"));
        assert!(!named.ip().is_unspecified() && named.port() == 80, "{named}");
    }
}
