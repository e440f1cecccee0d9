//! Access to pieces. It takes a certificate of the tracker, and a ticket for this file that is bound to the
//! certificate's key.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use peer::engine::EngineConfig;
use peer_core::announce::{Held, Holding};
use prost::Message as _;
use proto::{
    domain::PeerId,
    pb::{self, GetChunkRequest, WatchAvailabilityRequest, peer_service_client::PeerServiceClient},
    reason::Reason,
    ticket::{Claims, Signer},
};
use testkit::{
    content::file_id,
    node::Node,
    wait::PATIENCE,
    world::{Credentials, SharedFile, World, unix_now as now},
};
use tonic::{Code, Status, transport::Channel};

use crate::forged::Forged;

/// Opens a call and reads its first message.
async fn get(client: &PeerServiceClient<Channel>, ticket: &str, file: &[u8]) -> Result<(), Status> {
    let request = GetChunkRequest {
        ticket: ticket.into(),
        file_id: file.to_vec().into(),
        pieces: vec![0],
        ..Default::default()
    };
    client.clone().get_chunk(request).await?.into_inner().message().await.map(drop)
}

async fn watch(client: &PeerServiceClient<Channel>, ticket: &str, file: &[u8]) -> Result<(), Status> {
    let request = WatchAvailabilityRequest { ticket: ticket.into(), file_id: file.to_vec().into() };
    client.clone().watch_availability(request).await?.into_inner().message().await.map(drop)
}

/// The certificate of the caller.
#[derive(Clone, Copy, Debug)]
enum Shower {
    /// No certificate.
    Nobody,
    /// The certificate that the ticket is for.
    Own,
    /// Another valid certificate.
    Other,
}

/// `+` means served, `a` UNAUTHENTICATED, `d` PERMISSION_DENIED, `n` NOT_FOUND. The table is written by hand,
/// not derived.
#[rustfmt::skip]
const PICTURE: &[(&str, Shower, &str, char)] = &[
    ("nobody, no ticket",              Shower::Nobody, "none",    'a'),
    ("nobody, good ticket",            Shower::Nobody, "good",    'a'),
    ("certificate, no ticket",         Shower::Own,    "none",    'a'),
    ("certificate, good ticket",       Shower::Own,    "good",    '+'),
    ("another's certificate, ticket",  Shower::Other,  "good",    'd'),
    ("ticket of another tracker",      Shower::Own,    "foreign", 'a'),
    // These are signed with this tracker's own key, which may sign other things in future.
    ("ticket by another issuer",       Shower::Own,    "issuer",  'a'),
    ("ticket for another use",         Shower::Own,    "use",     'a'),
    ("signed for another use",         Shower::Own,    "assert",  'a'),
    ("ticket with one more condition", Shower::Own,    "claim",   'a'),
    ("ticket under an unknown key id", Shower::Own,    "kid",     'a'),
    ("good ticket made by hand",       Shower::Own,    "hand",    '+'),
    ("ticket for another file",        Shower::Own,    "file",    'd'),
    ("ticket of another group",        Shower::Own,    "group",   'n'),
    ("ticket of another content",      Shower::Own,    "root",    'n'),
    ("ticket that ran out",            Shower::Own,    "late",    'a'),
    ("ticket a minute late",           Shower::Own,    "leeway",  '+'),
    ("ticket not yet valid",           Shower::Own,    "early",   'a'),
    ("removed member's ticket",        Shower::Own,    "stale",   'a'),
];

