//! Handwritten HTTP/2, for input that no library would send.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{SendStream, client::SendRequest};
use http::{Request, Response};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::Code;

use super::process::Tracker;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types and flags of RFC 9113.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) async fn tls(addr: SocketAddr, ca: &str) -> io::Result<TlsStream<TcpStream>> {
    let config = transport::client_config(ca, None).expect("the tracker's authority");
    tls_with(addr, config).await
}

async fn tls_with(addr: SocketAddr, config: Arc<rustls::ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(config).connect(name, socket).await
}

/// One frame: RFC 9113, section 4.1.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header block without compression: RFC 7541, section 6.2.2.
pub(crate) fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short header"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

pub(crate) fn call(path: &str) -> Vec<u8> {
    block(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ])
}

/// A connection that sends and receives raw frames.
pub(crate) struct Wire(TlsStream<TcpStream>);

impl Wire {
    /// Connects and opens HTTP/2.
    pub(crate) async fn connect(tracker: &Tracker) -> Self {
        let mut wire = Self(tls(tracker.addr, &tracker.ca).await.expect("TLS"));
        wire.send(PREFACE).await.expect("the preface goes out");
        wire.send(&frame(SETTINGS, 0, 0, &[])).await.expect("settings go out");
        wire
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    /// Sends all chunks, or as many as the server accepts before it closes or stops reading.
    pub(crate) async fn flood(&mut self, chunks: impl Iterator<Item = Vec<u8>>, patience: Duration) {
        let flooding = async {
            for chunk in chunks {
                self.send(&chunk).await?;
            }
            io::Result::Ok(())
        };
        let _ = timeout(patience, flooding).await;
    }

    /// Reads until the server closes. Returns false if it does not do so in time.
    pub(crate) async fn is_closed_within(&mut self, patience: Duration) -> bool {
        let mut sink = vec![0; 64 << 10];
        let reading = async { while self.0.read(&mut sink).await.is_ok_and(|read| read > 0) {} };
        timeout(patience, reading).await.is_ok()
    }
}

/// How a call of [`Calls`] ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: u16,
    /// `None` if the server sent no gRPC status.
    pub(crate) code: Option<Code>,
}

/// Well-formed HTTP/2 that carries invalid gRPC.
pub(crate) struct Calls(SendRequest<Bytes>);

impl Calls {
    pub(crate) async fn connect(tracker: &Tracker) -> Self {
        let (calls, connection) = h2::client::handshake(tls(tracker.addr, &tracker.ca).await.expect("TLS"))
            .await
            .expect("HTTP/2 opens");
        // The task ends with the connection.
        tokio::spawn(connection);
        Self(calls)
    }

    pub(crate) fn request(path: &str) -> http::request::Builder {
        Request::post(format!("https://localhost{path}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
    }

    /// Opens a call, sends `body`, and leaves the request open.
    pub(crate) async fn open(
        &mut self,
        request: http::request::Builder,
        body: &[u8],
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.0 = self.0.clone().ready().await?;
        let (answer, mut stream) = self.0.send_request(request.body(()).expect("a request"), false)?;
        stream.send_data(Bytes::copy_from_slice(body), false)?;
        Ok((answer, stream))
    }

    /// Sends a complete call.
    pub(crate) async fn send(
        &mut self,
        request: http::request::Builder,
        body: &[u8],
    ) -> Result<Answer, h2::Error> {
        let (answer, mut stream) = self.open(request, body).await?;
        // The server may already have answered and reset the stream.
        let _ = stream.send_data(Bytes::new(), true);
        answer_of(answer.await?).await
    }
}

/// Reads a response to its end.
pub(crate) async fn answer_of(response: Response<h2::RecvStream>) -> Result<Answer, h2::Error> {
    let http = response.status().as_u16();
    let mut code = code_of(response.headers());
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    if let Some(trailers) = body.trailers().await? {
        code = code_of(&trailers).or(code);
    }
    Ok(Answer { http, code })
}

fn code_of(headers: &http::HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

/// A gRPC message frame with this flag, claimed length and content.
pub(crate) fn message(flag: u8, claimed: u32, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![flag];
    message.extend_from_slice(&claimed.to_be_bytes());
    message.extend_from_slice(bytes);
    message
}
