//! Access control: every method that the running server lists, called by every kind of caller, compared with
//! one picture.
//!
//! The picture is written by hand, not derived from the code's own table. [`the_picture_detects_every_weakened_rule`] takes
//! the code's table, weakens one line at a time, and fails if the picture would not detect that.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost::Message as _;
use proto::{
    pb,
    reason::{self, Reason},
};
use testkit::authority::csr;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tracker_core::{
    Refusal,
    access::{self, Applicant, GroupKey, Place, Requirement, Rule, Standing},
    session::{AccountId, Machine, Session},
    token::{Allow, TokenScope},
};

use super::{
    client::{Client, PASSWORD},
    files,
    process::Tracker,
    swarm,
};

/// Kinds of caller, in the order of the picture's columns: people, then the tokens of some of them. `elsewhere` is a
/// token of the owner that may manage another group alone.
const ACTORS: [&str; 16] = [
    "nobody",
    "disabled",
    "user",
    "applicant",
    "removed",
    "reader",
    "member",
    "manager",
    "owner",
    "user+manage",
    "member+read",
    "member+share",
    "owner+read",
    "owner+share",
    "owner+manage",
    "owner+elsewhere",
];
/// The number of people among them.
const PEOPLE: usize = 9;

/// `+` admitted, `a` UNAUTHENTICATED, `d` PERMISSION_DENIED, `e` ALREADY_EXISTS, `p` admitted, and another user published
/// the file.
#[rustfmt::skip]
const PICTURE: &[(&str, &str)] = &[
    // nobody disabled user applicant removed reader member manager owner | tokens: user+manage member+read member+share
    // owner+read owner+share owner+manage owner+elsewhere
    ("grpc.health.v1.Health/Check",                         "+ + + + + + + + + + + + + + + +"),
    ("grpc.health.v1.Health/Watch",                         "+ + + + + + + + + + + + + + + +"),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo",      "+ + + + + + + + + + + + + + + +"),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "+ + + + + + + + + + + + + + + +"),
    ("minitorrent.v1.AuthService/CreateUser",               "+ + + + + + + + + + + + + + + +"),
    ("minitorrent.v1.AuthService/Login",                    "+ + + + + + + + + + + + + + + +"),
    ("minitorrent.v1.AuthService/GetTrackerKeys",           "+ + + + + + + + + + + + + + + +"),
    ("minitorrent.v1.AuthService/WhoAmI",                   "a a + + + + + + + + + + + + + +"),
    ("minitorrent.v1.AuthService/CreateToken",              "a a + + + + + + + d d d d d d d"),
    ("minitorrent.v1.AuthService/ListTokens",               "a a + + + + + + + d d d d d d d"),
    ("minitorrent.v1.AuthService/RevokeToken",              "a a + + + + + + + d d d d d d d"),
    ("minitorrent.v1.AuthService/IssuePeerCert",            "a a + + + + + + + + + + + + + +"),
    ("minitorrent.v1.GroupService/CreateGroup",             "a a + + + + + + + d d d d d d d"),
    ("minitorrent.v1.GroupService/ListGroups",              "a a + + + + + + + + + + + + + +"),
    ("minitorrent.v1.GroupService/JoinGroup",               "a a + e + e e e e d d d d d d d"),
    ("minitorrent.v1.GroupService/LeaveGroup",              "a a d + d + + + + d d d d d d d"),
    ("minitorrent.v1.GroupService/ListMembers",             "a a d d d + + + + d + + + + + d"),
    ("minitorrent.v1.GroupService/ListJoinRequests",        "a a d d d d d + + d d d d d + d"),
    ("minitorrent.v1.GroupService/AcceptJoinRequest",       "a a d d d d d + + d d d d d + d"),
    ("minitorrent.v1.GroupService/RejectJoinRequest",       "a a d d d d d + + d d d d d + d"),
    ("minitorrent.v1.GroupService/RemoveMember",            "a a d d d d d + + d d d d d + d"),
    ("minitorrent.v1.GroupService/TransferOwnership",       "a a d d d d d d + d d d d d d d"),
    ("minitorrent.v1.GroupService/SetRole",                 "a a d d d d d d + d d d d d d d"),
    ("minitorrent.v1.GroupService/DeleteGroup",             "a a d d d d d d + d d d d d d d"),
    ("minitorrent.v1.GroupService/CreateInvite",            "a a d d d d d + + d d d d d + d"),
    ("minitorrent.v1.GroupService/ListInvites",             "a a d d d d d + + d d d d d + d"),
    ("minitorrent.v1.GroupService/RevokeInvite",            "a a d d d d d + + d d d d d + d"),
    ("minitorrent.v1.GroupService/JoinByInvite",            "a a + + + + + + + d d d d d d d"),
    ("minitorrent.v1.FileService/PublishFile",              "a a d d d d + + + d d + d + + d"),
    ("minitorrent.v1.FileService/ListFiles",                "a a d d d + + + + d + + + + + d"),
    ("minitorrent.v1.FileService/GetManifest",              "a a d d d + + + + d + + + + + d"),
    // The member's own file; `only_publisher_and_owner_unpublish` has the others.
    ("minitorrent.v1.FileService/UnpublishFile",            "a a d d d d + p + d d + d p + d"),
    ("minitorrent.v1.SwarmService/IssueTickets",            "a a d d d + + + + d + + + + + d"),
    ("minitorrent.v1.SwarmService/Announce",                "a a d d d + + + + d + + + + + d"),
    ("minitorrent.v1.SwarmService/FindPeers",               "a a d d d + + + + d + + + + + d"),
    // These end sessions, so they come last.
    ("minitorrent.v1.AuthService/ChangePassword",           "a a + + + + + + + d d d d d d d"),
    ("minitorrent.v1.AuthService/Logout",                   "a a + + + + + + + d d d d d d d"),
    ("minitorrent.v1.AuthService/LogoutAll",                "a a + + + + + + + d d d d d d d"),
];

