//! What goes wrong: hosts, connections, clocks and disks.

use std::time::Duration;

use proto::pb;
use rand::RngExt as _;

use crate::{
    disk,
    model::Change,
    story::{GROUP, OWNER, Story, brief},
    sys,
    world::TRACKER,
};

/// A download goes on within this time after its seeder restarted.
const AWAY: Duration = Duration::from_secs(90);

impl Story {
    /// Two hosts may have missed something. The tracker's state counts.
    pub(crate) fn lost_touch(&mut self, a: usize, b: usize) {
        if a == TRACKER || b == TRACKER {
            self.peers[a.max(b)].connected = None;
        }
    }

    /// The tracker's connections break and return within the lease, and then a member is removed.
    pub(crate) fn remove_after_a_break(&mut self, host: usize) {
        let is_member = self.groups.place(GROUP, host).is_member();
        if !is_member || !self.world.is_up(TRACKER) || !self.world.is_up(OWNER) || !self.rogue(host) {
            return;
        }
        self.world.run(Duration::from_secs(3));
        for peer in self.world.peers() {
            self.world.net.break_links(peer, TRACKER);
            self.lost_touch(peer, TRACKER);
        }
        self.world.note("all connections of the tracker break");
        self.world.run(Duration::from_secs(8));
        self.check();
        self.change(host, Change::Remove);
        for _ in 0..6 {
            self.world.run(Duration::from_secs(5));
            self.check();
        }
    }

    pub(crate) fn kill_or_start(&mut self, host: usize) {
        self.peers[host].connected = None;
        if self.world.is_up(host) {
            self.world.kill(host);
            self.world.note(format!("{host} is killed"));
        } else {
            self.world.start_peer(host);
            self.world.note(format!("{host} starts"));
        }
    }

    /// A crash that loses what was not synced, and leaves flipped bits.
    pub(crate) fn power_cut(&mut self, host: usize) {
        if !self.world.is_up(host) {
            return;
        }
        self.kill_or_start(host);
        let lost = self.world.disks[host].lose_unsynced(&mut self.dice);
        self.world.note(format!("{lost} pages were not on the disk of {host}"));
        if self.dice.random() {
            self.flip_bits(host);
        }
        if self.dice.random() {
            self.kill_or_start(host);
        }
    }

    pub(crate) fn flip_bits(&mut self, host: usize) {
        let directory = self.world.directory(host).join("films");
        let count = disk::flip_bits(&directory, &mut self.dice);
        self.world.note(format!("a bit flips in {count} unfinished files of {host}"));
    }

    pub(crate) fn fill_or_empty_disk(&mut self, host: usize) {
        let disk = &self.world.disks[host];
        let full = !disk.is_full();
        disk.set_full(full);
        self.world.note(format!("the disk of {host} {}", if full { "is full" } else { "has room again" }));
    }

    /// A seeder that restarts while the tracker is away goes on serving those who have tickets.
    pub(crate) fn tracker_away(&mut self, host: usize) {
        let file = 0;
        let seeder = self.files[file].publisher;
        let able = |story: &Self, host: usize| {
            let peer = &story.peers[host];
            story.world.is_up(host)
                && peer.logged_in
                && peer.connected.is_some()
                && !peer.clock_stepped
                && !story.world.disks[host].is_full()
        };
        let known = host != seeder && self.groups.place(GROUP, host).is_member();
        let linked = !self.world.net.is_cut(host, seeder) && self.world.is_up(TRACKER);
        if !known || !linked || !able(self, host) || !able(self, seeder) {
            return;
        }
        let (name, destination) = (self.file_name(file), self.destination(host, file));
        if destination.exists() || self.files[file].bytes.len() < 1_500_000 {
            return;
        }
        let limited = self.call(host, |line| line.limit(0, 60_000)).is_some_and(|answer| answer.is_ok());
        let begun = self.call(host, |line| line.download(name, destination));
        self.world.run(Duration::from_secs(5));
        let Some(before) = self.done_bytes(host, file).filter(|_| limited) else { return };
        self.world.note(format!(
            "{host} downloads film{file} ({}), has {before}; the tracker goes away",
            brief(&begun)
        ));
        for peer in [host, seeder] {
            self.world.net.cut(peer, TRACKER);
            self.peers[peer].connected = None;
        }
        self.world.run(Duration::from_secs(2));
        self.world.kill(seeder);
        self.world.start_peer(seeder);
        let end = self.world.now() + AWAY;
        loop {
            self.world.run(Duration::from_secs(5));
            self.take_loot();
            match self.done_bytes(host, file) {
                // It ended, which the other checks look at.
                None => break,
                Some(done) if done > before => break,
                Some(_) if self.world.now() > end => {
                    self.fail(format!(
                        "{host} got nothing of {seeder}, who restarted while the tracker was away"
                    ));
                }
                Some(_) => {}
            }
        }
        for peer in [host, seeder] {
            self.world.net.heal(peer, TRACKER);
        }
        self.world.note("the tracker is back");
    }

