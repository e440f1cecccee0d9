//! What several fuzz targets need: a runtime, a signer, and bytes that a client of gRPC would send.

use std::{future::Future, sync::LazyLock};

use domain::{Blake3, FileId, Manifest, PIECE_LENGTH, PeerId, PieceLayout, manifest::FileHasher};
use proto::ticket::{Claims, Signer};
use tokio::runtime::Runtime;

/// The time in all targets that need one, in seconds since 1970.
pub const NOW: u64 = 1_800_000_000;

/// Runs a future to its end, on one thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// The tracker's signer.
pub static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::from_seed(&[7; 32]).expect("a seed"));

/// The file that tickets are for.
pub fn file() -> FileId {
    FileId::try_from(&[5; 16][..]).expect("a file id")
}

/// The peer that tickets are for.
pub fn peer() -> PeerId {
    PeerId::from([3; 32])
}

/// The claims of a ticket that is good at [`NOW`].
pub fn claims() -> Claims {
    Claims {
        user: "ann".parse().expect("a username"),
        group: "g1".parse().expect("a group"),
        file: file(),
        root: Blake3::from([0; 32]),
        peer: peer(),
        epoch: 1,
        issued: NOW,
        not_before: NOW,
        expires: NOW + 1_800,
        id: [1; 16],
    }
}

/// A file of a whole piece and a short one, and its manifest.
pub static CONTENT: LazyLock<(Vec<u8>, Manifest)> = LazyLock::new(|| {
    let data: Vec<u8> = (0..PIECE_LENGTH + 1_000).map(|at| (at / 251 + at) as u8).collect();
    let layout = PieceLayout::new(data.len() as u64).expect("a length");
    let mut hasher = FileHasher::new(layout);
    for (piece, bytes) in layout.indices().zip(data.chunks(PIECE_LENGTH as usize)) {
        hasher.push(domain::manifest::hash_piece(layout, piece, bytes), bytes);
    }
    let manifest = hasher.finish("f".parse().expect("a name")).expect("hashes that fold");
    (data, manifest)
});

/// The begin of every HTTP/2 connection, with empty settings.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frames of a call with one message. Names and values have fewer than 127 bytes.
pub fn call(stream: u32, path: &str, token: Option<&str>, message: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    let bearer = token.map(|token| format!("Bearer {token}"));
    let fixed = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in fixed.into_iter().chain(bearer.as_deref().map(|value| ("authorization", value))) {
        // A literal that is not indexed.
        block.push(0);
        block.push(name.len() as u8);
        block.extend(name.bytes());
        block.push(value.len() as u8);
        block.extend(value.bytes());
    }
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    // END_HEADERS, then END_STREAM with the last part.
    let mut frames = frame(1, 4, stream, &block);
    let mut parts = body.chunks(16_384).peekable();
    while let Some(part) = parts.next() {
        frames.extend(frame(0, u8::from(parts.peek().is_none()), stream, part));
    }
    frames
}

/// Sends bytes to a server over a connection in memory, and reads its answer to the end.
pub async fn converse<F: Future<Output = ()>>(
    bytes: &[u8],
    serve: impl FnOnce(tokio::io::DuplexStream) -> F,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (client, server) = tokio::io::duplex(1 << 20);
    let (mut answers, mut questions) = tokio::io::split(client);
    let talk = async {
        // The server may close the connection before it has read all.
        let _ = questions.write_all(bytes).await;
        let _ = questions.shutdown().await;
        let mut sink = vec![0; 64 << 10];
        while answers.read(&mut sink).await.is_ok_and(|read| read > 0) {}
    };
    let both = async { tokio::join!(serve(server), talk) };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), both).await;
    assert!(ended.is_ok(), "a connection that its client closed goes on");
}

/// The bytes of a connection: raw ones, or calls whose messages are raw.
pub fn connection(input: &[u8], paths: &[&str], token: Option<&str>) -> Vec<u8> {
    let Some((&mode, rest)) = input.split_first() else { return Vec::new() };
    if mode < 32 {
        return rest.to_vec();
    }
    let mut bytes = PREFACE.to_vec();
    if mode < 64 {
        bytes.extend(rest);
        return bytes;
    }
    let (mut rest, mut stream) = (rest, 1);
    while let [which, low, high, after @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (message, next) = after.split_at(length);
        let token = token.filter(|_| which & 0x80 == 0);
        bytes.extend(call(stream, paths[usize::from(which & 0x7f) % paths.len()], token, message));
        (rest, stream) = (next, stream + 2);
    }
    bytes
}
