//! Downloads under a limit that each of two sources could fill. The limit must hold and be used, and each piece must
//! come once.

use std::time::Duration;

use rand::RngExt as _;

use crate::story::{OWNER, Story, brief};

impl Story {
    /// Fetches a file of few pieces under a limit. Only in calm stories: nothing else may slow it down.
    pub(crate) fn fetch_under_limit(&mut self, host: usize) {
        let file = self.dice.random_range(0..self.files.len());
        let (seeder, length) = (self.files[file].publisher, self.files[file].bytes.len());
        let second = self.world.peers().find(|other| ![host, seeder].contains(other) && self.is_in(*other));
        let busy = (0..self.files.len()).any(|file| self.done_bytes(host, file).is_some());
        let done = host == seeder || self.destination(host, file).exists();
        let Some(second) = second.filter(|_| self.calm && !self.limited && !busy && !done) else { return };
        if !self.is_in(host) || length == 0 || !self.becomes_source(seeder, second, file) {
            return;
        }
        let rate = self.dice.random_range(60_000..180_000);
        self.fetch_at(host, file, rate);
    }

    /// Fetches a file of more pieces than its sources are asked for at once.
    pub(crate) fn fetch_many_pieces_under_limit(&mut self) {
        let (second, host, file) = (2, 3, self.files.len());
        let length = self.dice.random_range(5_000_000..10_000_000);
        self.publish(OWNER, "wide film", length);
        if !self.becomes_source(OWNER, second, file) {
            self.fail(format!("{second} does not get the wide film"));
        }
        let rate = self.dice.random_range(150_000..600_000);
        self.fetch_at(host, file, rate);
        self.check();
    }

    /// Gives a file to a second peer, and ends the limits of both. Returns whether it has the file.
    fn becomes_source(&mut self, seeder: usize, second: usize, file: usize) -> bool {
        for source in [seeder, second] {
            self.must("limit", source, |line| line.limit(0, 0));
        }
        let (name, destination) = (self.file_name(file), self.destination(second, file));
        if !destination.exists() {
            // It may be running already.
            let _ = self.call(second, |line| line.download(name, destination.clone()));
            self.world.run(Duration::from_secs(30));
        }
        destination.exists()
    }

    /// Fetches a file at a rate in bytes a second, and checks when and how many bytes come.
    fn fetch_at(&mut self, host: usize, file: usize, rate: u64) {
        let length = self.files[file].bytes.len() as u64;
        self.must("limit", host, |line| line.limit(0, rate));
        let arrived = |story: &Self| -> u64 {
            story.world.peers().map(|from| story.world.net.arrived(from, host)).sum()
        };
        let (before, begun) = (arrived(self), self.world.now());
        let (name, destination) = (self.file_name(file), self.destination(host, file));
        let answer = self.call(host, |line| line.download(name, destination.clone()));
        self.world.note(format!("{host} fetches film{file} at {rate} bytes a second: {}", brief(&answer)));
        let least = length as f64 / rate as f64;
        while !destination.exists() {
            self.world.run(Duration::from_secs(1));
            let (took, got) = ((self.world.now() - begun).as_secs_f64(), arrived(self) - before);
            // A second's bytes may come at once, and a window of each source is on its way.
            let most = rate as f64 * (1.05 * took + 1.0) + f64::from(64 << 10);
            if got as f64 > most || took > 1.2 * least + 10.0 {
                self.fail(format!("{got} bytes of film{file} in {took} s, at a limit of {rate}"));
            }
        }
        let got = arrived(self) - before;
        if got > length + length / 50 + 48_000 {
            self.fail(format!("{got} bytes came for film{file}, which has {length}"));
        }
        self.world.note(format!("{got} bytes came for film{file}, which has {length}"));
        self.must("limit", host, |line| line.limit(0, 0));
    }
}
