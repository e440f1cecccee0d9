//! A source: carries out the actions of its upload state machine over its uplink.

use domain::limits::MAX_PEER_CONNECTIONS;
use peer_core::{
    download::{DownloadRequestId, Failure},
    upload::{Action, End, Event, chunk_length},
};

use super::{
    No,
    host::State,
    scenario::Order,
    tracker::file,
    uplink::Wants,
    world::{Answer, Call, ChunkRequest, Happening, World},
};

impl World {
    /// Handles a leecher's message when it reaches the source.
    pub(super) fn asked(&mut self, source: No, leecher: No, call: Call) {
        let host = self.host(source);
        if !host.is_there() {
            if let (State::Left | State::Away, Call::Connect(connection)) = (host.state, call) {
                let answer = Answer::Disconnected(connection, Failure::Connection);
                self.answer(source, leecher, 0, answer);
            }
            return;
        }
        match call {
            Call::Connect(connection) => {
                let answer = if host.watchers.len() < MAX_PEER_CONNECTIONS {
                    host.watchers.insert(leecher, connection);
                    Answer::Connected(connection, host.have.clone())
                } else {
                    Answer::Disconnected(connection, Failure::Connection)
                };
                self.answer(source, leecher, u64::from(self.layout.count().div_ceil(8)), answer);
            }
            Call::Close(connection) => {
                if host.watchers.get(&leecher) == Some(&connection) {
                    host.watchers.remove(&leecher);
                    self.hang_up(source, leecher);
                }
            }
            Call::Request(ask) => self.request(source, leecher, ask),
            Call::Cancel(request) => self.give_up(source, leecher, request, self.scenario.socket),
        }
    }

    /// Drops all requests of the leecher.
    pub(super) fn hang_up(&mut self, source: No, leecher: No) {
        let calls = self
            .host(source)
            .calls
            .range((leecher, DownloadRequestId(0))..=(leecher, DownloadRequestId(u64::MAX)));
        let requests: Vec<_> = calls.map(|((_, request), _)| *request).collect();
        for request in requests {
            self.give_up(source, leecher, request, 0);
        }
    }

    fn give_up(&mut self, source: No, leecher: No, request: DownloadRequestId, socket: u32) {
        let host = self.host(source);
        if let Some(call) = host.calls.remove(&(leecher, request)) {
            host.callers.remove(&call);
            host.uplink.drop_stream(call, socket);
            self.uploads.push_back((source, Event::Left(call)));
        }
    }

    fn request(&mut self, source: No, leecher: No, ask: ChunkRequest) {
        let ChunkRequest { request, pieces: mut wanted, max_pieces, in_order, urgent } = ask;
        let in_order = in_order || self.scenario.order == Order::Asked;
        let user = self.hosts[leecher as usize].user.clone();
        let peer = self.hosts[leecher as usize].id;
        let host = self.host(source);
        wanted.retain(|piece| host.have.contains(*piece));
        if !host.watchers.contains_key(&leecher) || wanted.is_empty() {
            self.answer(source, leecher, 0, Answer::Ended(request, Err(Failure::NotShared)));
            return;
        }
        let call = peer_core::upload::UploadRequestId(host.next_call);
        host.next_call += 1;
        host.calls.insert((leecher, request), call);
        host.callers.insert(call, (leecher, request));
        let file = file();
        let event = Event::Asked { request: call, peer, user, file, wanted, max_pieces, in_order, urgent };
        self.uploads.push_back((source, event));
    }

    /// Feeds the pending events to the upload state machines, and the events that result from them.
    pub(super) fn feed_uploads(&mut self) {
        while let Some((no, event)) = self.uploads.pop_front() {
            let now = self.clock.now();
            let mut actions = std::mem::take(&mut self.upload_actions);
            self.host(no).upload.handle(now, event, &mut actions);
            for action in actions.drain(..) {
                self.carry_out_upload(no, action);
            }
            self.upload_actions = actions;
            self.plan_upload_tick(no);
        }
    }

    fn plan_upload_tick(&mut self, no: No) {
        let host = &mut self.hosts[no as usize];
        let Some(due) = host.upload.next_wakeup() else { return };
        if host.upload_tick.is_none_or(|tick| due < tick) {
            host.upload_tick = Some(due);
            self.clock.plan(due, Happening::UploadDue(no));
        }
    }

    pub(super) fn upload_due(&mut self, no: No) {
        let now = self.clock.now();
        let host = self.host(no);
        if host.upload_tick.is_none_or(|tick| tick > now) {
            return;
        }
        host.upload_tick = None;
        if !host.is_there() {
            return;
        }
        if host.upload.next_wakeup().is_some_and(|due| due <= now) {
            self.uploads.push_back((no, Event::Tick));
        } else {
            self.plan_upload_tick(no);
        }
    }

