//! Access to a peer: every method that a running daemon lists is called by every kind of caller, and the
//! results are compared with one table.

use std::{collections::BTreeSet, time::Duration};

use data_encoding::BASE64;
use prost::Message as _;
use proto::{
    pb::{GetChunkRequest, WatchAvailabilityRequest, peer_service_client::PeerServiceClient},
    reason::Reason,
};
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::{
    v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    },
    v1alpha,
};
use transport::{ChannelTuning, ClientSecurity, Remote, client_config, connect};

use crate::support::{MIB, Peer, Tracker, wait_for};

/// The kinds of callers, in the order of the table's columns. All except the first show their own
/// certificate.
const ACTORS: [&str; 6] = ["nobody", "stranger", "thief", "member", "removed", "disabled"];

/// `+` means served, `a` UNAUTHENTICATED, `d` PERMISSION_DENIED. A caller that is not a member has no ticket
/// of its own: the stranger shows none, and the thief shows a member's. The removed and the disabled user
/// show their tickets from before.
#[rustfmt::skip]
const PICTURE: &[(&str, &str)] = &[
    //                                                    nobody stranger thief member removed disabled
    ("grpc.health.v1.Health/Check",                                   "+ + + + + +"),
    ("grpc.health.v1.Health/Watch",                                   "+ + + + + +"),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo",      "+ + + + + +"),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "+ + + + + +"),
    ("minitorrent.v1.PeerService/GetChunk",                           "a a d + a a"),
    ("minitorrent.v1.PeerService/WatchAvailability",                  "a a d + a a"),
];

const GET_CHUNK: &str = "minitorrent.v1.PeerService/GetChunk";

/// A caller connected to the peer, and the ticket that it shows.
struct Caller {
    channel: Channel,
    ticket: String,
    file: Vec<u8>,
}

/// The peer that is called.
pub(crate) struct Called {
    pub(crate) address: String,
    pub(crate) tls_name: String,
    pub(crate) ca: String,
}

impl Called {
    pub(crate) async fn by(&self, own: Option<(&str, &str)>) -> Channel {
        let config = client_config(&self.ca, own).expect("good PEM");
        let (host, port) = self.address.rsplit_once(':').expect("an address");
        let remote = Remote::Tcp { host: host.into(), port: port.parse().expect("a port") };
        let security = ClientSecurity::Tls { config, server_name: self.tls_name.clone() };
        connect(remote, security, &ChannelTuning::control()).await.expect("a connection")
    }
}

/// Returns the start of a stream: its first message, or its error.
pub(crate) async fn first<T>(stream: Result<tonic::Response<Streaming<T>>, Status>) -> Result<(), Status> {
    let mut stream = stream?.into_inner();
    stream.message().await.map(|first| assert!(first.is_some(), "it ends with nothing"))
}

impl Caller {
    async fn calls(&self, method: &str) -> Result<(), Status> {
        let channel = self.channel.clone();
        let (ticket, file_id) = (self.ticket.clone(), self.file.clone().into());
        match method {
            "grpc.health.v1.Health/Check" => {
                HealthClient::new(channel).check(HealthCheckRequest::default()).await.map(drop)
            }
            "grpc.health.v1.Health/Watch" => {
                first(HealthClient::new(channel).watch(HealthCheckRequest::default()).await).await
            }
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo" => {
                let list = tokio_stream::once(ask(MessageRequest::ListServices(String::new())));
                first(ServerReflectionClient::new(channel).server_reflection_info(list).await).await
            }
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
                use v1alpha::{
                    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                    server_reflection_request::MessageRequest,
                };
                let message_request = Some(MessageRequest::ListServices(String::new()));
                let list =
                    tokio_stream::once(ServerReflectionRequest { message_request, ..Default::default() });
                first(ServerReflectionClient::new(channel).server_reflection_info(list).await).await
            }
            GET_CHUNK => {
                let request = GetChunkRequest { ticket, file_id, pieces: vec![0], ..Default::default() };
                let client = PeerServiceClient::new(channel).max_decoding_message_size(2 * MIB);
                first(client.clone().get_chunk(request).await).await
            }
            "minitorrent.v1.PeerService/WatchAvailability" => {
                let request = WatchAvailabilityRequest { ticket, file_id };
                first(PeerServiceClient::new(channel).watch_availability(request).await).await
            }
            _ => panic!("{method} is new: say here how it is called, and in the picture who may"),
        }
    }

    async fn cell(&self, method: &str) -> char {
        match self.calls(method).await.map_err(|status| (status.code(), Reason::of(&status))) {
            Ok(()) => '+',
            Err((Code::Unauthenticated, Some(_))) => 'a',
            Err((Code::PermissionDenied, Some(_))) => 'd',
            Err(other) => panic!("{method}: {other:?}"),
        }
    }
}

