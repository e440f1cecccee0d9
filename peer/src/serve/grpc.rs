//! The gRPC framing of the two streams that this peer serves.
//!
//! It is written by hand so that a chunk is read from disk straight into the outgoing frame. The messages are
//! exactly those of the .proto, and every client can read them.

use bytes::{BufMut, Bytes};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;
use proto::{domain::limits::MAX_PEER_REQUEST, reason::Reason};
use tonic::{Code, Status, body::Body, codec::Streaming};
use tonic_prost::ProstDecoder;

/// The bytes before each message: a flag (not compressed) and the length.
pub(super) const PREFIX: usize = 5;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Decodes the single message of a request.
pub(super) async fn decode<M, B>(request: Request<B>) -> Result<M, Status>
where
    M: Message + Default + 'static,
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let encoding = request.headers().get("grpc-encoding");
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(Status::unimplemented("compression is not supported"));
    }
    let mut messages: Streaming<M> =
        Streaming::new_request(ProstDecoder::default(), request.into_body(), None, Some(MAX_PEER_REQUEST));
    let first = messages.message().await?;
    first.ok_or_else(|| Reason::InvalidRequest.status("the request has no message"))
}

/// Writes the prefix of a message of `length` bytes.
pub(super) fn put_prefix(length: usize, into: &mut impl BufMut) {
    into.put_u8(0);
    // Fits: no message of this service is 4 GiB long.
    into.put_u32(length as u32);
}

/// A whole message with its prefix.
pub(super) fn message(message: &impl Message) -> Frame<Bytes> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(PREFIX + length);
    put_prefix(length, &mut bytes);
    bytes.extend_from_slice(&message.encode_to_vec());
    Frame::data(bytes.into())
}

/// The frame that ends a stream.
pub(super) fn end(result: Result<(), Status>) -> Frame<Bytes> {
    let status = result.err().unwrap_or_else(|| Status::new(Code::Ok, ""));
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.clear();
        trailers.insert("grpc-status", HeaderValue::from(Code::Internal as i32));
    }
    Frame::trailers(trailers)
}

/// A response that streams frames. The last frame must be an [`end`].
pub(super) fn streaming(frames: impl Stream<Item = Frame<Bytes>> + Send + 'static) -> Response<Body> {
    use futures_util::StreamExt as _;
    let frames = frames.map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}
