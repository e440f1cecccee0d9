//! Several trackers, as processes, on one PostgreSQL server: what they share, what races decide, and what
//! happens when the database or one of them goes away.

#![allow(missing_docs)]
#![allow(clippy::print_stdout, reason = "a test of outages prints how long they lasted")]

mod migration;
mod outages;
mod races;
mod rotation;
mod sharing;
mod tls;

use std::{process::Command, time::Duration};

use proto::pb;
use testkit::{
    authority::csr,
    client::{Client, PASSWORD, endpoint},
    postgres::Postgres,
    process::{TrackerProcess, binary},
    wait::PATIENCE,
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming};

/// How long an error may take while the database is away.
const ERROR: Duration = Duration::from_secs(5);

fn program(args: &[&str]) -> Command {
    binary(env!("CARGO_BIN_EXE_tracker-svc"), args)
}

/// A database server, and the key of the trackers that share it.
struct Cluster {
    postgres: Postgres,
    key: tempfile::NamedTempFile,
}

impl Cluster {
    fn new() -> Self {
        let key = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(key.path(), rand::random::<[u8; 32]>()).expect("written");
        Self { postgres: Postgres::start(), key }
    }

    /// Starts one more tracker.
    fn tracker(&self) -> TrackerProcess {
        self.tracker_with(&[])
    }

    /// Starts one more tracker, with these settings as environment variables.
    fn tracker_with(&self, env: &[(&str, &str)]) -> TrackerProcess {
        self.start(&self.postgres.url(), env)
    }

    /// Starts one more tracker, which reaches the database at this address.
    fn tracker_at(&self, url: &str) -> TrackerProcess {
        self.start(url, &[])
    }

    fn start(&self, url: &str, env: &[(&str, &str)]) -> TrackerProcess {
        let key = self.key.path().to_str().expect("a path");
        let shared = [("TRACKER_DATABASE", url), ("TRACKER_CLUSTER_KEY", key)];
        TrackerProcess::start(program, &[&shared[..], env].concat())
    }
}

/// Somebody without a session, on a connection of its own.
fn anonymous(tracker: &TrackerProcess) -> Client {
    let ca = std::fs::read_to_string(tracker.ca_file()).expect("the CA's certificate");
    Client::anonymous(endpoint(tracker.address(), &ca, None).connect_lazy())
}

/// Makes an account and logs it in.
async fn user(tracker: &TrackerProcess, name: &str) -> Client {
    let anonymous = anonymous(tracker);
    anonymous.create_user(name, PASSWORD).await.expect("an account");
    anonymous.logged_in(name).await
}

/// The same session at another tracker.
fn at(tracker: &TrackerProcess, user: &Client) -> Client {
    Client { name: user.name.clone(), ..anonymous(tracker).with_token(user.token.as_deref()) }
}

/// Makes a peer of this user, and returns its id.
async fn peer(user: &Client) -> String {
    let issued = user.auth().issue_peer_cert(pb::IssuePeerCertRequest { csr_der: csr().into() }).await;
    issued.expect("a certificate").into_inner().peer_id
}

/// Opens an announce stream of this peer.
async fn announces(user: &Client, peer: &str) -> Streaming<pb::AnnounceResponse> {
    let hello = pb::AnnounceHello { peer_id: peer.into(), port: 7000, ..Default::default() };
    let first = pb::AnnounceRequest { hello: Some(hello), ..Default::default() };
    let messages = tokio_stream::iter([first]).chain(tokio_stream::pending());
    let mut answers = user.swarm().announce(messages).await.expect("a stream").into_inner();
    answers.message().await.expect("a message").expect("not the end");
    answers
}

/// Waits for the end of a stream.
async fn ended(mut answers: Streaming<pb::AnnounceResponse>) -> Result<(), Status> {
    let end = async {
        while answers.message().await?.is_some() {}
        Ok(())
    };
    timeout(PATIENCE, end).await.expect("it ends")
}
