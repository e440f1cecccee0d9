//! Sockets that another user of the same machine created at the place of this user's daemon's socket.

use std::{
    fs,
    io::Read as _,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use rustix::process::{Uid, geteuid};

use crate::support::{PASSWORD, Peer};

const NOBODY: u32 = 65_534;

/// Returns the directory of the socket of a home with a long path, when there is no runtime directory.
fn shared_place(home: &Path) -> PathBuf {
    let hash = blake3::hash(home.as_os_str().as_encoded_bytes()).to_hex();
    Path::new("/tmp").join(format!("minitorrent-peer-{}-{}", geteuid().as_raw(), &hash[..16]))
}

/// Returns a peer whose socket is in the shared directory for temporary files, and the socket's directory.
fn with_long_home() -> (Peer, PathBuf) {
    let name = "long-".repeat(20);
    let mut peer = Peer::alone("ann", &[]);
    let home = peer.path(&name);
    // An empty value counts as none.
    for (name, value) in [("PEER_HOME", home.as_path()), ("XDG_RUNTIME_DIR", Path::new(""))] {
        peer.set(name, &value.display().to_string());
    }
    peer.set("PEER_TRACKER", "https://127.0.0.1:1");
    (peer, shared_place(&home))
}

/// Removes what was planted, also when the test fails.
struct Planted(PathBuf);

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0).or_else(|_| fs::remove_file(&self.0));
    }
}

#[test]
fn a_socket_planted_by_another_user_hears_no_password() {
    if !geteuid().is_root() {
        skip();
        return;
    }
    let (peer, place) = with_long_home();
    let _planted = Planted(place.clone());
    let plant = || {
        let nobody = Uid::from_raw(NOBODY);
        // This changes only this thread's user: to the kernel, each thread has its own.
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
        fs::create_dir(&place).expect("everybody may make it");
        let listener = UnixListener::bind(place.join("daemon.sock")).expect("bound");
        for (path, mode) in [(place.clone(), 0o755), (place.join("daemon.sock"), 0o666)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its own");
        }
        listener
    };
    let listener = std::thread::scope(|scope| scope.spawn(plant).join().expect("planted"));
    // Root passes all permission checks, so only the check of the owner can refuse the socket.
    let heard = std::thread::spawn(move || {
        let mut heard = Vec::new();
        while let Ok((mut socket, _)) = listener.accept() {
            let mut said = Vec::new();
            // The settings frame of HTTP/2. A client that gets it continues with its call.
            let _ = std::io::Write::write_all(&mut socket, b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0");
            let limit = std::time::Duration::from_secs(1);
            socket.set_read_timeout(Some(limit)).expect("a socket");
            let _ = socket.read_to_end(&mut said);
            if said == b"over" {
                break;
            }
            heard.extend(said);
        }
        heard
    });
    for args in [&["login", "ann"][..], &["create-user", "ann"]] {
        let done = peer.with_password(args, PASSWORD);
        assert_eq!(done.code, 5, "{done:?}");
        let place = place.display().to_string();
        for words in [place.as_str(), "belongs to user id 65534", "XDG_RUNTIME_DIR"] {
            assert!(done.stderr.contains(words), "{words}: {done:?}");
        }
    }
    // A daemon does not use it either.
    let daemon = peer.run(&["daemon"]);
    assert!(daemon.code != 0 && daemon.stderr.contains("belongs to user id 65534"), "{daemon:?}");
    let mut end = std::os::unix::net::UnixStream::connect(place.join("daemon.sock")).expect("it listens");
    std::io::Write::write_all(&mut end, b"over").expect("written");
    end.shutdown(std::net::Shutdown::Write).expect("shut down");
    let heard = heard.join().expect("it ends");
    assert!(heard.is_empty(), "{}", String::from_utf8_lossy(&heard));
}

#[test]
fn a_link_in_the_place_of_the_sockets_directory_is_refused() {
    let (peer, place) = with_long_home();
    let target = peer.path("elsewhere");
    fs::create_dir(&target).expect("made");
    symlink(&target, &place).expect("linked");
    let _planted = Planted(place);
    let done = peer.with_password(&["login", "ann"], PASSWORD);
    assert_eq!(done.code, 5, "{done:?}");
    assert!(done.stderr.contains("is not a directory"), "{done:?}");
    assert_eq!(fs::read_dir(&target).expect("listed").count(), 0);
}

#[test]
fn another_users_home_is_refused() {
    if !geteuid().is_root() {
        skip();
        return;
    }
    let peer = Peer::alone("ann", &[]);
    let home = peer.path("home");
    fs::create_dir(&home).expect("made");
    std::os::unix::fs::chown(&home, Some(NOBODY), None).expect("root may");
    let done = peer.with_password(&["login", "ann"], PASSWORD);
    assert_eq!(done.code, 5, "{done:?}");
    assert!(done.stderr.contains("belongs to user id 65534"), "{done:?}");
    assert_eq!(fs::read_dir(&home).expect("listed").count(), 0, "nothing is put there");
    assert_eq!(fs::metadata(&home).expect("there").uid(), NOBODY);
}

#[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
fn skip() {
    println!("SKIPPED: only root can act as another user");
}