/// The methods that the running server lists, as `package.Service/Method`.
pub(crate) async fn methods(client: &Client) -> BTreeSet<String> {
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let mut reflection = ServerReflectionClient::new(client.channel.clone());
    let list = tokio_stream::once(ask(MessageRequest::ListServices(String::new())));
    let mut answers = reflection.server_reflection_info(list).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = answer else { panic!("{answer:?}") };

    let names: Vec<String> = services.service.into_iter().map(|service| service.name).collect();
    let symbols = names.clone().into_iter().map(move |name| ask(MessageRequest::FileContainingSymbol(name)));
    let answers = reflection.server_reflection_info(tokio_stream::iter(symbols)).await.unwrap().into_inner();
    let answers: Vec<_> = answers.collect().await;
    let mut methods = BTreeSet::new();
    for answer in answers {
        let answer = answer.unwrap().message_response;
        let Some(MessageResponse::FileDescriptorResponse(files)) = answer else { panic!("{answer:?}") };
        for file in files.file_descriptor_proto {
            let file = prost_types::FileDescriptorProto::decode(&file[..]).unwrap();
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                if names.contains(&name) {
                    methods.extend(service.method.iter().map(|method| format!("{name}/{}", method.name())));
                }
            }
        }
    }
    methods
}

/// One of each kind of caller.
struct Cast {
    tracker: Tracker,
    /// By the column of the picture.
    actors: Vec<Client>,
    peers: Vec<String>,
    csr: Vec<u8>,
    /// Number of groups and accounts made so far.
    made: u32,
    /// The newest group.
    group: String,
}

/// The state of a group before a method's row.
struct Scene {
    group: String,
    file: Vec<u8>,
    /// The id and the secret of an invitation.
    invite: (String, String),
}

