//! Calls every method of every service with the real grpcurl, which knows only the descriptions that
//! reflection returns. It calls a tracker with TLS, a tracker without TLS, and a peer.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use testbed::{
    Host, Hosts as _, cmd, peer, peer_json,
    processes::Processes,
    programs::{self, Server},
};

use testbed::scenario::{self, GROUP, scene};

const FILE: &str = "grpcurl.bin";
/// The group that grpcurl creates and deletes.
const OWN: &str = "grpcurl";
/// The password of both accounts that grpcurl creates.
pub(crate) const PASSWORD: &str = "a-long-one-for-grpcurl";

/// Whether grpcurl and openssl are installed.
pub(crate) fn available() -> Result<bool> {
    Ok(cmd::installed("grpcurl", &["-version"])? && cmd::installed("openssl", &["version"])?)
}

/// Runs the check with the binaries in `bin`.
pub(crate) fn run(bin: &Path) -> Result<()> {
    scene("grpcurl calls every method of a tracker, with TLS");
    let hosts = Processes::on_loopback(bin, scenario::USERS.len())?;
    scenario::accounts(&hosts)?;
    peer(&hosts, 1, &["create-group", GROUP])?;
    let file = cmd::root().join("target/demo").join(FILE);
    programs::make_file(&file, 2 * scenario::PIECE + 1, 9)?;
    testbed::put(&hosts, Host::Peer(1), &file, FILE)?;
    peer(&hosts, 1, &["upload", FILE, GROUP])?;
    let ca = hosts.ca().to_string_lossy().into_owned();
    let address = hosts.tracker_url().trim_start_matches("https://").to_owned();
    let flags = ["-cacert", &ca];
    let mut grpcurl = Grpcurl::at(&address, &flags);
    let request = signing_request(hosts.dir())?;
    let token = grpcurl.login(scenario::USERS[0].name, scenario::USERS[0].password)?;
    let manifest =
        grpcurl.call(&token, "FileService/GetManifest", &json!({"group_id": GROUP, "name": FILE}))?;
    grpcurl.every_method(&request, &manifest)?;

    scene("The same of a tracker without TLS");
    let plain = plaintext_tracker(bin, &hosts.dir().join("plain"))?;
    let address = plain.address().trim_start_matches("http://");
    Grpcurl::at(address, &["-plaintext"]).every_method(&request, &manifest)?;

    scene("And of a peer");
    call_peer(&hosts, &ca)
}