    /// A download goes on though all tickets and certificates end in its middle, and connections break: peers have
    /// to show the new ones. Certificates are valid for 7 days, and are renewed after two thirds of that.
    pub(crate) fn outlive_certificates(&mut self) {
        let (host, file) = (2, self.files.len());
        self.publish(OWNER, "long film", 3_000_000);
        self.must("limit", host, |line| line.limit(0, 30_000));
        let (name, destination) = (self.file_name(file), self.destination(host, file));
        self.must("download", host, |line| line.download(name, destination.clone()));
        self.world.run(Duration::from_secs(5));
        let mut before = 0;
        for days in [5, 3] {
            (0..self.peers.len())
                .for_each(|host| sys::step_clock(host, Duration::from_hours(24 * days), false));
            self.world.note(format!("{days} days pass at once"));
            // The age of certificates is looked at each 30 s.
            self.world.run(Duration::from_secs(35));
            for other in [TRACKER, OWNER] {
                self.world.net.break_links(host, other);
            }
            self.world.net.break_links(OWNER, TRACKER);
            self.check();
            match self.done_bytes(host, file) {
                Some(done) if done > before => before = done,
                done => self.fail(format!("{host} had {before} bytes of the long film, and has {done:?}")),
            }
        }
        let end = self.world.now() + AWAY;
        while !destination.exists() {
            if self.world.now() > end {
                self.fail(format!("{host} does not get the rest of the long film"));
            }
            self.world.run(Duration::from_secs(1));
        }
        self.check();
    }

    /// The verified bytes of a download that runs.
    pub(crate) fn done_bytes(&mut self, host: usize, file: usize) -> Option<u64> {
        let name = self.files[file].name.clone();
        let downloads = self.call(host, |line| line.downloads())?.ok()?;
        let download = downloads.into_iter().find(|download| download.name == name)?;
        let runs = matches!(
            download.state(),
            pb::DownloadState::Queued | pb::DownloadState::Downloading | pb::DownloadState::Stalled
        );
        runs.then_some(download.done_bytes)
    }

    pub(crate) fn restart_tracker(&mut self) {
        let up = self.world.is_up(TRACKER);
        if up {
            self.world.kill(TRACKER);
            self.world.note("the tracker is killed");
            self.peers.iter_mut().for_each(|peer| peer.connected = None);
        } else {
            self.world.start_tracker();
            self.world.note("the tracker starts");
        }
    }

    pub(crate) fn cut_or_heal(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        self.lost_touch(a, b);
        if self.world.net.is_cut(a, b) {
            self.world.net.heal(a, b);
            self.world.note(format!("{a} and {b} reach each other again"));
        } else {
            self.world.net.cut(a, b);
            self.world.note(format!("{a} and {b} don't reach each other"));
        }
    }

    pub(crate) fn step_clock(&mut self, host: usize) {
        self.peers[host].clock_stepped = true;
        let seconds = [2, 50, 300, 7_200][self.dice.random_range(0..4)];
        let back = self.dice.random();
        self.world
            .note(format!("the clock of {host} steps {} by {seconds} s", if back { "back" } else { "on" }));
        sys::step_clock(host, Duration::from_secs(seconds), back);
    }
}
