//! The part of a BitTorrent tracker (BEP 3, BEP 23) that the rivals need to find each other on this machine.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::Result;

type Peers = Arc<Mutex<BTreeSet<SocketAddrV4>>>;

/// Answers announces until the program ends. It has one swarm. A peer is in it from its first announce until
/// it announces `stopped`.
pub(crate) struct Announce {
    url: String,
    peers: Peers,
}

impl Announce {
    pub(crate) fn start(address: Ipv4Addr) -> Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        let url = format!("http://{}/announce", listener.local_addr()?);
        let peers = Peers::default();
        let known = Arc::clone(&peers);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let known = Arc::clone(&known);
                thread::spawn(move || answer(&socket, &known));
            }
        });
        Ok(Self { url, peers })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Removes all peers.
    pub(crate) fn clear(&self) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Number of peers in the swarm.
    pub(crate) fn count(&self) -> usize {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn answer(socket: &TcpStream, peers: &Peers) -> Result<()> {
    let mut reader = BufReader::new(socket);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let query =
        request.split(' ').nth(1).and_then(|path| path.split_once('?')).map_or("", |(_, query)| query);
    let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let port = value("port").and_then(|port| port.parse().ok()).unwrap_or(0);
    let IpAddr::V4(ip) = socket.peer_addr()?.ip() else { return Ok(()) };
    let caller = SocketAddrV4::new(ip, port);

    let mut known = peers.lock().unwrap_or_else(PoisonError::into_inner);
    let others: Vec<u8> = known
        .iter()
        .filter(|peer| **peer != caller)
        .flat_map(|peer| [&peer.ip().octets()[..], &peer.port().to_be_bytes()].concat())
        .collect();
    if value("event") == Some("stopped") {
        known.remove(&caller);
    } else if port != 0 {
        known.insert(caller);
    }
    drop(known);

    let mut body = format!("d8:intervali5e12:min intervali2e5:peers{}:", others.len()).into_bytes();
    body.extend_from_slice(&others);
    body.push(b'e');
    let mut socket = socket;
    write!(
        socket,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    socket.write_all(&body)?;
    Ok(())
}