fn ticket(trust: &World, file: &SharedFile, peer: PeerId, kind: &str) -> String {
    let good = Claims { epoch: 5, ..file.claims(trust, peer) };
    let sign = |claims| trust.signer.sign(&claims);
    match kind {
        "none" => String::new(),
        "good" => sign(good),
        "foreign" => Signer::from_seed(&[8; 32]).unwrap().sign(&good),
        "file" => sign(Claims { file: file_id(6), ..good }),
        "group" => sign(Claims { group: "g2".parse().unwrap(), ..good }),
        "root" => sign(Claims { root: [9; 32].into(), ..good }),
        "late" => sign(Claims { expires: now() - 70, ..good }),
        "leeway" => sign(Claims { expires: now() - 40, ..good }),
        "early" => sign(Claims { not_before: now() + 70, ..good }),
        "stale" => sign(Claims { epoch: 4, ..good }),
        "hand" => Forged::from(sign(good)).signed(),
        "issuer" => Forged::from(sign(good)).claim("iss", "somebody").signed(),
        "use" => Forged::from(sign(good)).claim("aud", "another-use").signed(),
        "claim" => Forged::from(sign(good)).claim("if", "asked nicely").signed(),
        "kid" => Forged { footer: r#"{"kid":"0011223344556677"}"#.into(), ..sign(good).into() }.signed(),
        "assert" => Forged { assertion: "minitorrent/another/v1", ..sign(good).into() }.signed(),
        _ => unreachable!("{kind}"),
    }
}

fn letter(outcome: Result<(), Status>, what: &str) -> char {
    match outcome {
        Ok(()) => '+',
        Err(status) => {
            assert!(Reason::of(&status).is_some(), "{what}: no reason: {status:?}");
            match status.code() {
                Code::Unauthenticated => 'a',
                Code::PermissionDenied => 'd',
                Code::NotFound => 'n',
                _ => panic!("{what}: {status:?}"),
            }
        }
    }
}

#[tokio::test]
async fn every_method_asks_for_certificate_and_ticket() {
    let set = prost_types::FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap();
    let services = set.file.iter().flat_map(|file| &file.service);
    let served: BTreeSet<&str> = services
        .filter(|service| service.name() == "PeerService")
        .flat_map(|service| service.method.iter().map(|method| method.name()))
        .collect();
    assert_eq!(served, BTreeSet::from(["GetChunk", "WatchAvailability"]), "a new method: check it here too");

    let (trust, file) = (World::new(), SharedFile::of_pieces(1));
    let peer = file.shared_by(&trust, EngineConfig::default()).await;
    peer.engine.raise_epochs(vec![(file.group.clone(), 5)]);
    let (own, other) = (trust.credentials(), trust.credentials());
    let mut wrong = Vec::new();
    for (what, shower, kind, expected) in PICTURE {
        let shown = match shower {
            Shower::Nobody => None,
            Shower::Own => Some(&own),
            Shower::Other => Some(&other),
        };
        let client = peer.client(shown).await.unwrap();
        let ticket = ticket(&trust, &file, own.peer, kind);
        let seen = [
            letter(get(&client, &ticket, file.id.as_bytes()).await, what),
            letter(watch(&client, &ticket, file.id.as_bytes()).await, what),
        ];
        if seen != [*expected; 2] {
            wrong.push(format!("{what}: expected {expected}, seen {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    peer.end().await;
}

#[tokio::test]
async fn invalid_tickets_admit_nobody() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(1));
    let peer = file.shared_by(&trust, EngineConfig::default()).await;
    let own = trust.credentials();
    let client = peer.client(Some(&own)).await.unwrap();
    let good = file.ticket(&trust, own.peer);
    let body = good.strip_prefix("v4.public.").unwrap();
    for bad in [
        String::new(),
        "x".into(),
        "x".repeat(3 << 10),
        format!("{good}{}", "x".repeat(3 << 10)),
        format!("v2.public.{body}"),
        format!("v3.public.{body}"),
        format!("v4.local.{body}"),
        "eyJhbGciOiJub25lIn0.eyJhdWQiOiJwZWVyLWNodW5rIn0.".into(),
        good.to_uppercase(),
        format!(" {good}"),
        format!("Bearer {good}"),
        format!("{good}.x"),
        good[..good.len() - 1].into(),
    ] {
        for outcome in
            [get(&client, &bad, file.id.as_bytes()).await, watch(&client, &bad, file.id.as_bytes()).await]
        {
            let status = outcome.unwrap_err();
            assert_eq!(Reason::of(&status), Some(Reason::TicketInvalid), "{bad:.40}: {status:?}");
        }
    }
    for at in 0..good.len() {
        let mut flipped = good.clone().into_bytes();
        flipped[at] ^= 1;
        let status =
            get(&client, &String::from_utf8(flipped).unwrap(), file.id.as_bytes()).await.unwrap_err();
        assert_eq!(Reason::of(&status), Some(Reason::TicketInvalid), "byte {at}: {status:?}");
    }
    get(&client, &good, file.id.as_bytes()).await.expect("the good one");
    for id in [&[][..], &[1; 15], &[1; 17], &[0; 16]] {
        let status = get(&client, &good, id).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{id:?}");
    }
    peer.end().await;
}

#[tokio::test]
async fn a_ticket_is_of_no_use_to_the_peer_that_it_was_shown_to() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(1));
    let first = file.shared_by(&trust, EngineConfig::default()).await;
    let second = file.shared_by(&trust, EngineConfig::default()).await;
    let own = trust.credentials();
    let ticket = file.ticket(&trust, own.peer);
    let shown = first.client(Some(&own)).await.unwrap();
    get(&shown, &ticket, file.id.as_bytes()).await.expect("its owner is served");
    // The first peer has seen the ticket now, and its own certificate is as valid as any.
    let replayed = second.client(Some(&first.credentials)).await.unwrap();
    for outcome in [
        get(&replayed, &ticket, file.id.as_bytes()).await,
        watch(&replayed, &ticket, file.id.as_bytes()).await,
    ] {
        let status = outcome.unwrap_err();
        assert_eq!(Reason::of(&status), Some(Reason::TicketMismatch), "{status:?}");
    }
    // The first peer is served with a ticket of its own, and the owner still is with its ticket.
    get(&replayed, &file.ticket(&trust, first.peer()), file.id.as_bytes()).await.expect("its own ticket");
    let owner = second.client(Some(&own)).await.unwrap();
    get(&owner, &ticket, file.id.as_bytes()).await.expect("the owner");
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn certificates_of_others_and_old_ones_end_the_handshake() {
    let (trust, stranger, file) = (World::new(), World::new(), SharedFile::of_pieces(1));
    let peer = file.shared_by(&trust, EngineConfig::default()).await;
    let reaches = async |own: &Credentials| {
        // The server rejects a client's certificate only after the client's handshake, so a call is needed to
        // see it.
        match peer.client(Some(own)).await {
            Ok(client) => get(&client, &file.ticket(&trust, own.peer), file.id.as_bytes()).await.is_ok(),
            Err(_) => false,
        }
    };
    let expired = trust.credentials_until(now() - 60, &trust.authority.pem);
    // This caller trusts the right authority, and shows a certificate of another one.
    let foreign = stranger.credentials_until(now() + 3_600, &trust.authority.pem);
    assert!(!reaches(&foreign).await, "a certificate of another authority");
    assert!(!reaches(&expired).await, "a certificate that ran out");
    assert!(reaches(&trust.credentials()).await);
    // The reverse case: the peer that answers at the address is not the one that was named.
    let own = trust.credentials();
    assert!(own.dial(PeerId::from([7; 32]), &peer.address).await.is_err());
    peer.end().await;
}

/// KiB a second. A piece takes eight seconds at this rate, so a stream that ends sooner was cut within a
/// piece.
const SLOW: u64 = 64;

/// Downloads a file at `rate` KiB a second with a ticket that is valid for five minutes, and calls `act`
/// meanwhile. Returns how the stream ended and how long that took.
async fn cut_by(rate: u64, act: impl FnOnce(&Node, &SharedFile)) -> (Status, Duration) {
    let (trust, file) = (World::new(), SharedFile::of_pieces(8));
    let config = EngineConfig { upload_limit: rate << 10, ..EngineConfig::default() };
    let peer = file.shared_by(&trust, config).await;
    let own = trust.credentials();
    let claims = Claims { expires: now() + 300, ..file.claims(&trust, own.peer) };
    let request = GetChunkRequest {
        ticket: trust.signer.sign(&claims),
        file_id: file.id.as_bytes().to_vec().into(),
        pieces: (0..8).collect(),
        ..Default::default()
    };
    let mut chunks = peer.client(Some(&own)).await.unwrap().get_chunk(request).await.unwrap().into_inner();
    assert!(chunks.message().await.unwrap().is_some());
    act(&peer, &file);
    let began = Instant::now();
    let ending = async {
        loop {
            match chunks.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it was sent to its end"),
                Err(status) => return status,
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, ending).await.expect("the stream ends");
    let took = began.elapsed();
    peer.end().await;
    (status, took)
}

#[tokio::test]
async fn a_removed_member_is_cut_off_midway() {
    let (status, took) =
        cut_by(SLOW, |peer, file| peer.engine.raise_epochs(vec![(file.group.clone(), 2)])).await;
    assert_eq!(Reason::of(&status), Some(Reason::StaleEpoch), "{status:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_removed_member_is_refused_after_a_restart_too() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(1));
    let (state, own) = (tempfile::tempdir().unwrap(), trust.credentials());
    let ticket = file.ticket(&trust, own.peer);
    for epochs in [vec![(file.group.clone(), 2)], vec![]] {
        let config = EngineConfig { state_dir: Some(state.path().to_owned()), ..EngineConfig::default() };
        let peer = file.shared_by(&trust, config).await;
        // In the second round the tracker has not sent an epoch yet.
        peer.engine.raise_epochs(epochs);
        let client = peer.client(Some(&own)).await.unwrap();
        let status = get(&client, &ticket, file.id.as_bytes()).await.unwrap_err();
        assert_eq!(Reason::of(&status), Some(Reason::StaleEpoch), "{status:?}");
        peer.end().await;
    }
}

#[tokio::test]
async fn a_ticket_that_ran_out_by_the_trackers_clock_is_refused_after_a_restart_too() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(1));
    let (state, own) = (tempfile::tempdir().unwrap(), trust.credentials());
    let ticket = trust.signer.sign(&Claims { expires: now() + 200, ..file.claims(&trust, own.peer) });
    for offset in [Some(300), None] {
        let config = EngineConfig { state_dir: Some(state.path().to_owned()), ..EngineConfig::default() };
        let peer = file.shared_by(&trust, config).await;
        // In the second round the tracker has not sent its time yet.
        offset.into_iter().for_each(|offset| peer.engine.set_clock_offset(offset));
        let client = peer.client(Some(&own)).await.unwrap();
        let status = get(&client, &ticket, file.id.as_bytes()).await.unwrap_err();
        assert_eq!(Reason::of(&status), Some(Reason::TicketExpired), "{offset:?}: {status:?}");
        peer.end().await;
    }
}

#[tokio::test]
async fn a_ticket_that_runs_out_midway_ends_the_stream_with_the_piece() {
    // The clock moves ten minutes forward, as if the transfer had taken that long.
    let (status, took) = cut_by(256, |peer, _| peer.engine.set_clock_offset(600)).await;
    assert_eq!(Reason::of(&status), Some(Reason::TicketExpired), "{status:?}");
    // A piece takes 2 s at 256 KiB/s.
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn a_wrong_clock_ends_streams_and_admits_nobody_until_it_is_corrected() {
    let (status, took) = cut_by(SLOW, |peer, _| peer.engine.set_clock_offset(-601)).await;
    assert_eq!(
        (status.code(), Reason::of(&status)),
        (Code::Unavailable, Some(Reason::ClockOff)),
        "{status:?}"
    );
    assert!(took < Duration::from_secs(2), "{took:?}");

    let (trust, file) = (World::new(), SharedFile::of_pieces(1));
    let peer = file.shared_by(&trust, EngineConfig::default()).await;
    let own = trust.credentials();
    let client = peer.client(Some(&own)).await.unwrap();
    for (offset, expected) in
        [(601, Some(Reason::ClockOff)), (-601, Some(Reason::ClockOff)), (600, None), (-600, None), (0, None)]
    {
        peer.engine.set_clock_offset(offset);
        // The ticket is valid by the tracker's clock, whatever the local clock says.
        let time = now().saturating_add_signed(offset);
        let claims = Claims { not_before: time, expires: time + 300, ..file.claims(&trust, own.peer) };
        let ticket = trust.signer.sign(&claims);
        for outcome in [
            get(&client, &ticket, file.id.as_bytes()).await,
            watch(&client, &ticket, file.id.as_bytes()).await,
        ] {
            assert_eq!(outcome.err().and_then(|status| Reason::of(&status)), expected, "{offset}");
        }
    }
    peer.end().await;
}

#[tokio::test]
async fn a_file_that_the_tracker_ended_is_no_longer_sent() {
    let (status, took) = cut_by(SLOW, |peer, file| peer.engine.bar(&file.group, file.id)).await;
    assert_eq!((status.code(), Reason::of(&status)), (Code::NotFound, Some(Reason::NotShared)));
    assert!(took < Duration::from_secs(2), "{took:?}");

    let (trust, file) = (World::new(), SharedFile::of_pieces(1));
    let peer = file.shared_by(&trust, EngineConfig::default()).await;
    let own = trust.credentials();
    let client = peer.client(Some(&own)).await.unwrap();
    let ticket = file.ticket(&trust, own.peer);
    let mut holdings = peer.engine.holdings();
    assert!(matches!(holdings.next().await[..], [Holding { what: Held::Complete, .. }]));
    peer.engine.bar(&"another".parse().unwrap(), file.id);
    get(&client, &ticket, file.id.as_bytes()).await.unwrap();
    peer.engine.bar(&file.group, file.id);
    let status = get(&client, &ticket, file.id.as_bytes()).await.unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::NotShared));
    assert!(matches!(holdings.next().await[..], [Holding { what: Held::Left, .. }]));
    peer.engine.allow(file.id);
    get(&client, &ticket, file.id.as_bytes()).await.unwrap();
    assert!(matches!(holdings.next().await[..], [Holding { what: Held::Complete, .. }]), "announced anew");
    peer.end().await;
}

#[tokio::test]
async fn an_unshared_file_is_no_longer_sent() {
    let (status, took) = cut_by(SLOW, |peer, file| assert!(peer.engine.unshare(file.id))).await;
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}
