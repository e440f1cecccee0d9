//! Rights that end while the seeder's connection to the tracker breaks, is held up, or stands, in many
//! orders; and a seeder that starts while the tracker is away. The tests check whether the seeder still
//! serves the tickets from before.

use std::time::Duration;

use data_encoding::BASE64;
use proto::{
    pb::{GetChunkRequest, peer_service_client::PeerServiceClient},
    reason::Reason,
};
use testkit::relay::Relay;
use tokio::runtime::Runtime;
use tonic::{Status, transport::Channel};

use crate::{
    callers::{Called, certificate, first},
    support::{MIB, Peer, Tracker, make_file, wait_for, wait_within},
};

/// The tracker's promise: the time within which a right ends at a peer that it reaches, or after it reaches
/// it again.
const PROMISE: Duration = Duration::from_secs(15);

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// A member's connection to the seeder, for showing tickets.
struct Caller {
    channel: Channel,
    file: Vec<u8>,
    runtime: Runtime,
}

impl Caller {
    /// Connects to the seeder's current address with the member's certificate.
    fn connect(tracker: &Tracker, seeder: &Peer, member: &Peer) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let status = wait_for("the seeder has its certificate", || {
            let status = seeder.json("status");
            status["tls_name"].is_string().then_some(status)
        });
        let called = Called {
            address: text(&status["listen"]),
            tls_name: text(&status["tls_name"]),
            ca: std::fs::read_to_string(tracker.ca()).expect("the CA"),
        };
        let (certificate, key) = certificate(member);
        let channel = runtime.block_on(called.by(Some((&certificate, &key))));
        Self { channel, file: Vec::new(), runtime }
    }

    fn call(&self, ticket: &str) -> Result<(), Status> {
        let (ticket, file_id) = (ticket.to_owned(), self.file.clone().into());
        let request = GetChunkRequest { ticket, file_id, pieces: vec![0], ..Default::default() };
        let mut client = PeerServiceClient::new(self.channel.clone()).max_decoding_message_size(2 * MIB);
        self.runtime.block_on(async { first(client.get_chunk(request).await).await })
    }

    /// Returns the reason why the seeder refuses the ticket.
    fn refusal(&self, ticket: &str) -> Option<Reason> {
        self.call(ticket).err().and_then(|status| Reason::of(&status))
    }

    /// Returns a ticket of the member for that file, once the seeder serves it.
    fn good_ticket(&mut self, name: &str, member: &Peer) -> String {
        wait_for("the seeder serves the member", || {
            let done = member.run(&["ticket", "g1", name, "--json"]);
            if done.code != 0 {
                // The tracker refuses too many questions within a second.
                assert_eq!(done.reason(), "RATE_LIMITED", "{done:?}");
                return None;
            }
            let shown = done.json();
            self.file = BASE64.decode(text(&shown["file_id"]).as_bytes()).expect("base64");
            let ticket = text(&shown["ticket"]);
            self.call(&ticket).is_ok().then_some(ticket)
        })
    }

    /// Waits until the seeder refuses the ticket, for at most the promised time. Returns the reason.
    fn refusal_soon(&self, ticket: &str, order: &[Step]) -> Reason {
        wait_within(PROMISE, &format!("{order:?}: the ticket of before is refused"), &mut || {
            self.refusal(ticket)
        })
    }
}

/// Events of the seeder's connection, and changes of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The connection closes. A new one gets through.
    Cut,
    /// The connection closes, and the seeder connects again.
    Return,
    /// Nothing gets through any more, and neither side is notified.
    Hold,
    /// Everything gets through again.
    Mend,
    RestartTracker,
    RemoveMember,
    DisableMember,
    Unpublish,
    DeleteGroup,
}

/// The seeder reaches the tracker through a relay; the owner and the member reach it directly.
struct Scene {
    relay: Relay,
    tracker: Tracker,
    owner: Peer,
    seeder: Peer,
    member: Peer,
}

impl Scene {
    fn new() -> Self {
        let tracker = Tracker::start();
        let relay = Relay::to(tracker.url().trim_start_matches("https://"));
        let (owner, member) = (tracker.user("owner"), tracker.user("member"));
        let seeder = tracker.user_with("seeder", &[("PEER_TRACKER", &relay.url())]);
        tracker.group("g1", &[&owner, &seeder, &member]);
        seeder.shares("g1", "data", MIB, 31);
        Self { relay, tracker, owner, seeder, member }
    }

    fn caller(&self) -> Caller {
        Caller::connect(&self.tracker, &self.seeder, &self.member)
    }

    fn wait_until_connected(&self) {
        wait_for("the seeder's stream stands", || {
            (self.seeder.json("status")["tracker_connected"] == true).then_some(())
        });
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Cut => self.relay.cut(),
            Step::Return => {
                let before = self.relay.connections();
                self.relay.cut();
                wait_for("the seeder comes back", || (self.relay.connections() > before).then_some(()));
                self.wait_until_connected();
            }
            Step::Hold => self.relay.hold(),
            Step::Mend => self.relay.mend(),
            Step::RestartTracker => {
                self.tracker.kill();
                self.tracker.start_again();
            }
            Step::RemoveMember => drop(self.owner.ok(&["remove-member", "g1", "member"])),
            Step::DisableMember => drop(self.tracker.operate("user disable member", "")),
            // The owner of a group may unpublish the files of others there.
            Step::Unpublish => drop(self.owner.ok(&["unpublish", "g1", "data"])),
            Step::DeleteGroup => drop(self.owner.ok(&["delete-group", "g1"])),
        }
    }
}