impl Cast {
    async fn gather() -> Self {
        let tracker = Tracker::start().await;
        let mut actors = Vec::new();
        for name in &ACTORS[..PEOPLE] {
            actors.push(Client::user(&tracker, name).await);
        }
        actors[0].token = None;
        actors[8].create_group("elsewhere").await.unwrap();
        for name in &ACTORS[PEOPLE..] {
            let (user, level) = name.split_once('+').unwrap();
            let of = &actors[ACTORS.iter().position(|actor| *actor == user).unwrap()];
            let group_ids = if level == "elsewhere" { vec![level.to_owned()] } else { vec![] };
            let allow = match level {
                "read" => pb::TokenAllow::Read,
                "share" => pb::TokenAllow::Share,
                _ => pb::TokenAllow::Manage,
            };
            let request =
                pb::CreateTokenRequest { name: level.into(), group_ids, allow: allow.into(), lifetime: None };
            let token = of.auth().create_token(request).await.unwrap().into_inner().token;
            tracker.keep_secret(&token);
            actors.push(of.with_token(Some(&token)));
        }
        let mut peers = Vec::new();
        for actor in &actors {
            peers.push(swarm::certify(actor).await.unwrap_or_else(|_| "a".repeat(52)));
        }
        tracker.operate(&["user", "disable", "disabled"]);
        Self { tracker, actors, peers, csr: csr(), made: 0, group: "none".into() }
    }

    fn owner(&self) -> &Client {
        &self.actors[8]
    }

    /// Makes a new group with all callers in their places, and a file.
    async fn set(&mut self) -> Scene {
        // Open requests count for the applicant's quota, so the old group is deleted. A row may already have
        // ended it, or given it away.
        let owner = self.owner();
        while let Err(status) = owner.delete_group(&self.group).await
            && let Some(wait) = reason::retry_after(&status)
        {
            tokio::time::sleep(wait).await;
        }
        self.made += 1;
        let group = format!("g{}", self.made);
        self.group.clone_from(&group);
        let [_, _, _, applicant, removed, reader, member, manager, owner] = &self.actors[..PEOPLE] else {
            unreachable!()
        };
        patiently(async || owner.create_group(&group).await).await;
        for guest in [removed, reader, member, manager] {
            patiently(async || guest.join_group(&group).await).await;
            patiently(async || owner.accept(&group, &guest.name).await).await;
        }
        for (user, role) in [(reader, pb::Standing::Reader), (manager, pb::Standing::Manager)] {
            let (group_id, username) = (group.clone(), user.name.clone());
            let request = pb::SetRoleRequest { group_id, username, role: role.into() };
            patiently(async || owner.groups().set_role(request.clone()).await).await;
        }
        patiently(async || applicant.join_group(&group).await).await;
        patiently(async || owner.remove(&group, &removed.name).await).await;
        let file = patiently(async || files::publish(member, &group, "file", b"bytes").await).await;
        let request = pb::CreateInviteRequest { group_id: group.clone(), uses: 9, ..Default::default() };
        let made = patiently(async || owner.groups().create_invite(request.clone()).await).await.into_inner();
        let invite = (made.invite.unwrap().invite_id, made.secret);
        Scene { group, file, invite }
    }

    /// Replaces the sessions that a row ended.
    async fn log_in_again(&mut self) {
        for (actor, name) in self.actors.iter_mut().zip(ACTORS).take(PEOPLE).skip(2) {
            *actor = actor.log_in(&self.tracker, name).await;
        }
    }

