//! Any bytes into the tracker's server: raw, as frames of HTTP/2, and as messages of every method.
#![no_main]

use std::cell::OnceCell;

use fuzz::{block_on, connection, converse};
use libfuzzer_sys::fuzz_target;
use program::settings::{Layers, Settings, Typed};
use proto::pb::{CreateUserRequest, LoginRequest, auth_service_client::AuthServiceClient};
use tonic::body::Body;
use tracker_core::access;
use tracker_svc::{
    Tracker,
    config::{Config, SETTINGS},
    store::sqlite::Sqlite,
};
use transport::{ConnInfo, Limits, serve_duplex};

/// A tracker that every input finds in the state that the one before left.
struct World {
    tracker: Tracker,
    token: String,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let layers = Layers {
            flags: Typed::from([("listen", "127.0.0.1:0".to_owned())]),
            env: &|_| None,
            file: dir.path().join("config.toml"),
            file_asked: false,
            directory: dir.path().to_owned(),
        };
        let settings = Settings::resolve(SETTINGS, &layers).expect("good settings");
        let config = Config::new(dir.path().to_owned(), &settings).expect("good settings");
        let store = Sqlite::open(dir.path()).await.expect("a store");
        let tracker = Tracker::prepare(std::sync::Arc::new(store), &config).await.expect("a tracker");
        let (username, password) = ("user1".to_owned(), "nine lemons roll uphill".to_owned());
        let service = tower::util::MapRequest::new(tracker.service(), |mut request: http::Request<Body>| {
            request.extensions_mut().insert(caller());
            request
        });
        let mut client = AuthServiceClient::new(service);
        let create =
            CreateUserRequest { username: username.clone(), password: password.clone(), invite: None };
        client.create_user(create).await.expect("an account");
        let session = client.login(LoginRequest { username, password }).await.expect("a session");
        Self { tracker, token: session.into_inner().session_token, _dir: dir }
    }
}

fn caller() -> ConnInfo {
    ConnInfo { remote: Some(([127, 0, 0, 1], 9).into()), peer: None }
}

thread_local! {
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

fuzz_target!(|input: &[u8]| {
    WORLD.with(|world| {
        block_on(async {
            if world.get().is_none() {
                let _ = world.set(World::new().await);
            }
            let world = world.get().expect("just made");
            let paths: Vec<&str> = access::TABLE.iter().map(|(path, ..)| *path).collect();
            let bytes = connection(input, &paths, Some(&world.token));
            let serve = |io| serve_duplex(io, world.tracker.service(), Limits::tracker(), caller());
            converse(&bytes, serve).await;
        });
    });
});