    fn carry_out_upload(&mut self, no: No, action: Action) {
        let host = &mut self.hosts[no as usize];
        match action {
            Action::Queue(call, place) => {
                if let Some(&(leecher, request)) = host.callers.get(&call) {
                    self.answer(no, leecher, 10, Answer::Queued(request, place));
                }
            }
            Action::Send(call, piece) => {
                if let Some(&(leecher, request)) = host.callers.get(&call) {
                    host.uplink.send(call, leecher, request, piece, self.layout.piece_length(piece));
                    self.hand_over(no, call);
                    self.begin_quantum(no);
                }
            }
            Action::End(call, end) => {
                let Some((leecher, request)) = host.callers.remove(&call) else { return };
                host.calls.remove(&(leecher, request));
                let result = match end {
                    End::Done | End::Replaced => Ok(()),
                    End::QueueFull => Err(Failure::Busy),
                    End::Stalled => Err(Failure::Connection),
                };
                let is_waiting = !host.uplink.is_open(call);
                let over = host.uplink.end(call, result).is_some();
                if is_waiting || over {
                    self.answer(no, leecher, 10, Answer::Ended(request, result));
                }
            }
        }
    }

    /// Hands over as many chunks as the transport has room for, and reports each to the state machine.
    fn hand_over(&mut self, no: No, call: peer_core::upload::UploadRequestId) {
        let now = self.clock.now();
        let rate = self.host(no).upload.pace(now) as u64;
        let (fixed, ahead) = (self.scenario.chunk, self.scenario.ahead);
        let chunk = |sent| fixed.unwrap_or_else(|| chunk_length(sent, rate));
        while let Some(wants) = self.host(no).uplink.hand_over(call, chunk, ahead) {
            match wants {
                Wants::Chunk(bytes) => self.uploads.push_back((no, Event::Progress(call, bytes))),
                Wants::Next => return self.uploads.push_back((no, Event::Sent(call))),
            }
        }
    }

    /// Begins to send the next quantum, if there is one and the uplink is free.
    pub(super) fn begin_quantum(&mut self, no: No) {
        let now = self.clock.now();
        let (head, rest) = self.hosts.split_at_mut(no as usize);
        let Some((host, tail)) = rest.split_first_mut() else { return };
        let state = |other: No| match other.cmp(&no) {
            std::cmp::Ordering::Less => head[other as usize].state,
            std::cmp::Ordering::Equal => State::There,
            std::cmp::Ordering::Greater => tail[(other - no - 1) as usize].state,
        };
        match host.uplink.begin(now, |to| state(to) != State::Silent) {
            Ok(quantum) => {
                let small = std::mem::take(&mut host.uplink.small) as f64;
                let bytes = f64::from(quantum.bytes) * self.scenario.headers + small;
                let until = now + seconds(bytes, self.scenario.uplink);
                host.uplink.busy_until = until;
                self.clock.plan(until, Happening::Out(no));
            }
            Err(Some(ready)) => self.clock.plan(ready, Happening::Ready(no)),
            Err(None) => {}
        }
    }

    /// Handles the end of a quantum on the uplink: delivers it to its receiver and begins the next one.
    pub(super) fn out(&mut self, no: No) {
        let host = self.host(no);
        let Some((quantum, over)) = host.uplink.finish() else { return };
        if !host.is_there() {
            return;
        }
        host.tally.sent += u64::from(quantum.bytes);
        let to = quantum.to;
        let at = self.arrival(no, &quantum);
        self.clock.plan(at, Happening::Answered { leecher: to, source: no, answer: Answer::Data(quantum) });
        if let Some((leecher, request, result)) = over {
            let ended = Answer::Ended(request, result);
            self.clock.plan(at, Happening::Answered { leecher, source: no, answer: ended });
        }
        self.hand_over(no, quantum.call);
        self.feed_uploads();
        self.begin_quantum(no);
    }

    /// Returns the arrival time of the quantum that was just sent. A receiver whose downlink is full slows
    /// down its senders.
    fn arrival(&mut self, from: No, quantum: &super::uplink::Quantum) -> peer_core::Moment {
        let there = self.clock.now() + self.latency(from, quantum.to);
        if self.scenario.downlink <= 0.0 {
            return there;
        }
        let takes = seconds(f64::from(quantum.bytes) * self.scenario.headers, self.scenario.downlink);
        let receiver = self.host(quantum.to);
        let at = receiver.downlink_busy.max(there) + takes;
        receiver.downlink_busy = at;
        let late = at.saturating_sub(there);
        let until = self.clock.now() + late;
        self.host(from).uplink.hold(quantum.call, until);
        at
    }
}

/// The time that this number of bytes takes at a rate in Mbit/s.
fn seconds(bytes: f64, mbit: f64) -> std::time::Duration {
    std::time::Duration::from_secs_f64(bytes * 8e-6 / mbit)
}