    /// A request that succeeds for every caller with the right to make it.
    fn request(&mut self, method: &str, scene: &Scene, actor: usize) -> Vec<Vec<u8>> {
        self.made += 1;
        let group_id = scene.group.clone();
        let username = |name: &str| name.to_owned();
        let name = "file".to_owned();
        let file = pb::FileRef { group_id: group_id.clone(), file_id: scene.file.clone().into() };
        let peer_id = self.peers[actor].clone();
        let one = match method.rsplit_once('/').unwrap().1 {
            "CreateUser" => {
                let username = format!("new{}", self.made);
                pb::CreateUserRequest { username, password: PASSWORD.into(), invite: None }.encode_to_vec()
            }
            "Login" => {
                pb::LoginRequest { username: "owner".into(), password: PASSWORD.into() }.encode_to_vec()
            }
            "ChangePassword" => {
                pb::ChangePasswordRequest { old_password: PASSWORD.into(), new_password: PASSWORD.into() }
                    .encode_to_vec()
            }
            "CreateToken" => pb::CreateTokenRequest { name: format!("t{}", self.made), ..Default::default() }
                .encode_to_vec(),
            "RevokeToken" => pb::RevokeTokenRequest { name: "gone".into() }.encode_to_vec(),
            "IssuePeerCert" => pb::IssuePeerCertRequest { csr_der: self.csr.clone().into() }.encode_to_vec(),
            "CreateGroup" => pb::CreateGroupRequest { group_id: format!("new{}", self.made) }.encode_to_vec(),
            "AcceptJoinRequest" => {
                pb::AcceptJoinRequestRequest { group_id, username: username("applicant") }.encode_to_vec()
            }
            "RejectJoinRequest" => {
                pb::RejectJoinRequestRequest { group_id, username: username("applicant") }.encode_to_vec()
            }
            "RemoveMember" => {
                pb::RemoveMemberRequest { group_id, username: username("member") }.encode_to_vec()
            }
            "SetRole" => {
                let role = pb::Standing::Manager.into();
                pb::SetRoleRequest { group_id, username: username("member"), role }.encode_to_vec()
            }
            "TransferOwnership" => {
                pb::TransferOwnershipRequest { group_id, username: username("member") }.encode_to_vec()
            }
            // The first field of all these requests is the group's name, and no other field is required.
            "JoinGroup" | "LeaveGroup" | "ListMembers" | "ListJoinRequests" | "DeleteGroup" | "ListFiles"
            | "CreateInvite" | "ListInvites" => pb::JoinGroupRequest { group_id }.encode_to_vec(),
            "RevokeInvite" => {
                pb::RevokeInviteRequest { group_id, invite_id: scene.invite.0.clone() }.encode_to_vec()
            }
            "JoinByInvite" => {
                let invite = Some(pb::InviteKey { group_id, secret: scene.invite.1.clone() });
                pb::JoinByInviteRequest { invite }.encode_to_vec()
            }
            "GetManifest" | "UnpublishFile" | "FindPeers" => {
                pb::GetManifestRequest { group_id, name }.encode_to_vec()
            }
            "PublishFile" => {
                let header = files::empty(&format!("new{}", self.made));
                files::start(&group_id, header).encode_to_vec()
            }
            "IssueTickets" => pb::IssueTicketsRequest { peer_id, files: vec![file] }.encode_to_vec(),
            "Announce" => {
                let mut message = swarm::hello(&peer_id, 7000, "");
                message.files = vec![swarm::complete(file)];
                message.encode_to_vec()
            }
            "ServerReflectionInfo" => ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            }
            .encode_to_vec(),
            "Check" | "Watch" | "GetTrackerKeys" | "WhoAmI" | "Logout" | "LogoutAll" | "ListGroups"
            | "ListTokens" => Vec::new(),
            _ => panic!("{method} is new: say here how it is called, and in the picture who may"),
        };
        vec![one]
    }

    /// The actual result for one cell of the picture.
    async fn cell(&mut self, method: &str, scene: &Scene, actor: usize) -> char {
        if method.ends_with("/UnpublishFile") {
            let member = &self.actors[6];
            patiently(async || files::publish(member, &scene.group, "file", b"bytes").await).await;
        }
        if method.ends_with("/RevokeToken") && (2..PEOPLE).contains(&actor) {
            let request = pb::CreateTokenRequest { name: "gone".into(), ..Default::default() };
            let client = &self.actors[actor];
            patiently(async || client.auth().create_token(request.clone()).await).await;
        }
        let request = self.request(method, scene, actor);
        let client = self.actors[actor].clone();
        let status = loop {
            let status = self.outcome(&client, method, request.clone()).await;
            match reason::retry_after(&status) {
                // The sweep makes calls faster than a user may.
                Some(wait) if status.code() == Code::ResourceExhausted => tokio::time::sleep(wait).await,
                _ => break status,
            }
        };
        match status.code() {
            Code::Ok => '+',
            Code::Unauthenticated => 'a',
            Code::PermissionDenied
                if method.ends_with("/UnpublishFile") && Reason::of(&status) == Some(Reason::NotTheOwner) =>
            {
                'p'
            }
            Code::PermissionDenied => 'd',
            Code::AlreadyExists => 'e',
            _ => panic!("{method} by {}: {status:?}", ACTORS[actor]),
        }
    }

    async fn outcome(&self, client: &Client, method: &str, request: Vec<Vec<u8>>) -> Status {
        if method.ends_with("/Announce") {
            return swarm::announce_outcome(client, &request[0]).await;
        }
        if method.ends_with("/IssueTickets") && client.token.is_some() {
            let request = pb::IssueTicketsRequest::decode(&request[0][..]).unwrap();
            // A batch may be granted in part. Each file has its own result.
            return match client.swarm().issue_tickets(request).await.map(tonic::Response::into_inner) {
                Ok(answer) if answer.tickets.is_empty() => {
                    assert!(answer.refusals.iter().all(|refusal| refusal.reason == "NOT_A_MEMBER"));
                    Status::permission_denied("refused")
                }
                Ok(_) => Status::ok(""),
                Err(status) => status,
            };
        }
        client.raw(&format!("/{method}"), request).await
    }
}

