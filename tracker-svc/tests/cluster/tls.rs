//! TLS to PostgreSQL and to Redis: only servers with a certificate of the right CA are used.

use std::path::Path;

use testkit::{authority::Authority, redis::Redis, wait::eventually};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// Starts a tracker that must not get along with its database, and returns what it says.
async fn refused_by(url: &str, key: &Path) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = program(&["serve", "--listen", "127.0.0.1:0", "--database", url]);
    command.env("TRACKER_CLUSTER_KEY", key).env("TRACKER_DATA_DIR", dir.path());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{url}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server that speaks PostgreSQL's protocol, and has no TLS.
async fn without_tls() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 8];
            if socket.read_exact(&mut request).await.is_ok() {
                let _ = socket.write_all(b"N").await;
            }
        }
    });
    port
}

#[tokio::test]
async fn a_store_is_used_over_tls_with_a_certificate_of_the_right_ca_alone() {
    let (authority, other) = (Authority::new(), Authority::new());
    let identity = authority.named("127.0.0.1");
    let (postgres, redis) = (Postgres::start_with_tls(&identity), Redis::start_with_tls(&identity));
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    };
    let key = file("key", &rand::random::<[u8; 32]>());
    let [right, wrong] =
        [("right", &authority), ("wrong", &other)].map(|(name, ca)| file(name, ca.pem.as_bytes()));
    let url = |host: &str, port: u16, settings: &str| {
        format!("postgres://tracker@{host}:{port}/postgres?sslmode={settings}")
    };
    let by = |ca: &Path| format!("verify-full&sslrootcert={}", ca.display());

    for (url, says) in [
        (url("127.0.0.1", postgres.port(), &by(&wrong)), "&sslrootcert=FILE"),
        (url("localhost", postgres.port(), &by(&right)), "as it is in the server's certificate"),
        (url("127.0.0.1", postgres.port(), "disable"), "add sslmode=verify-full"),
        (url("127.0.0.1", without_tls().await, &by(&right)), "turn TLS on at the server"),
    ] {
        let said = refused_by(&url, &key).await;
        assert!(said.contains(says), "{url}: {said}");
    }

    let database = url("127.0.0.1", postgres.port(), &by(&right));
    let tracker = |swarm: &str, ca: &Path| {
        let (key, ca) = (key.to_str().expect("a path"), ca.to_str().expect("a path"));
        let settings = [
            ("TRACKER_DATABASE", &*database),
            ("TRACKER_CLUSTER_KEY", key),
            ("TRACKER_SWARM", swarm),
            ("SSL_CERT_FILE", ca),
        ];
        TrackerProcess::start(program, &settings)
    };
    let address = redis.tls_address();
    let (safe, plain) = (format!("rediss://{address}"), format!("redis://{address}"));
    for (swarm, ca, says) in [
        (&safe, &right, "the swarm store answers"),
        (&safe, &wrong, "SSL_CERT_FILE=FILE"),
        (&plain, &right, "write rediss://"),
    ] {
        let tracker = tracker(swarm, ca);
        eventually(says, async || tracker.log().contains(says)).await;
        user(&tracker, &format!("user{}", tracker.pid())).await;
    }
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                     WHERE application_name = 'tracker-svc'";
    let last = tracker(&safe, &right);
    user(&last, "ann").await;
    assert_eq!(postgres.sql(encrypted), "t");
}
