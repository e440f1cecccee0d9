//! A PostgreSQL server of the machine's packages, with an empty database and a Unix socket in a directory of its
//! own.
//!
//! The server refuses to run as root, so root starts it as `nobody`. It ends with the thread that started it,
//! also when that is killed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{authority::Identity, wait::wait_for};

/// The user that the server runs as when a test runs as root.
const NOBODY: u32 = 65_534;
/// The database's owner, who needs no password on the socket.
const OWNER: &str = "tracker";

/// A running server. It is stopped when dropped.
pub struct Postgres {
    programs: PathBuf,
    dir: tempfile::TempDir,
    server: Option<Child>,
    /// The port on loopback, where only TLS is accepted. `None`: only the socket is there.
    tls_port: Option<u16>,
}

impl Postgres {
    /// Makes a database and starts its server.
    pub fn start() -> Self {
        let mut postgres = Self::make();
        postgres.start_again();
        postgres
    }

    /// As [`Self::start`]. The server has this certificate, and accepts TLS at a free port on loopback.
    pub fn start_with_tls(identity: &Identity) -> Self {
        let mut postgres = Self::make();
        let data = postgres.dir.path().join("data");
        for (name, content) in [
            ("server.crt", identity.chain.as_str()),
            ("server.key", &identity.key),
            ("pg_hba.conf", "local all all trust\nhostssl all all 127.0.0.1/32 trust\n"),
        ] {
            let path = data.join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        postgres.tls_port = Some(free.port());
        postgres.start_again();
        postgres
    }

    fn make() -> Self {
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let postgres = Self { programs: programs(), dir, server: None, tls_port: None };
        let made = postgres
            .command("initdb")
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", OWNER])
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres
    }

    /// Starts the server again, and waits until it answers.
    pub fn start_again(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = self.command("postgres");
        match self.tls_port {
            Some(port) => {
                command.args(["-c", "listen_addresses=127.0.0.1", "-c", "ssl=on", "-p", &port.to_string()])
            }
            None => command.args(["-c", "listen_addresses="]),
        };
        let child = command
            .arg("-k")
            .arg(self.dir.path())
            // A process that is killed loses nothing that was committed; only a power cut could.
            .args(["-c", "fsync=off", "-c", "max_connections=100"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres runs");
        self.server = Some(child);
        wait_for("PostgreSQL answers", || {
            let ready = Command::new(self.programs.join("pg_isready"))
                .args(["-q", "-p", &self.port().to_string(), "-h"])
                .arg(self.dir.path())
                .status();
            ready.is_ok_and(|status| status.success()).then_some(())
        });
    }

    /// The address of the database, for `--database`.
    pub fn url(&self) -> String {
        format!("postgres://{OWNER}@localhost/postgres?host={}", self.dir.path().display())
    }

    /// The port of the server, which is also in the name of its socket.
    pub fn port(&self) -> u16 {
        self.tls_port.unwrap_or(5432)
    }

    /// The path of the server's socket, for a relay.
    pub fn socket(&self) -> String {
        self.dir.path().join(format!(".s.PGSQL.{}", self.port())).display().to_string()
    }

    /// The address of the database by way of a relay at this address.
    pub fn url_by(&self, relay: &str) -> String {
        format!("postgres://{OWNER}@{relay}/postgres")
    }

    /// Runs SQL as the owner, and returns what it prints: a row in each line.
    pub fn sql(&self, sql: &str) -> String {
        let output = Command::new(self.programs.join("psql"))
            .args([
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                OWNER,
                "-d",
                "postgres",
                "-c",
                sql,
                "-p",
                &self.port().to_string(),
                "-h",
            ])
            .arg(self.dir.path())
            .output()
            .expect("psql runs");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Kills the server and all its processes at once, as a crash would.
    pub fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // On QUIT the server ends all its processes without tidying up. Its memory is freed only then.
        signal("QUIT", &[server.id()]);
        server.wait().expect("it ends");
    }

    /// Stops all processes of the server where they are.
    pub fn freeze(&self) {
        // The first one first, so that it starts no others.
        signal("STOP", &[self.pid()]);
        signal("STOP", &children(self.pid()));
    }

    /// Lets all processes go on.
    pub fn thaw(&self) {
        signal("CONT", &children(self.pid()));
        signal("CONT", &[self.pid()]);
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn pid(&self) -> u32 {
        self.server.as_ref().expect("a running server").id()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// A program of PostgreSQL that works on the data directory, as a user who may.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if rustix::process::geteuid().is_root() {
            command.args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string(), "--clear-groups"]);
        }
        command.arg(self.programs.join(program)).arg("-D").arg(self.dir.path().join("data"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            signal("CONT", &children(server.id()));
            signal("CONT", &[server.id()]);
        }
        self.kill();
    }
}

/// Where the newest installed version has its programs.
fn programs() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, programs)| programs.join("initdb").exists())
        .max();
    newest.expect("PostgreSQL is installed under /usr/lib/postgresql: apt-get install postgresql").1
}

fn signal(name: &str, processes: &[u32]) {
    if processes.is_empty() {
        return;
    }
    let processes = processes.iter().map(ToString::to_string);
    // A process that has ended meanwhile is not an error.
    let _ = Command::new("kill").arg(format!("-{name}")).args(processes).stderr(Stdio::null()).status();
}

/// The processes that a process started.
fn children(parent: u32) -> Vec<u32> {
    let of = |path: &Path| {
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        // The name stands in parentheses and may contain anything. State and parent follow.
        let (_, rest) = stat.rsplit_once(')')?;
        let found: u32 = rest.split_whitespace().nth(1)?.parse().ok()?;
        (found == parent).then(|| path.file_name()?.to_str()?.parse().ok()).flatten()
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| of(&entry.path())).collect()
}