/// Starts a tracker without TLS.
fn plaintext_tracker(bin: &Path, data: &Path) -> Result<Server> {
    let mut command = Command::new(bin.join("tracker-svc"));
    command.args(["serve", "--plaintext", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
    Server::start(command.stderr(Stdio::null()))
}

/// A request for a peer's certificate, in DER and Base64.
fn signing_request(dir: &Path) -> Result<String> {
    let script = "openssl ecparam -name prime256v1 -genkey -noout -out grpcurl.key &&
        openssl req -new -key grpcurl.key -subj /CN=x -outform DER | base64 -w 0";
    let mut command = cmd::command("sh", &["-c", script]);
    command.current_dir(dir);
    cmd::capture(command)
}

/// Creates a grpcurl command from flags and from the words after the address.
type MakeCommand<'a> = Box<dyn Fn(&[&str], &[&str]) -> Command + 'a>;

/// grpcurl with the address of one server.
pub(crate) struct Grpcurl<'a> {
    grpcurl: MakeCommand<'a>,
    called: BTreeSet<String>,
}

impl<'a> Grpcurl<'a> {
    pub(crate) fn new(grpcurl: impl Fn(&[&str], &[&str]) -> Command + 'a) -> Self {
        Self { grpcurl: Box::new(grpcurl), called: BTreeSet::new() }
    }

    fn at(address: &'a str, always: &'a [&'a str]) -> Self {
        Self::new(move |flags, words| {
            cmd::command("grpcurl", &[always, &["-max-time", "10"], flags, &[address], words].concat())
        })
    }

    /// Calls a method of one of our services. Returns the answer in JSON.
    fn call(&mut self, token: &str, method: &str, body: &Value) -> Result<String> {
        self.stream(token, method, std::slice::from_ref(body))
    }

    /// Calls a method with several messages. Returns the answers in JSON.
    fn stream(&mut self, token: &str, method: &str, bodies: &[Value]) -> Result<String> {
        println!("  grpcurl {method}");
        let method = format!("minitorrent.v1.{method}");
        let header = format!("authorization: Bearer {token}");
        let body: Vec<String> = bodies.iter().map(Value::to_string).collect();
        let answer = cmd::capture((self.grpcurl)(&["-H", &header, "-d", &body.concat()], &[&method]))?;
        self.called.insert(method.replace('/', "."));
        Ok(answer)
    }

    /// Calls a method whose stream of answers has no end, and stops after two seconds. Fails unless the
    /// answer contains `wanted`.
    fn watch(&mut self, method: &str, body: &Value, wanted: &str) -> Result<()> {
        println!("  grpcurl {method}");
        let output =
            cmd::output((self.grpcurl)(&["-max-time", "2", "-d", &body.to_string()], &[method]), b"")?;
        let answer = String::from_utf8_lossy(&output.stdout);
        if !answer.contains(wanted) {
            bail!("{method} should tell {wanted:?}: {answer}{}", String::from_utf8_lossy(&output.stderr));
        }
        self.called.insert(method.replace('/', "."));
        Ok(())
    }

    fn login(&mut self, username: &str, password: &str) -> Result<String> {
        let answer =
            self.call("", "AuthService/Login", &json!({"username": username, "password": password}))?;
        let answer: Value = serde_json::from_str(&answer)?;
        Ok(answer["sessionToken"].as_str().context("no sessionToken")?.to_owned())
    }

    fn every_method(&mut self, request: &str, manifest: &str) -> Result<()> {
        let (dave, erin) = self.accounts()?;
        self.call("", "AuthService/GetTrackerKeys", &json!({}))?;
        let certificate = self.call(&dave, "AuthService/IssuePeerCert", &json!({"csr_der": request}))?;
        let certificate: Value = serde_json::from_str(&certificate)?;
        self.groups(&dave, &erin)?;
        self.files(&dave, &certificate["peerId"], manifest)?;
        self.call(&dave, "GroupService/DeleteGroup", &json!({"group_id": OWN}))?;
        let new = json!({"old_password": PASSWORD, "new_password": "another-long-one-for-grpcurl"});
        self.call(&dave, "AuthService/ChangePassword", &new)?;
        self.call(&dave, "AuthService/LogoutAll", &json!({}))?;
        self.call(&erin, "AuthService/Logout", &json!({}))?;
        if self.call(&erin, "AuthService/WhoAmI", &json!({})).is_ok() {
            bail!("the token should be void after Logout");
        }
        self.health()?;
        self.none_is_left()
    }

    /// Creates two accounts and returns their session tokens.
    pub(crate) fn accounts(&mut self) -> Result<(String, String)> {
        for username in ["dave", "erin"] {
            self.call("", "AuthService/CreateUser", &json!({"username": username, "password": PASSWORD}))?;
        }
        let (dave, erin) = (self.login("dave", PASSWORD)?, self.login("erin", PASSWORD)?);
        self.call(&dave, "AuthService/WhoAmI", &json!({}))?;
        let ci = json!({"name": "ci", "allow": "TOKEN_ALLOW_SHARE", "lifetime": "3600s"});
        let made: Value = serde_json::from_str(&self.call(&dave, "AuthService/CreateToken", &ci)?)?;
        let token = made["token"].as_str().context("a token")?;
        let whose = self.call(token, "AuthService/WhoAmI", &json!({}))?;
        if !whose.contains("\"ci\"")
            || !self.call(&dave, "AuthService/ListTokens", &json!({}))?.contains("\"ci\"")
        {
            bail!("the token should be ci of dave: {whose}");
        }
        self.call(&dave, "AuthService/RevokeToken", &json!({"name": "ci"}))?;
        Ok((dave, erin))
    }

    /// Creates a group as dave. erin joins and leaves it in every possible way.
    pub(crate) fn groups(&mut self, dave: &str, erin: &str) -> Result<()> {
        let (group, erins) = (json!({"group_id": OWN}), json!({"group_id": OWN, "username": "erin"}));
        let daves = json!({"group_id": OWN, "username": "dave"});
        for (token, method, body) in [
            (dave, "CreateGroup", &group),
            (erin, "JoinGroup", &group),
            (dave, "ListJoinRequests", &group),
            (dave, "RejectJoinRequest", &erins),
            (erin, "JoinGroup", &group),
            (dave, "AcceptJoinRequest", &erins),
            (dave, "SetRole", &json!({"group_id": OWN, "username": "erin", "role": "STANDING_MANAGER"})),
            (dave, "TransferOwnership", &erins),
            (erin, "TransferOwnership", &daves),
            (dave, "RemoveMember", &erins),
            (erin, "JoinGroup", &group),
            (dave, "AcceptJoinRequest", &erins),
            (erin, "LeaveGroup", &group),
            (erin, "ListGroups", &json!({})),
        ] {
            self.call(token, &format!("GroupService/{method}"), body)?;
        }
        let invite =
            self.call(dave, "GroupService/CreateInvite", &json!({"group_id": OWN, "lifetime": "3600s"}))?;
        let invite: Value = serde_json::from_str(&invite)?;
        let key = json!({"invite": {"group_id": OWN, "secret": invite["secret"]}});
        self.call(erin, "GroupService/JoinByInvite", &key)?;
        self.call(dave, "GroupService/ListInvites", &group)?;
        let id = json!({"group_id": OWN, "invite_id": invite["invite"]["inviteId"]});
        self.call(dave, "GroupService/RevokeInvite", &id)?;
        self.call(erin, "GroupService/LeaveGroup", &group)?;
        let members = self.call(dave, "GroupService/ListMembers", &group)?;
        if !members.contains("dave") || members.contains("erin") {
            bail!("dave alone should be a member: {members}");
        }
        Ok(())
    }

    /// Publishes a file by its manifest and announces it.
    fn files(&mut self, dave: &str, peer: &Value, manifest: &str) -> Result<()> {
        let frames = serde_json::Deserializer::from_str(manifest).into_iter::<Value>();
        let mut frames = frames.collect::<Result<Vec<_>, _>>().context("a manifest in JSON")?;
        let start = frames.first_mut().and_then(|frame| frame["start"].as_object_mut());
        let start = start.context("a manifest begins with `start`")?;
        start.remove("fileId");
        start.insert("groupId".to_owned(), json!(OWN));
        let published: Value =
            serde_json::from_str(&self.stream(dave, "FileService/PublishFile", &frames)?)?;
        let (named, file) = (
            json!({"group_id": OWN, "name": FILE}),
            json!({"group_id": OWN, "file_id": published["fileId"]}),
        );
        self.call(dave, "FileService/ListFiles", &json!({"group_id": OWN}))?;
        self.call(dave, "FileService/GetManifest", &named)?;
        self.call(dave, "SwarmService/IssueTickets", &json!({"peer_id": peer, "files": [file]}))?;
        let announce = json!({
            "hello": {"peer_id": peer, "port": 7800},
            "files": [{"file": file, "complete": true}],
        });
        self.call(dave, "SwarmService/Announce", &announce)?;
        self.call(dave, "SwarmService/FindPeers", &named)?;
        self.call(dave, "FileService/UnpublishFile", &named).map(drop)
    }

    fn health(&mut self) -> Result<()> {
        for method in ["Check", "Watch"] {
            self.watch(&format!("grpc.health.v1.Health/{method}"), &json!({}), "\"SERVING\"")?;
        }
        Ok(())
    }

    /// Checks that every method that the server lists was called.
    fn none_is_left(&self) -> Result<()> {
        let list = |words: &[&str]| cmd::capture((self.grpcurl)(&[], &[&["list"], words].concat()));
        let services = list(&[])?;
        let mut all = BTreeSet::new();
        for service in services.lines().filter(|service| !service.contains("ServerReflection")) {
            all.extend(list(&[service])?.lines().map(str::to_owned));
        }
        let left: Vec<&String> = all.difference(&self.called).collect();
        if all.is_empty() || !left.is_empty() {
            bail!("{} methods, and not called: {left:?}", all.len());
        }
        println!("  all {} methods were called", all.len());
        Ok(())
    }
}

fn call_peer(hosts: &Processes, ca: &str) -> Result<()> {
    peer(hosts, 1, &["export-cert", "certificate"])?;
    let ticket = peer_json(hosts, 1, &["ticket", GROUP, FILE])?;
    let source = &ticket["sources"][0];
    let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("in {ticket}"));
    let folder = hosts.files(Host::Peer(1)).join("certificate");
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let (name, address) = (text(&source["tls_name"])?, text(&source["addresses"][0])?);
    // The health service needs no certificate. All other methods do.
    let anybody = ["-cacert", ca, "-authority", &name];
    Grpcurl::at(&address, &anybody).health()?;
    let member = [&anybody[..], &["-cert", &certificate, "-key", &key]].concat();
    let mut grpcurl = Grpcurl::at(&address, &member);
    grpcurl.health()?;
    let mut body = json!({"ticket": ticket["ticket"], "file_id": ticket["file_id"]});
    grpcurl.watch("minitorrent.v1.PeerService/WatchAvailability", &body, "bitfield")?;
    body["pieces"] = json!([0, 1, 2]);
    let answer = grpcurl.call("", "PeerService/GetChunk", &body)?;
    if !answer.contains("\"pieceIndex\": \"2\"") {
        bail!("the last piece should be there");
    }
    grpcurl.none_is_left()
}
