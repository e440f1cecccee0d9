//! A TCP relay whose connections a test can break, hold up or delay: between a peer and its tracker, between peers, or
//! between a tracker and its stores.

use std::{net::SocketAddr, time::Duration};

use rand::RngExt as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    runtime::Runtime,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// The state of the relay.
#[derive(Clone, Copy, Default)]
struct State {
    /// How often the relay was cut. A cut closes the connections that were made before it.
    cuts: u64,
    /// Nothing gets through from the caller, and neither side is notified.
    holds_calls: bool,
    /// The same for what comes back.
    holds_answers: bool,
    /// New connections are closed at once.
    is_down: bool,
    /// Everything arrives this much later, and up to twice as much again.
    delay: Duration,
}

/// Forwards connections to one address. Closed when dropped.
pub struct Relay {
    address: SocketAddr,
    state: watch::Sender<State>,
    connections: watch::Receiver<u64>,
    runtime: Option<Runtime>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A test that is a task can't wait for it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Relay {
    /// Creates a relay to that address, or to the Unix socket with that path, at a port of its own.
    pub fn to(target: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        // A test that is a task can't wait for another runtime.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        listener.set_nonblocking(true).expect("set");
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).expect("a listener")
        };
        let address = listener.local_addr().expect("an address");
        let (state, target) = (watch::Sender::new(State::default()), target.to_owned());
        let (seen, (count, connections)) = (state.subscribe(), watch::channel(0));
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                if !seen.borrow().is_down {
                    tokio::spawn(pass_on(near, target.clone(), seen.clone()));
                }
            }
        });
        Self { address, state, connections, runtime: Some(runtime) }
    }

    /// The relay's address, as `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The relay's address, as the URL of a tracker.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The number of connections so far.
    pub fn connections(&self) -> u64 {
        *self.connections.borrow()
    }

    /// Closes all connections. New ones get through.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Closes all connections and refuses new ones.
    pub fn take_down(&self) {
        self.state.send_modify(|state| {
            state.is_down = true;
            state.cuts += 1;
        });
    }

    /// Stops all traffic, like a network partition.
    pub fn hold(&self) {
        self.state.send_modify(|state| (state.holds_calls, state.holds_answers) = (true, true));
    }

    /// Stops what comes back, like a partition in one direction.
    pub fn hold_answers(&self) {
        self.state.send_modify(|state| state.holds_answers = true);
    }

    /// Delays everything by one to three times this.
    pub fn delay(&self, by: Duration) {
        self.state.send_modify(|state| state.delay = by);
    }

    /// Lets everything through again, including what was held up.
    pub fn mend(&self) {
        self.state.send_modify(|state| {
            (state.holds_calls, state.holds_answers, state.is_down) = (false, false, false);
        });
    }
}

/// Forwards one connection until it ends or is cut. An error counts as an end.
async fn pass_on(near: TcpStream, target: String, mut state: watch::Receiver<State>) {
    let cuts = state.borrow().cuts;
    let (seen, back) = (state.clone(), state.clone());
    let passing = async {
        let (far_in, far_out) = connect(&target).await?;
        let (near_in, near_out) = near.into_split();
        tokio::try_join!(
            copy(near_in, far_out, seen, |state| state.holds_calls),
            copy(far_in, near_out, back, |state| state.holds_answers)
        )
    };
    tokio::select! {
        _ = passing => {}
        _ = state.wait_for(|state| state.cuts != cuts) => {}
    }
}

type Halves = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

async fn connect(target: &str) -> std::io::Result<Halves> {
    if target.starts_with('/') {
        let (read, write) = UnixStream::connect(target).await?.into_split();
        return Ok((Box::new(read), Box::new(write)));
    }
    let (read, write) = TcpStream::connect(target).await?.into_split();
    Ok((Box::new(read), Box::new(write)))
}

/// Forwards one direction. At most 1 MiB is on its way.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    is_held: fn(&State) -> bool,
) -> std::io::Result<()> {
    let (entrance, mut exit) = mpsc::channel(64);
    let delays = state.clone();
    let take = async {
        loop {
            let mut buffer = vec![0; 16 << 10];
            let read = from.read(&mut buffer).await?;
            buffer.truncate(read);
            let delay = delays.borrow().delay;
            let arrives = Instant::now() + delay + delay.mul_f64(rand::rng().random_range(0.0..=2.0));
            // Empty for the end. Only the other half of this function receives.
            let _ = entrance.send((arrives, buffer)).await;
            if read == 0 {
                return Ok(());
            }
        }
    };
    let give = async {
        while let Some((arrives, bytes)) = exit.recv().await {
            // The delay is what this relay is for.
            sleep_until(arrives).await;
            // The sender lives as long as the runtime that this task runs on.
            let _ = state.wait_for(|state| !is_held(state)).await;
            if bytes.is_empty() {
                break;
            }
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(take, give).map(drop)
}
