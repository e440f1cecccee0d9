//! A relay on this machine that simulates a link of a given delay and rate to one seeder, for systems that
//! can't delay packets.
//!
//! TCP ends on both sides of the relay. So the measurement does not cover packet loss and congestion control.
//! It does cover windows, requests in flight and round trips above TCP.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::sync_channel,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

/// Maximum bytes of one read: 1.3 ms at 200 Mbit/s.
const UNIT: usize = 32 << 10;

/// A relay to one seeder.
#[derive(Clone)]
pub(crate) struct Relay {
    address: SocketAddr,
    link: Arc<Link>,
}

struct Link {
    /// One-way delay.
    delay: Duration,
    /// Bytes per second in each direction.
    rate: u64,
    /// The time at which the link has sent all bytes that it took in the downward direction.
    down_until: Mutex<Instant>,
    /// Bytes that were delivered at the leechers' end.
    down: AtomicU64,
}

impl Relay {
    /// Starts a relay to `upstream`, on a loopback port that the kernel picks.
    pub(crate) fn start(delay: Duration, rate: u64, upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let link = Link { delay, rate, down_until: Mutex::new(Instant::now()), down: AtomicU64::new(0) };
        let relay = Self { address: listener.local_addr()?, link: Arc::new(link) };
        let link = Arc::clone(&relay.link);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect(upstream) {
                    let _ = connect(client, server, &link);
                }
            }
        });
        Ok(relay)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that were delivered at the leechers' end so far.
    pub(crate) fn down(&self) -> u64 {
        self.link.down.load(Ordering::Relaxed)
    }
}

fn connect(client: TcpStream, server: TcpStream, link: &Arc<Link>) -> Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    pipe(server.try_clone()?, client.try_clone()?, link, true);
    pipe(client, server, link, false);
    Ok(())
}

/// Forwards one direction with two threads: one reads and stamps, the other waits and writes. At most twice
/// the link's one-way capacity is in flight, as with a router's buffer. The rest stays with the sender. An
/// empty unit marks the end.
fn pipe(mut from: TcpStream, mut to: TcpStream, link: &Arc<Link>, down: bool) {
    let round_trip = 2 * link.delay.as_micros() * u128::from(link.rate) / 1_000_000;
    let room = (usize::try_from(round_trip).unwrap_or(usize::MAX) / UNIT).max(2);
    let (entrance, exit) = sync_channel::<(Instant, Vec<u8>)>(room);
    let shared = Arc::clone(link);
    thread::spawn(move || {
        let mut buffer = vec![0; UNIT];
        loop {
            let count = from.read(&mut buffer).unwrap_or(0);
            let arrives = if down { shared.send(count) } else { Instant::now() + shared.delay };
            if entrance.send((arrives, buffer[..count].to_vec())).is_err() || count == 0 {
                return;
            }
        }
    });
    let link = Arc::clone(link);
    thread::spawn(move || {
        for (arrives, bytes) in exit {
            thread::sleep(arrives.saturating_duration_since(Instant::now()));
            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                break;
            }
            if down {
                link.down.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

impl Link {
    /// Returns the time at which `count` bytes that enter the link now have left it. All connections share
    /// one link.
    fn send(&self, count: usize) -> Instant {
        let takes = Duration::from_secs_f64(count as f64 / self.rate as f64);
        let mut until = self.down_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(Instant::now()) + takes;
        *until + self.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_late_in_order_and_no_faster_than_the_link() {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let relay = Relay::start(Duration::from_millis(20), 1 << 20, server.local_addr().expect("bound"))
            .expect("a port");
        let sent: Vec<u8> = (0..200_000_u32).map(|byte| byte.to_le_bytes()[0]).collect();
        let copy = sent.clone();
        thread::spawn(move || {
            let (mut socket, _) = server.accept().expect("the relay connects");
            let mut hello = [0; 5];
            socket.read_exact(&mut hello).expect("what was asked");
            socket.write_all(&copy).expect("the relay reads");
        });
        let start = Instant::now();
        let mut client = TcpStream::connect(relay.address()).expect("the relay listens");
        client.write_all(b"hello").expect("the relay reads");
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("all comes");
        // 40 ms for the round trip and 190 ms for the bytes.
        assert!(start.elapsed() >= Duration::from_millis(225), "{:?}", start.elapsed());
        assert_eq!(got, sent);
        assert_eq!(relay.down(), 200_000);
    }
}
