//! Metrics over plain HTTP/1.1, for whoever may reach the address: just enough of it for a scraper.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long one scrape may take.
const SCRAPE: Duration = Duration::from_secs(5);
/// Scrapes at a time; one that is over it waits.
const SCRAPES: usize = 4;
/// Bytes of a request's head that are read.
const HEAD: u64 = 8 << 10;
/// How long accepting rests after an error, such as too many open files.
const REST: Duration = Duration::from_millis(100);

/// Answers `GET /metrics` with what `render` gives, in the OpenMetrics text format, until `stop`.
pub async fn serve_scrapes(
    listener: TcpListener,
    render: impl Fn() -> String + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let (render, places) = (Arc::new(render), Arc::new(Semaphore::new(SCRAPES)));
    // Dropped at the end, and all scrapes with it.
    let mut scrapes = JoinSet::new();
    let work = async {
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((socket, _)) = listener.accept().await else {
                sleep(REST).await;
                continue;
            };
            while scrapes.try_join_next().is_some() {}
            let render = Arc::clone(&render);
            scrapes.spawn(async move {
                let answered = timeout(SCRAPE, answer(socket, &*render)).await;
                tracing::trace!(?answered, "scraped");
                drop(place);
            });
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn answer(mut socket: TcpStream, render: &(dyn Fn() -> String + Send + Sync)) -> io::Result<()> {
    let mut head = Vec::new();
    let mut limited = (&mut socket).take(HEAD);
    while !head.ends_with(b"\r\n\r\n") {
        if limited.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let (status, kind, body) = if head.starts_with(b"GET /metrics ") || head.starts_with(b"GET / ") {
        ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", render())
    } else {
        ("404 Not Found", "text/plain; charset=utf-8", "metrics are at /metrics\n".to_owned())
    };
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    socket.write_all(response.as_bytes()).await?;
    socket.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn metrics_are_served_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve_scrapes(listener, || "up 1\n# EOF\n".into(), stop.clone()));
        for (line, status, body) in [
            ("GET /metrics HTTP/1.1", "200", "up 1\n# EOF\n"),
            ("POST /x HTTP/1.1", "404", "metrics are at /metrics\n"),
        ] {
            let mut socket = TcpStream::connect(address).await.expect("it listens");
            socket.write_all(format!("{line}\r\nHost: x\r\n\r\n").as_bytes()).await.expect("written");
            let mut text = String::new();
            socket.read_to_string(&mut text).await.expect("an answer");
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{text}");
        }
        stop.cancel();
        serving.await.expect("it ends");
    }
}
