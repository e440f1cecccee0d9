//! Metrics over plain HTTP/1.1, for anybody who can reach the address, and small pages beside them. Implements only
//! what a scraper or a browser needs to read them.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Timeout for one scrape.
const SCRAPE: Duration = Duration::from_secs(5);
/// Maximum number of concurrent scrapes. One more ends the oldest, so that silent connections keep nobody
/// out.
const SCRAPES: usize = 4;
/// Maximum size of a request's head, in bytes.
const HEAD: u64 = 8 << 10;
/// Pause of the accept loop after an error, such as too many open files.
const REST: Duration = Duration::from_millis(100);

/// No page may use more than what this address serves.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

/// What is found at a path.
pub struct Scraped {
    /// Its media type.
    pub kind: &'static str,
    /// Its text.
    pub body: String,
}

impl Scraped {
    /// Metrics in the OpenMetrics text format.
    pub fn metrics(body: String) -> Self {
        Self { kind: "application/openmetrics-text; version=1.0.0; charset=utf-8", body }
    }
}

/// Answers `GET` of each path for which `find` has something, until `stop`.
pub async fn serve_scrapes(
    listener: TcpListener,
    find: impl Fn(&str) -> Option<Scraped> + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let find = Arc::new(find);
    // Dropping the set at the end aborts all scrapes.
    let mut scrapes = JoinSet::new();
    let mut by_age = VecDeque::new();
    let work = async {
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                sleep(REST).await;
                continue;
            };
            while scrapes.try_join_next().is_some() {}
            by_age.retain(|scrape: &AbortHandle| !scrape.is_finished());
            while by_age.len() >= SCRAPES {
                by_age.pop_front().inspect(AbortHandle::abort);
            }
            let find = Arc::clone(&find);
            by_age.push_back(scrapes.spawn(async move {
                let answered = timeout(SCRAPE, answer(socket, &*find)).await;
                tracing::trace!(?answered, "scraped");
            }));
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn answer(
    mut socket: TcpStream,
    find: &(dyn Fn(&str) -> Option<Scraped> + Send + Sync),
) -> io::Result<()> {
    let mut head = Vec::new();
    let mut limited = (&mut socket).take(HEAD);
    while !head.ends_with(b"\r\n\r\n") {
        if limited.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let (status, Scraped { kind, body }) = match path(&head).and_then(find) {
        Some(found) => ("200 OK", found),
        None => {
            let body = "the metrics are at /metrics\n".to_owned();
            ("404 Not Found", Scraped { kind: "text/plain; charset=utf-8", body })
        }
    };
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nContent-Security-Policy: {POLICY}\r\n\r\n{body}"
    );
    socket.write_all(response.as_bytes()).await?;
    socket.shutdown().await
}

/// The path that a request asks for, without its query. `None` for anything but `GET`.
fn path(head: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(head.strip_prefix(b"GET ")?.split(|byte| *byte == b' ').next()?).ok()?;
    line.split('?').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn metrics_are_served_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve_scrapes(
            listener,
            |path| (path == "/metrics").then(|| Scraped::metrics("up 1\n# EOF\n".into())),
            stop.clone(),
        ));
        // Twice as many silent connections as are served at a time.
        let mut silent = Vec::new();
        for _ in 0..2 * SCRAPES {
            silent.push(TcpStream::connect(address).await.expect("it listens"));
        }
        for (line, status, body) in [
            ("GET /metrics HTTP/1.1", "200", "up 1\n# EOF\n"),
            ("GET /metrics?a=/x HTTP/1.1", "200", "up 1\n# EOF\n"),
            ("GET /x HTTP/1.1", "404", "the metrics are at /metrics\n"),
            ("POST /metrics HTTP/1.1", "404", "the metrics are at /metrics\n"),
        ] {
            let mut socket = TcpStream::connect(address).await.expect("it listens");
            socket.write_all(format!("{line}\r\nHost: x\r\n\r\n").as_bytes()).await.expect("written");
            let mut text = String::new();
            socket.read_to_string(&mut text).await.expect("an answer");
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{text}");
        }
        let mut oldest = silent.swap_remove(0);
        assert!(oldest.read_u8().await.is_err(), "it had to give way");
        stop.cancel();
        serving.await.expect("it ends");
    }
}