#[test]
fn a_removed_member_is_refused_after_any_loss_of_the_connection() {
    use Step::{Cut, DisableMember, Hold, Mend, RemoveMember, RestartTracker, Return};
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    for order in [
        &[Return, RemoveMember][..],
        &[Return, Return, RemoveMember],
        &[Cut, RemoveMember],
        &[Hold, RemoveMember, Mend],
        &[Hold, RemoveMember, Cut, Mend],
        &[Hold, Cut, RemoveMember, Mend],
        &[RestartTracker, RemoveMember],
        &[Hold, RemoveMember, RestartTracker, Mend],
        // This order is the last, because it ends the member's login.
        &[Return, DisableMember],
    ] {
        let ticket = caller.good_ticket("data", &scene.member);
        order.iter().for_each(|step| scene.take(*step));
        scene.wait_until_connected();
        assert_eq!(caller.refusal_soon(&ticket, order), Reason::StaleEpoch, "{order:?}");
        if order.contains(&RemoveMember) {
            scene.member.ok(&["join-group", "g1"]);
            scene.owner.ok(&["accept-request", "g1", "member"]);
            assert_eq!(caller.refusal(&ticket), Some(Reason::StaleEpoch), "{order:?}: a member again");
        }
    }
}

#[test]
fn a_file_unpublished_while_its_seeder_was_away_is_no_longer_served() {
    use Step::{Hold, Mend, Unpublish};
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let ticket = caller.good_ticket("data", &scene.member);
    let order = &[Hold, Unpublish, Mend];
    order.iter().for_each(|step| scene.take(*step));
    scene.wait_until_connected();
    assert_eq!(caller.refusal_soon(&ticket, order), Reason::NotShared);
}

/// With this many files, asking the tracker about one after the other would take longer than promised.
#[test]
fn no_file_of_a_deleted_group_is_served() {
    use Step::{Cut, DeleteGroup, Hold, Mend};
    let mut scene = Scene::new();
    let names: Vec<_> = (0..160).map(|number| format!("f{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        make_file(&scene.seeder.path(name), 1 << 10, number as u64);
    }
    let uploads: Vec<_> = names.iter().map(|name| format!("upload {name} g1")).collect();
    let done = scene.seeder.shell(&uploads.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(done.code, 0, "{done:?}");
    let tickets: Vec<_> = names
        .iter()
        .step_by(names.len() / 8)
        .map(|name| {
            let mut caller = scene.caller();
            let ticket = caller.good_ticket(name, &scene.member);
            (caller, ticket)
        })
        .collect();
    let order = &[Hold, DeleteGroup, Cut, Mend];
    order.iter().for_each(|step| scene.take(*step));
    scene.wait_until_connected();
    let mut left: Vec<_> = tickets.iter().collect();
    wait_within(PROMISE, "no file of the group is served", &mut || {
        left.retain(|(caller, ticket)| caller.call(ticket).is_ok());
        left.is_empty().then_some(())
    });
}

#[test]
fn a_seeder_restarted_while_the_tracker_is_away_serves_members_only() {
    let mut tracker = Tracker::start();
    let (seeder, member, removed) = (tracker.user("seeder"), tracker.user("member"), tracker.user("removed"));
    tracker.group("g1", &[&seeder, &member, &removed]);
    seeder.shares("g1", "data", MIB, 32);
    let mut caller = Caller::connect(&tracker, &seeder, &removed);
    let stale = caller.good_ticket("data", &removed);
    seeder.ok(&["remove-member", "g1", "removed"]);
    assert_eq!(caller.refusal_soon(&stale, &[Step::RemoveMember]), Reason::StaleEpoch);
    let mut caller = Caller::connect(&tracker, &seeder, &member);
    let good = caller.good_ticket("data", &member);
    let file = caller.file;

    tracker.kill();
    for crash in [false, true] {
        if crash {
            seeder.kill_daemon();
        } else {
            seeder.ok(&["daemon", "stop"]);
        }
        // The verb starts the next daemon.
        seeder.ok(&["list-shares"]);
        let of_member = Caller { file: file.clone(), ..Caller::connect(&tracker, &seeder, &member) };
        let of_removed = Caller { file: file.clone(), ..Caller::connect(&tracker, &seeder, &removed) };
        wait_for("the share is taken up again", || {
            (of_member.refusal(&good) != Some(Reason::NotShared)).then_some(())
        });
        assert_eq!(of_member.refusal(&good), None, "a member's ticket");
        assert_eq!(of_removed.refusal(&stale), Some(Reason::StaleEpoch), "a removed member's ticket");
    }
}
