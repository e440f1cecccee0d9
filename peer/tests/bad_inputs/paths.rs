//! Paths that are not regular files, and files that change while they are read.

use std::{
    fs,
    io::Write as _,
    ops::ControlFlow,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use peer::{
    engine::{EngineConfig, ShareSpec},
    hashing::{HashError, manifest_of},
};
use proto::reason::Reason;
use testkit::{
    content::PIECE,
    world::{SharedFile, World},
};

#[test]
fn special_files_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), 0o600.into()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    symlink("/dev/zero", path("zero")).unwrap();
    symlink(path("loop"), path("loop")).unwrap();
    symlink(path("none"), path("dangling")).unwrap();
    let hash = |path: &Path| {
        let began = Instant::now();
        let outcome = manifest_of(path, "x".parse().unwrap(), &|_| ControlFlow::Continue(()));
        // Opening a FIFO without a writer would block for ever, and so would reading /dev/zero to its end.
        assert!(began.elapsed() < Duration::from_secs(2));
        outcome.map(drop).expect_err("refused")
    };
    for special in ["/dev/zero", "/dev/null", "/proc/self", "/"] {
        let error = hash(special.as_ref());
        assert!(matches!(error, HashError::NotAFile(..)), "{special}: {error}");
        assert_eq!(error.reason(), Reason::PathNotFound);
    }
    for special in ["fifo", "socket", "zero"] {
        assert!(matches!(hash(&path(special)), HashError::NotAFile(..)), "{special}");
    }
    for missing in ["none", "dangling", "none/deeper"] {
        assert!(matches!(hash(&path(missing)), HashError::NotFound(_)), "{missing}");
    }
    assert!(matches!(hash(&path("loop")), HashError::Io(..)));
}

#[test]
fn unreadable_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "x").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    symlink(&secret, dir.path().join("link")).unwrap();
    if fs::read(&secret).is_ok() {
        // Root may read everything, so nothing would be refused.
        return;
    }
    for name in ["secret", "link"] {
        let path = dir.path().join(name);
        let outcome = manifest_of(&path, "x".parse().unwrap(), &|_| ControlFlow::Continue(()));
        assert!(matches!(outcome, Err(HashError::Io(..))), "{name}");
    }
}

#[test]
fn a_file_that_grows_while_it_is_hashed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("growing");
    fs::write(&path, vec![1; 3 * PIECE]).unwrap();
    let file = std::sync::Mutex::new(fs::OpenOptions::new().append(true).open(&path).unwrap());
    let grow = |_| {
        file.lock().unwrap().write_all(b"more").unwrap();
        ControlFlow::Continue(())
    };
    let outcome = manifest_of(&path, "x".parse().unwrap(), &grow);
    assert!(matches!(outcome, Err(HashError::Changing(_))), "{outcome:?}");

    // A file that changes once and then no more is hashed in its final state.
    let once = AtomicBool::new(false);
    let grow_once = |_| {
        if !once.swap(true, Ordering::Relaxed) {
            file.lock().unwrap().write_all(b"more").unwrap();
        }
        ControlFlow::Continue(())
    };
    let hashed = manifest_of(&path, "x".parse().unwrap(), &grow_once).unwrap();
    assert_eq!(hashed.manifest.layout().length(), fs::metadata(&path).unwrap().len());
    assert_eq!(
        hashed.manifest.header().blake3.as_bytes(),
        blake3::hash(&fs::read(&path).unwrap()).as_bytes()
    );
}

#[tokio::test]
async fn content_that_differs_from_the_manifest_is_not_shared() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(2));
    let peer = file.peer(&trust, EngineConfig::default()).await;
    let path = peer.dir.path().join("shared");
    let mut other = file.content.to_vec();
    other[PIECE] ^= 1;
    for content in [&other[..], &file.content[..PIECE], b""] {
        fs::write(&path, content).unwrap();
        let spec = ShareSpec {
            group: file.group.clone(),
            file: file.id,
            manifest: file.manifest.clone(),
            path: path.clone(),
            stamp: None,
            folder: None,
            only: Vec::new(),
        };
        peer.engine.share(spec).await.expect_err("it is not what was published");
        assert!(peer.engine.shares().is_empty());
    }
    peer.end().await;
}
