//! The end of a story: all faults end, everybody is let in again, and everything must finish.

use std::time::Duration;

use proto::pb;

use crate::{
    model::Change,
    story::{GROUP, OWNER, Story, brief, user},
    sys,
    world::TRACKER,
};

/// Everything finishes this long after the last fault.
const FINISH: Duration = Duration::from_secs(240);

impl Story {
    /// Ends all faults, and waits until everybody has everything.
    pub(crate) fn finish(&mut self) {
        self.world.note("all faults end");
        for rogue in self.rogues.drain(..) {
            rogue.tasks.iter().for_each(|task| task.abort());
        }
        for a in 0..self.peers.len() {
            sys::right_clock(a);
            self.world.disks[a].set_full(false);
            self.world.net.set_uplink(a, 4_000_000);
            for b in 0..a {
                self.world.net.heal(a, b);
            }
        }
        if !self.world.is_up(TRACKER) {
            self.world.start_tracker();
        }
        for host in self.world.peers().filter(|host| !self.world.is_up(*host)).collect::<Vec<_>>() {
            self.world.start_peer(host);
        }
        let end = self.world.now() + FINISH;
        let mut missing = vec!["everything".to_owned()];
        while !missing.is_empty() {
            if self.world.now() > end {
                self.fail(format!("not finished: {missing:?}"));
            }
            self.world.run(Duration::from_secs(5));
            self.check();
            missing.clear();
            for host in self.world.peers() {
                self.bring_back(host, &mut missing);
            }
        }
        self.look_at_group(true);
        let listed = self.must("list-files", OWNER, |line| line.files(GROUP.to_owned()));
        for file in &self.files {
            if !listed.contains(&file.name) {
                self.world.note(format!("{listed:?}"));
                let name = file.name.clone();
                self.fail(format!("{name} was published and is gone"));
            }
        }
        if self.calm {
            self.check_sent();
        }
        self.world.note("all is well");
    }

    /// Brings a peer back into the group and to its files. Adds what it still misses.
    pub(crate) fn bring_back(&mut self, host: usize, missing: &mut Vec<String>) {
        if !self.peers[host].logged_in || self.peers[host].connected.is_none() {
            let answer = self.call(host, |line| line.log_in(user(host)));
            if !matches!(answer, Some(Ok(()))) {
                missing.push(format!("login of {host}: {}", brief(&answer)));
                return;
            }
            self.peers[host].logged_in = true;
        }
        if host != OWNER && !self.groups.place(GROUP, host).is_member() {
            self.change(host, Change::Join);
            self.change(host, Change::Accept);
            if !self.groups.place(GROUP, host).may_be_member() {
                self.look_at_group(false);
                missing.push(format!("membership of {host}"));
                return;
            }
        }
        if !self.limited && self.call(host, |line| line.limit(0, 0)).is_none() {
            missing.push(format!("limits of {host}"));
        }
        // The shares of one who is a member again come back.
        match self.call(host, |line| line.troubled_shares()) {
            Some(Ok(troubled)) => {
                missing.extend(troubled.iter().map(|name| format!("the share of {name} at {host}")));
            }
            answer => missing.push(format!("the shares of {host}: {}", brief(&answer))),
        }
        for file in 0..self.files.len() {
            let destination = self.destination(host, file);
            if self.files[file].publisher == host || destination.exists() {
                continue;
            }
            let (name, again) = (self.file_name(file), self.file_name(file));
            let known = self.call(host, |line| line.downloads()).and_then(Result::ok).unwrap_or_default();
            let state = known.into_iter().find(|download| download.name == name.name);
            let (running, text) = match &state {
                Some(state) => {
                    let (phase, cause) = (state.state(), &state.cause);
                    let paused = matches!(phase, pb::DownloadState::Stopped | pb::DownloadState::Failed);
                    (!paused, format!("{phase:?} {} {cause}", state.done_bytes))
                }
                None => (false, "unknown".to_owned()),
            };
            missing.push(format!("film{file} at {host}: {text}"));
            if running {
                continue;
            }
            let answer = match state {
                Some(_) => self.call(host, |line| line.resume_download(name)),
                None => self.call(host, |line| line.download(again, destination)),
            };
            self.world.note(format!("{host} takes up film{file} ({text}): {}", brief(&answer)));
        }
    }
}
