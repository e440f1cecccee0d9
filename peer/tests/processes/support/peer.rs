//! A peer: a home, its daemon, and the verbs that are run on it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::{Tracker, wait_for};

const PASSWORD: &str = "nine lemons roll uphill\n";

/// What a verb did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// The object that `--json` printed.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A peer's home. Its daemon ends when this is dropped.
pub(crate) struct Peer {
    pub(crate) user: String,
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Peer {
    /// A fresh home; no daemon runs yet.
    pub(crate) fn new(tracker: &Tracker, user: &str, env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut all = vec![
            ("PEER_HOME".to_owned(), dir.path().join("home").display().to_string()),
            ("PEER_TRACKER".to_owned(), tracker.url.clone()),
            ("PEER_CA".to_owned(), tracker.ca().display().to_string()),
            ("PEER_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        ];
        all.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Self { user: user.to_owned(), dir, env: all }
    }

    /// A path in this peer's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a verb.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.command(args).output().expect("the peer runs").into()
    }

    /// Runs a verb that must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> Done {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{} {args:?}: {done:?}", self.user);
        done
    }

    /// Runs a verb that must end with that exit code.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> Done {
        let done = self.run(args);
        assert_eq!(done.code, code, "{} {args:?}: {done:?}", self.user);
        done
    }

    /// Runs a verb with a password on standard input.
    pub(crate) fn with_password(&self, args: &[&str], password: &str) -> Done {
        let mut child = self
            .command(args)
            .arg("--password-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the peer runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(password.as_bytes()).expect("the password is read");
        drop(stdin);
        child.wait_with_output().expect("the peer ends").into()
    }

    /// The same with this user's password; must succeed.
    pub(crate) fn ok_with_password(&self, args: &[&str]) -> Done {
        let done = self.with_password(args, PASSWORD);
        assert_eq!(done.code, 0, "{} {args:?}: {done:?}", self.user);
        done
    }

    /// Puts a file of pseudo-random bytes into this peer's directory and shares it.
    pub(crate) fn shares(&self, group: &str, name: &str, bytes: usize, seed: u64) -> PathBuf {
        let path = self.path(name);
        super::make_file(&path, bytes, seed);
        self.ok(&["upload", &path.display().to_string(), group]);
        path
    }

    /// Shares a copy of a file that a group has already.
    pub(crate) fn seeds_copy(&self, group: &str, original: &Path) -> PathBuf {
        let path = self.path(&original.file_name().expect("a name").to_string_lossy());
        fs::copy(original, &path).expect("copied");
        self.ok(&["upload", &path.display().to_string(), group]);
        path
    }

    /// Starts a download into `out/` and returns where the file will be.
    pub(crate) fn starts(&self, group: &str, name: &str) -> PathBuf {
        self.ok(&["download", group, name, "out/", "-d"]);
        self.path("out").join(name)
    }

    /// The download as `show-downloads --json` has it.
    pub(crate) fn download(&self, group: &str, name: &str) -> Option<Value> {
        let shown = self.ok(&["show-downloads", "--json"]).json();
        let downloads = shown["downloads"].as_array().expect("a list").clone();
        downloads.into_iter().find(|download| download["group"] == group && download["name"] == name)
    }

    /// Waits until a download is there; shows it as it then is.
    pub(crate) fn waits_until_complete(&self, group: &str, name: &str) -> Value {
        wait_for("the download completes", || {
            let download = self.download(group, name)?;
            assert_ne!(download["state"], "failed", "{download}");
            (download["state"] == "complete").then_some(download)
        })
    }

    /// Waits until at least so many bytes are verified, and fewer than all.
    pub(crate) fn waits_until_midway(&self, group: &str, name: &str, bytes: u64) -> u64 {
        wait_for("the download is under way", || {
            let download = self.download(group, name)?;
            let (done, size) = (download["done_bytes"].as_u64()?, download["size"].as_u64()?);
            assert!(size == 0 || done < size, "it was over before anything could be done to it: {download}");
            (done >= bytes).then_some(done)
        })
    }

    /// Bytes that this peer sent of a file.
    pub(crate) fn uploaded(&self, group: &str, name: &str) -> u64 {
        let shown = self.ok(&["list-shares", "--json"]).json();
        let shares = shown["shares"].as_array().expect("a list");
        let of = shares.iter().find(|share| share["group"] == group && share["name"] == name);
        of.and_then(|share| share["uploaded_bytes"].as_u64()).unwrap_or(0)
    }

    /// Kills the daemon at once, as a crash would.
    pub(crate) fn kill_daemon(&self) {
        let pid = self.daemon_pid().expect("a daemon runs");
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
        assert!(killed.success());
        wait_for("the daemon is gone", || (!is_alive(pid)).then_some(()));
    }

    fn daemon_pid(&self) -> Option<u64> {
        let done = self.run(&["status", "--json"]);
        if done.code == 10 { None } else { done.json()["pid"].as_u64() }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.command(&["daemon", "stop"]).output();
    }
}

fn is_alive(pid: u64) -> bool {
    // A zombie is gone too: it waits for its parent only.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}