fn ask(message: MessageRequest) -> ServerReflectionRequest {
    ServerReflectionRequest { host: String::new(), message_request: Some(message) }
}

/// Returns the methods that the peer lists, as `package.Service/Method`.
async fn methods(channel: Channel) -> BTreeSet<String> {
    let mut reflection = ServerReflectionClient::new(channel);
    let mut answers = async |message| {
        let answers = reflection.server_reflection_info(tokio_stream::once(ask(message))).await;
        let answer = answers.expect("an answer").into_inner().message().await.expect("a message");
        answer.expect("one").message_response.expect("not empty")
    };
    let MessageResponse::ListServicesResponse(list) =
        answers(MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list");
    };
    let names: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
    let mut methods = BTreeSet::new();
    for name in &names {
        let MessageResponse::FileDescriptorResponse(files) =
            answers(MessageRequest::FileContainingSymbol(name.clone())).await
        else {
            panic!("{name} is listed and not described");
        };
        for file in files.file_descriptor_proto {
            let file = prost_types::FileDescriptorProto::decode(&file[..]).expect("a descriptor");
            let of = |service: &prost_types::ServiceDescriptorProto| {
                format!("{}.{}", file.package(), service.name())
            };
            for service in file.service.iter().filter(|service| of(service) == *name) {
                methods.extend(service.method.iter().map(|method| format!("{name}/{}", method.name())));
            }
        }
    }
    methods
}

/// Returns the certificate and key of a peer's user.
pub(crate) fn certificate(peer: &Peer) -> (String, String) {
    let directory = peer.path("certificate").display().to_string();
    peer.ok(&["export-cert", &directory]);
    let read = |name: &str| std::fs::read_to_string(peer.path("certificate").join(name)).expect("exported");
    (read("cert.pem"), read("key.pem"))
}

#[test]
fn every_method_serves_the_right_callers_only() {
    let tracker = Tracker::start();
    let owner = tracker.user("owner");
    let [stranger, member, removed, disabled] =
        ["stranger", "member", "removed", "disabled"].map(|name| tracker.user(name));
    tracker.group("g1", &[&owner, &member, &removed, &disabled]);
    owner.shares("g1", "data", MIB, 21);
    let ticket = |peer: &Peer| peer.json("ticket g1 data");
    let shown = ticket(&member);
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let file = BASE64.decode(text(&shown["file_id"]).as_bytes()).expect("base64");
    let status = owner.json("status");
    let called = Called {
        address: text(&status["listen"]),
        tls_name: text(&status["tls_name"]),
        ca: std::fs::read_to_string(tracker.ca()).expect("the CA"),
    };
    let tickets = [&member, &removed, &disabled].map(|peer| text(&ticket(peer)["ticket"]));
    let certificates = [&stranger, &member, &removed, &disabled].map(certificate);
    let [of_member, of_removed, of_disabled] = &tickets;
    let shows: [(Option<usize>, &str); 6] = [
        (None, of_member),
        (Some(0), ""),
        (Some(0), of_member),
        (Some(1), of_member),
        (Some(2), of_removed),
        (Some(3), of_disabled),
    ];
    owner.ok(&["remove-member", "g1", "removed"]);
    tracker.operate("user disable disabled", "");
    // The tickets from before are void. A ticket that is at most half a second old counts as new.
    let renewed = wait_for("a ticket of the new epoch", || {
        let ticket = text(&ticket(&member)["ticket"]);
        (ticket != *of_member).then_some(ticket)
    });

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut callers = Vec::new();
        for (certificate, ticket) in shows {
            let own = certificate.map(|at| (certificates[at].0.as_str(), certificates[at].1.as_str()));
            let ticket = if ticket == of_member { renewed.clone() } else { ticket.to_owned() };
            callers.push(Caller { channel: called.by(own).await, ticket, file: file.clone() });
        }
        // The daemon learns of the operator's command within seconds.
        let cut_off = async {
            while callers[4].cell(GET_CHUNK).await != 'a' || callers[5].cell(GET_CHUNK).await != 'a' {
                // The pause between two checks. The deadline is outside.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(15), cut_off).await.expect("tickets of before are void");
        let served = methods(callers[0].channel.clone()).await;
        let drawn: BTreeSet<_> = PICTURE.iter().map(|(method, _)| (*method).to_owned()).collect();
        let undrawn: Vec<_> = served.difference(&drawn).collect();
        assert!(undrawn.is_empty(), "served, but the picture does not say to whom: {undrawn:?}");
        let mut wrong = Vec::new();
        for (method, expected) in PICTURE {
            let mut seen = Vec::new();
            for caller in &callers {
                seen.push(caller.cell(method).await.to_string());
            }
            if seen.join(" ") != *expected {
                wrong.push(format!(
                    "{method}, {ACTORS:?}\n  expected {expected}\n  seen     {}",
                    seen.join(" ")
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}
