//! Redis servers of the machine's package: one on a Unix socket in a directory of its own, or a cluster.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::{authority::Identity, wait::wait_for};

/// The file that a server writes when it is told to, and reads when it starts.
const DUMP: &str = "dump.rdb";

/// A running server without persistence. It is killed when dropped.
pub struct Redis {
    dir: tempfile::TempDir,
    child: Child,
    /// The port on loopback, for TLS. `None`: only the socket is there.
    tls_port: Option<u16>,
}

impl Redis {
    /// Starts a server. Panics on a machine without `redis-server`.
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), None)
    }

    /// As [`Self::start`]. The server has this certificate, and accepts TLS at a free port on loopback.
    pub fn start_with_tls(identity: &Identity) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("server.crt"), &identity.chain).unwrap();
        std::fs::write(dir.path().join("server.key"), &identity.key).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self::start_in(dir, Some(free.port()))
    }

    fn start_in(dir: tempfile::TempDir, tls_port: Option<u16>) -> Self {
        let child = Self::spawn(&dir, tls_port);
        let child = child.expect("redis-server is installed: apt-get install redis-server");
        let server = Self { dir, child, tls_port };
        server.wait();
        server
    }

    fn spawn(dir: &tempfile::TempDir, tls_port: Option<u16>) -> std::io::Result<Child> {
        let socket = socket(dir).display().to_string();
        let mut command = Command::new("redis-server");
        if let Some(port) = tls_port {
            command.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"]);
            command.args(["--tls-cert-file", "server.crt", "--tls-key-file", "server.key"]);
            command.args(["--tls-ca-cert-file", "server.crt"]);
        }
        command
            .args(["--port", "0", "--unixsocket", &socket, "--save", "", "--appendonly", "no"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
    }

    fn wait(&self) {
        wait_for("redis answers", || (self.try_call(&["PING"]) == "PONG").then_some(()));
    }

    /// The path of its socket, for a relay.
    pub fn socket(&self) -> String {
        socket(&self.dir).display().to_string()
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket())
    }

    /// The address of its port for TLS.
    pub fn tls_address(&self) -> String {
        format!("127.0.0.1:{}", self.tls_port.expect("a server with TLS"))
    }

    /// Sends a command, and returns the answer.
    pub fn call(&self, args: &[&str]) -> String {
        let answer = self.try_call(args);
        assert!(!answer.starts_with("ERR") && !answer.contains("Could not connect"), "{args:?}: {answer}");
        answer
    }

    fn try_call(&self, args: &[&str]) -> String {
        let output = Command::new("redis-cli").arg("-s").arg(socket(&self.dir)).args(args).output();
        let output = output.expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Suspends it: it answers nothing, and its connections stay open.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Kills it at once. What it held is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Keeps what it holds now, for [`Self::start_stale`].
    pub fn keep(&self) {
        assert_eq!(self.call(&["SAVE"]), "OK");
        std::fs::rename(self.dir.path().join(DUMP), self.kept()).unwrap();
    }

    /// Starts it again with what was kept, as a replica that takes over and lags behind.
    pub fn start_stale(&mut self) {
        std::fs::rename(self.kept(), self.dir.path().join(DUMP)).unwrap();
        self.start_again();
        std::fs::remove_file(self.dir.path().join(DUMP)).unwrap();
    }

    fn kept(&self) -> PathBuf {
        self.dir.path().join("kept.rdb")
    }

    /// Starts it again, empty, at the same address.
    pub fn start_again(&mut self) {
        self.child = Self::spawn(&self.dir, self.tls_port).expect("it starts again");
        self.wait();
    }
}

/// A Redis Cluster of three servers without replicas, on loopback ports. It is killed when dropped.
pub struct RedisCluster {
    servers: Vec<Node>,
}

struct Node {
    dir: tempfile::TempDir,
    port: u16,
    bus: u16,
    child: Child,
}

impl RedisCluster {
    /// Starts the servers, and waits until they are a cluster.
    pub fn start() -> Self {
        let cluster = Self { servers: (0..3).map(|_| Node::start()).collect() };
        let [first, others @ ..] = &cluster.servers[..] else { unreachable!("there are three") };
        for (number, node) in cluster.servers.iter().enumerate() {
            let (begin, end) = (number * 16_384 / 3, (number + 1) * 16_384 / 3 - 1);
            node.call(&["CLUSTER", "ADDSLOTSRANGE", &begin.to_string(), &end.to_string()]);
        }
        for node in others {
            first.call(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &node.bus.to_string()]);
        }
        cluster.wait();
        cluster
    }

    /// Waits until each server has all slots.
    fn wait(&self) {
        wait_for("the cluster is whole", || {
            let is_whole = |node: &Node| node.call(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
            self.servers.iter().all(is_whole).then_some(())
        });
    }

    /// Its address.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.servers.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis-cluster://{}", addresses.join(","))
    }

    /// Kills one of the three servers at once, with what it held.
    pub fn kill_one(&mut self) {
        let node = self.servers.last_mut().unwrap();
        node.child.kill().unwrap();
        node.child.wait().unwrap();
    }

    /// Starts the killed server again. It knows its slots, and is empty.
    pub fn start_one(&mut self) {
        let node = self.servers.last_mut().unwrap();
        node.child = Node::spawn(&node.dir, node.port, node.bus);
        self.wait();
    }
}

impl Node {
    fn start() -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, bus) = {
            let both = (free(), free());
            (both.0.local_addr().unwrap().port(), both.1.local_addr().unwrap().port())
        };
        let dir = tempfile::tempdir().unwrap();
        let child = Self::spawn(&dir, port, bus);
        let node = Self { dir, port, bus, child };
        wait_for("redis answers", || (node.call(&["PING"]) == "PONG").then_some(()));
        node
    }

    fn spawn(dir: &tempfile::TempDir, port: u16, bus: u16) -> Child {
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()]);
        command.args(["--cluster-node-timeout", "1000"]);
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().expect("redis-server is installed: apt-get install redis-server")
    }

    fn call(&self, args: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(args).output();
        String::from_utf8_lossy(&output.expect("redis-cli runs").stdout).trim().to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("redis.sock")
}
