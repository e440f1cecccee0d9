//! What must hold after each step, and how much may have been sent in the end.

use std::time::Duration;

use proto::domain;
use rand::RngExt as _;

use crate::{
    model::Standing,
    rogue,
    story::{GROUP, OWNER, Story, brief, user},
    world::TRACKER,
};

/// Bytes stop this long after the right ended, or after the seeder has heard from the tracker again.
const BOUND: Duration = Duration::from_secs(15);

impl Story {
    /// Checks that no rogue got anything that it had no right to.
    pub(crate) fn take_loot(&mut self) {
        let mut fault = None;
        for rogue in &mut self.rogues {
            let loot = std::mem::take(&mut *rogue.loot.lock().expect("no panic"));
            let lost = self.groups.place(GROUP, rogue.host).lost;
            for got in loot {
                let (Some(lost), Some(heard)) = (lost, self.peers[got.from].connected) else { continue };
                if got.at <= lost.max(heard) + BOUND {
                    continue;
                }
                let in_time = if got.bytes == 0 {
                    // The end of the stream takes a moment to arrive.
                    got.at <= lost.max(heard) + BOUND + Duration::from_secs(2)
                } else {
                    let so_far = if rogue.late.0 == got.since { rogue.late.1 } else { 0 };
                    rogue.late = (got.since, so_far + got.bytes);
                    got.since <= lost.max(heard) + BOUND && rogue.late.1 <= rogue::LEFT_OVER
                };
                if !in_time {
                    fault = Some(format!(
                        "user{} got {} bytes of {} at {:?}, who lost the right at {lost:?} and has heard from the tracker \
                         since {heard:?}",
                        rogue.host, got.bytes, got.from, got.at
                    ));
                }
            }
        }
        if let Some(fault) = fault {
            self.fail(fault);
        }
    }

    /// What must hold at any time.
    pub(crate) fn check(&mut self) {
        self.take_loot();
        for host in self.world.peers() {
            for file in 0..self.files.len() {
                let path = self.destination(host, file);
                if path.exists() && std::fs::read(&path).expect("a file") != self.files[file].bytes {
                    self.fail(format!("{host} has wrong bytes under the final name of film{file}"));
                }
            }
        }
        for host in self.world.peers() {
            if !self.world.is_up(host) || self.world.net.is_cut(host, TRACKER) || !self.world.is_up(TRACKER) {
                continue;
            }
            let answer = self.call(host, |line| line.status());
            let now = self.world.now();
            let connected = answer.and_then(Result::ok).is_some_and(|status| status.tracker_connected);
            let peer = &mut self.peers[host];
            if connected {
                peer.connected.get_or_insert(now);
            } else {
                peer.connected = None;
            }
        }
        if self.dice.random_ratio(1, 4) {
            self.look_at_group(false);
        }
    }

    /// Compares the group with the model.
    pub(crate) fn look_at_group(&mut self, must: bool) {
        if !self.world.is_up(OWNER) {
            return;
        }
        let answer = self.call(OWNER, |line| line.people(GROUP.to_owned()));
        let Some(Ok((members, asked))) = answer else {
            if must {
                self.fail(format!("the group can't be read: {}", brief(&answer)));
            }
            return;
        };
        for host in self.world.peers().filter(|host| *host != OWNER) {
            let seen = if members.contains(&user(host)) {
                Standing::Member
            } else if asked.contains(&user(host)) {
                Standing::Asked
            } else {
                Standing::None
            };
            let now = self.world.now();
            if let Err(fault) = self.groups.place(GROUP, host).observe(seen, now) {
                self.fail(format!("user{host}: {fault}"));
            }
        }
    }

    /// Checks that peers sent little more than what was needed.
    pub(crate) fn check_sent(&mut self) {
        let mut needed = 0;
        for host in self.world.peers() {
            for file in &self.files {
                needed += if file.publisher == host { 0 } else { file.bytes.len() as u64 };
            }
        }
        let mut sent = 0;
        for from in self.world.peers() {
            for to in self.world.peers() {
                sent += self.world.net.arrived(from, to);
            }
        }
        let (peers, files) = (self.world.peers().len() as u64, self.files.len() as u64);
        // TLS, HTTP/2 and bitfields cost something whatever the length of the files. At the end of its downloads a peer
        // races a piece of a slow source on purpose.
        let races = peers * u64::from(domain::PIECE_LENGTH);
        let most = needed + needed / 50 + peers * (peers - 1) * files * 12_000 + races;
        self.world.note(format!("{needed} bytes were needed, and {sent} were sent"));
        if sent > most {
            self.fail(format!("{needed} bytes were needed, and {sent} were sent"));
        }
    }
}
