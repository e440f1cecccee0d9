//! The bare socket: a transfer reduced to copying, hashing and writing.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result};
use sha1::{Digest as _, Sha1};
use socket2::{Domain, Protocol, Socket, Type};

use super::{cpu_time, report};

const PIECE: u64 = 524_288;
const CONNECTIONS: u64 = 2;

/// Answers each request with a range of the file. A request is an offset and a length, 8 bytes each.
pub(super) fn serve(path: &Path) -> Result<()> {
    let listener = listen()?;
    println!("listening {}", listener.local_addr()?);
    for socket in listener.incoming() {
        let (mut socket, file) = (socket?, File::open(path)?);
        thread::spawn(move || -> Result<()> {
            let mut request = [0; 16];
            socket.read_exact(&mut request)?;
            let (offset, length) = request.split_at(8);
            let mut offset = u64::from_be_bytes(offset.try_into()?);
            let end = offset + u64::from_be_bytes(length.try_into()?);
            while offset < end {
                let count = usize::try_from(end - offset)?.min(1 << 30);
                rustix::fs::sendfile(&socket, &file, Some(&mut offset), count)?;
            }
            Ok(())
        });
    }
    Ok(())
}

/// Listens with cubic congestion control where the system allows it. Accepted sockets inherit it. The pacing
/// of other algorithms is meant for real networks.
fn listen() -> Result<TcpListener> {
    let address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    if let Err(error) = socket.set_tcp_congestion(b"cubic") {
        eprintln!("data_path: the system's own congestion control, for cubic can't be had: {error}");
    }
    socket.bind(&address.into())?;
    socket.listen(16)?;
    Ok(socket.into())
}

/// Fetches `bytes` bytes over two connections at once, one half each. Hashes and writes piece by piece.
pub(super) fn fetch(address: &str, bytes: u64, to: &Path) -> Result<()> {
    let file = File::create(to).with_context(|| format!("{} can't be made", to.display()))?;
    let half = (bytes / CONNECTIONS).next_multiple_of(PIECE).min(bytes);
    let (cpu, start) = (cpu_time()?, Instant::now());
    thread::scope(|scope| -> Result<()> {
        let (halves, file) = ([(0, half), (half, bytes)], &file);
        let workers = halves.map(|(from, end)| scope.spawn(move || stretch(address, file, from, end)));
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(())
    })?;
    report(start.elapsed(), cpu)
}

fn stretch(address: &str, file: &File, from: u64, end: u64) -> Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.write_all(&[from.to_be_bytes(), (end - from).to_be_bytes()].concat())?;
    let mut buffer = vec![0; usize::try_from(PIECE)?];
    let mut at = from;
    while at < end {
        let piece = &mut buffer[..usize::try_from(PIECE.min(end - at))?];
        socket.read_exact(piece)?;
        std::hint::black_box(Sha1::digest(&*piece));
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}