#[tokio::test]
async fn every_method_admits_the_right_callers_only() {
    let mut cast = Cast::gather().await;
    let served = methods(cast.owner()).await;
    let drawn: BTreeSet<_> = PICTURE.iter().map(|(method, _)| (*method).to_owned()).collect();
    let undrawn: Vec<_> = served.difference(&drawn).collect();
    assert!(undrawn.is_empty(), "served, but the picture does not say to whom: {undrawn:?}");
    let missing: Vec<_> = drawn.difference(&served).filter(|method| !method.starts_with("grpc.")).collect();
    assert!(missing.is_empty(), "in the picture, but not served: {missing:?}");

    let mut wrong = Vec::new();
    for (method, expected) in PICTURE {
        let ends_sessions = method.ends_with("/ChangePassword") || method.contains("/Logout");
        let mut scene = cast.set().await;
        let mut seen = String::new();
        for (actor, name) in ACTORS.iter().enumerate() {
            if actor == PEOPLE || *name == "owner" {
                // What a manager or the owner did can't be done again.
                if ends_sessions {
                    cast.log_in_again().await;
                }
                scene = cast.set().await;
            }
            let cell = cast.cell(method, &scene, actor).await;
            seen.extend((actor > 0).then_some(' ').into_iter().chain([cell]));
        }
        if seen != *expected {
            wrong.push(format!("{method}\n  expected {expected}\n  seen     {seen}"));
        }
        if ends_sessions {
            cast.log_in_again().await;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cast.tracker.finish().await;
}

/// Repeats a call that a limit refuses: the sweep makes calls faster than a user may.
async fn patiently<T>(mut call: impl AsyncFnMut() -> Result<T, Status>) -> T {
    loop {
        match call().await {
            Ok(done) => return done,
            Err(status) => match reason::retry_after(&status) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => panic!("{status:?}"),
            },
        }
    }
}

/// The expected cell for a method with this rule, by the rules alone.
fn by_the_rules(rule: Rule, actor: usize) -> char {
    let (user, token) =
        ACTORS[actor].split_once('+').map_or((ACTORS[actor], None), |(user, token)| (user, Some(token)));
    let standing = match user {
        "applicant" => Standing::Requested,
        "reader" => Standing::Reader,
        "manager" => Standing::Manager,
        "member" => Standing::Member,
        "owner" => Standing::Owner,
        _ => Standing::None,
    };
    if rule.requirement == Requirement::Anyone {
        return '+';
    }
    if user == "nobody" {
        return 'a';
    }
    let now = SystemTime::UNIX_EPOCH;
    let machine = token.map(|level| Machine {
        scope: Arc::new(TokenScope {
            name: level.parse().unwrap(),
            allow: Allow::from_text(level).unwrap_or(Allow::Manage),
            groups: (level == "elsewhere").then(|| [level.parse().unwrap()].into()),
        }),
        expires: now + Duration::from_secs(1),
    });
    let session = Session {
        hash: [1; 32].into(),
        user: user.parse().unwrap(),
        account: AccountId(1),
        disabled: user == "disabled",
        opened: now,
        used: now,
        machine,
    };
    let caller = match access::authenticate(rule, session, now) {
        Ok(caller) => caller,
        Err(Refusal::OutOfScope) => return 'd',
        Err(_) => return 'a',
    };
    if rule.requirement == Requirement::Session {
        return '+';
    }
    let place = Place { group: GroupKey(1), epoch: 1, standing };
    match access::admit::<Applicant>(&caller, &"g1".parse().unwrap(), Some(place)) {
        Ok(_) => '+',
        Err(_) => 'd',
    }
}

fn row_by_the_rules(rule: Rule) -> Vec<char> {
    (0..ACTORS.len()).map(|actor| by_the_rules(rule, actor)).collect()
}

/// A requirement that is one step weaker.
fn weakened(requirement: Requirement) -> Option<Requirement> {
    match requirement {
        Requirement::Anyone => None,
        Requirement::Session => Some(Requirement::Anyone),
        Requirement::Applicant => Some(Requirement::Session),
        Requirement::Reader => Some(Requirement::Applicant),
        Requirement::Member => Some(Requirement::Reader),
        Requirement::Manager => Some(Requirement::Member),
        Requirement::Owner => Some(Requirement::Manager),
    }
}

/// The same for the tokens that may call.
fn opened(machines: Option<Allow>) -> Option<Allow> {
    match machines {
        None => Some(Allow::Manage),
        Some(Allow::Manage) => Some(Allow::Share),
        Some(Allow::Share) => Some(Allow::Read),
        Some(Allow::Read) => None,
    }
}

/// All rules that ask for less.
fn weaker(rule: Rule) -> Vec<Rule> {
    let requirements =
        std::iter::successors(weakened(rule.requirement), |&requirement| weakened(requirement));
    let mut weaker: Vec<_> = requirements.map(|requirement| Rule { requirement, ..rule }).collect();
    // A token that may not manage counts as a member's at most, whatever the table says.
    let enough = rule.requirement >= Requirement::Manager && rule.machines.is_some();
    if rule.requirement != Requirement::Anyone && !enough {
        let machines = std::iter::successors(opened(rule.machines), |&machines| opened(Some(machines)));
        weaker.extend(machines.map(|machines| Rule { machines: Some(machines), ..rule }));
    }
    weaker
}

#[test]
fn the_picture_detects_every_weakened_rule() {
    for (method, picture) in PICTURE {
        // A refusal for another reason than access counts as admitted.
        let drawn: Vec<char> =
            picture.replace(['e', 'p'], "+").split(' ').map(|cell| cell.parse().unwrap()).collect();
        let rule = access::rule(&format!("/{method}")).expect("in the code's table");
        assert_eq!(drawn, row_by_the_rules(rule), "{method}: the code's table says otherwise");
        for weaker in weaker(rule) {
            assert_ne!(
                drawn,
                row_by_the_rules(weaker),
                "{method} could ask for {weaker:?} and nobody would see"
            );
        }
    }
    assert_eq!(access::TABLE.len(), PICTURE.len(), "the code's table has lines that the picture lacks");
}
