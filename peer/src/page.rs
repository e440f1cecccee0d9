//! The page that the daemon serves to browsers of this machine. It is off until a verb asks for a link to it.
//!
//! - here: [`Page`], which starts the server and makes links.
//! - `app`: what its parts share; `rates`: how fast bytes went in the last minutes.
//! - `doors`: who may use it; `guard`: the checks of each request, and the headers of each answer.
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
mod views;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;
use proto::reason::Reason;
use tokio_util::sync::CancellationToken;

use self::{api::Api, app::App};
pub(crate) use api::ControlService;

/// The reason why the page is not served.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The address is no address of this machine alone.
    #[error(
        "{0} can be reached from other machines, and the page is for this machine alone; choose 127.0.0.1 or [::1], and \
         forward the port to look from elsewhere"
    )]
    NotLoopback(SocketAddr),
    /// The text is no address.
    #[error("{0:?} is not an address with a port, such as 127.0.0.1:7780")]
    BadAddress(String),
    /// It is already served.
    #[error("the page is already served at {0}; `peer ui` without --listen prints a link to it")]
    Elsewhere(SocketAddr),
    /// The address can't be bound.
    #[error("the page can't be served at {0}: {1}; choose another --listen")]
    Bind(SocketAddr, #[source] std::io::Error),
}

impl PageError {
    /// The reason that represents the error on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotLoopback(_) | Self::BadAddress(_) => Reason::InvalidRequest,
            Self::Elsewhere(_) => Reason::AlreadyExists,
            Self::Bind(_, error) => Reason::of_io(error),
        }
    }
}

/// The page of a daemon, served or not.
pub(crate) struct Page {
    app: tokio::sync::Mutex<Option<Arc<App>>>,
    /// The file of the CA that this home trusts, for links of invitations.
    trusted_ca: PathBuf,
}

impl Page {
    pub(crate) fn new(trusted_ca: PathBuf) -> Self {
        Self { app: tokio::sync::Mutex::default(), trusted_ca }
    }

    /// A new link to the page, which works once and for a few minutes. Starts to serve the page if it is not served yet:
    /// at `listen`, or at a free port if that is empty.
    ///
    /// # Errors
    /// Fails when the page can't be served there.
    pub(crate) async fn link(
        &self,
        listen: &str,
        service: &(dyn Fn() -> ControlService + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<String, PageError> {
        let asked = (!listen.is_empty()).then(|| loopback(listen)).transpose()?;
        let mut running = self.app.lock().await;
        let app = match &*running {
            Some(app) if asked.is_none_or(|asked| is_same(asked, app.address)) => app.clone(),
            Some(app) => return Err(PageError::Elsewhere(app.address)),
            None => {
                let address = asked.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
                let failed = |error| PageError::Bind(address, error);
                let listener = transport::listen(address).map_err(failed)?;
                let app = Arc::new(App {
                    address: listener.local_addr().map_err(failed)?,
                    started: Instant::now(),
                    doors: Mutex::default(),
                    api: Api::new(service()),
                    rates: Arc::default(),
                    trusted_ca: self.trusted_ca.clone(),
                });
                tracing::info!(address = %app.address, "serving the page");
                tokio::spawn(serve::serve(listener, routes::router(&app), stop.clone()));
                tokio::spawn(
                    stop.clone().run_until_cancelled_owned(rates::follow(app.api.clone(), app.rates.clone())),
                );
                running.insert(app).clone()
            }
        };
        let link = app.doors.lock().add_link(app.started.elapsed(), &rand::random());
        Ok(format!("http://{}/enter/{link}", app.address))
    }
}

fn loopback(listen: &str) -> Result<SocketAddr, PageError> {
    let address: SocketAddr = listen.parse().map_err(|_| PageError::BadAddress(listen.to_owned()))?;
    if address.ip().is_loopback() { Ok(address) } else { Err(PageError::NotLoopback(address)) }
}

fn is_same(asked: SocketAddr, bound: SocketAddr) -> bool {
    asked.ip() == bound.ip() && (asked.port() == 0 || asked.port() == bound.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_for_this_machine() {
        for good in ["127.0.0.1:0", "[::1]:7780"] {
            assert!(loopback(good).is_ok(), "{good}");
        }
        for bad in
            ["0.0.0.0:80", "10.0.0.1:80", "[::]:80", "[::ffff:127.0.0.1]:80", "localhost:80", "7780", "x"]
        {
            assert!(loopback(bad).is_err(), "{bad}");
        }
    }
}
