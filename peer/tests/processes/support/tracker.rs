//! A tracker as a process of its own.

use std::{
    env,
    ops::{Deref, DerefMut},
    path::PathBuf,
    process::Command,
};

use testkit::process::TrackerProcess;

use super::Peer;

const TOLD: &str = "MINI_TORRENT_TEST_TRACKER";

/// If the environment tells this process to be `tracker-svc`, runs it and never returns.
pub(crate) fn become_one_if_told() {
    if let Ok(told) = env::var(TOLD) {
        let args = std::iter::once("tracker-svc").chain(told.split_whitespace()).map(Into::into);
        // `ExitCode` can only be returned from `main`, so the tracker's own code is used.
        let code = tracker_svc::cli::run_from(args);
        std::process::exit(i32::from(code));
    }
}

/// A running tracker. Killed when dropped.
pub(crate) struct Tracker(TrackerProcess);

impl Tracker {
    /// Starts a tracker on a free port with a new data directory.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Self::start`], with settings as environment variables.
    pub(crate) fn start_with(env: &[(&str, &str)]) -> Self {
        Self(TrackerProcess::start(tracker_svc, env))
    }

    /// The path of the authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.ca_file()
    }

    /// Runs an operator's command on the data directory. Returns its output.
    pub(crate) fn operate(&self, command: &str, input: &str) -> String {
        let args: Vec<&str> = command.split_whitespace().collect();
        let output = self.0.operate(&args, input);
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Creates a user with a peer of their own, logged in.
    pub(crate) fn user(&self, name: &str) -> Peer {
        self.user_with(name, &[])
    }

    /// As [`Self::user`], with settings of the peer as environment variables.
    pub(crate) fn user_with(&self, name: &str, env: &[(&str, &str)]) -> Peer {
        let peer = Peer::new(self, name, env);
        peer.ok_with_password(&["create-user", name]);
        peer.ok_with_password(&["login", name]);
        peer
    }

    /// Creates a group of these peers' users. The first one owns it.
    pub(crate) fn group(&self, group: &str, peers: &[&Peer]) {
        let (owner, others) = peers.split_first().expect("an owner");
        owner.ok(&["create-group", group]);
        for other in others {
            other.ok(&["join-group", group]);
            owner.ok(&["accept-request", group, &other.user]);
        }
    }
}

impl Deref for Tracker {
    type Target = TrackerProcess;

    fn deref(&self) -> &TrackerProcess {
        &self.0
    }
}

impl DerefMut for Tracker {
    fn deref_mut(&mut self) -> &mut TrackerProcess {
        &mut self.0
    }
}

/// Returns a command that runs this binary as `tracker-svc`.
fn tracker_svc(args: &[&str]) -> Command {
    let mut program = Command::new(env::current_exe().expect("this test's binary"));
    program.args(["tracker_process", "--exact", "--nocapture"]).env(TOLD, args.join(" "));
    program
}
