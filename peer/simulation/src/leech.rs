//! A leecher: carries out the actions of its state machine, and feeds it the answers of the sources.

use domain::{Bitfield, PieceIndex};
use peer_core::announce::Held;
use peer_core::download::{Action, Download, DownloadRequestId, Event, Options};
use rand::RngExt as _;

use super::{
    No,
    host::Leech,
    uplink::Quantum,
    world::{Answer, Call, ChunkRequest, Happening, START, World},
};

/// Bytes of a request without its list of pieces. Most of them are the ticket.
const REQUEST: u64 = 600;
/// Approximate bytes of one piece index in a request.
const PIECE: u64 = 2;

impl World {
    pub(super) fn leech(&mut self) -> Leech {
        let nothing = Bitfield::empty(self.layout);
        let (picker, seed) = (self.scenario.picker(), self.rng.random());
        Leech {
            machine: Download::with_picker(self.layout, nothing, Options::default(), picker, seed),
            tick: None,
            links: Default::default(),
            connections: 0,
            requests: Default::default(),
            parts: Default::default(),
            begun: START,
            halfway: None,
            finished: None,
            reading: None,
        }
    }

    /// Feeds an event to the state machine and carries out the resulting actions.
    pub(super) fn feed(&mut self, no: No, event: Event) {
        let now = self.clock.now();
        let mut actions = std::mem::take(&mut self.download_actions);
        if let Some(leech) = &mut self.hosts[no as usize].leech {
            leech.machine.handle(now, event, &mut actions);
        }
        for action in actions.drain(..) {
            self.carry_out(no, action);
        }
        self.download_actions = actions;
        self.plan_download_tick(no);
    }

    fn plan_download_tick(&mut self, no: No) {
        let Some(leech) = &mut self.hosts[no as usize].leech else { return };
        let Some(due) = leech.machine.next_wakeup() else { return };
        if leech.tick.is_none_or(|tick| due < tick) {
            leech.tick = Some(due);
            self.clock.plan(due, Happening::DownloadDue(no));
        }
    }

    pub(super) fn download_due(&mut self, no: No) {
        let now = self.clock.now();
        let host = &mut self.hosts[no as usize];
        let there = host.is_there();
        let Some(leech) = &mut host.leech else { return };
        if leech.tick.is_none_or(|tick| tick > now) {
            return;
        }
        leech.tick = None;
        if there && leech.machine.next_wakeup().is_some_and(|due| due <= now) {
            self.feed(no, Event::Tick);
        } else if there {
            self.plan_download_tick(no);
        }
    }

    fn carry_out(&mut self, no: No, action: Action) {
        let Some(leech) = &mut self.hosts[no as usize].leech else { return };
        match action {
            Action::Connect(peer) => {
                let source = self.numbers[&peer];
                leech.connections += 1;
                let connection = leech.connections;
                leech.links.insert(source, connection);
                self.call(no, source, 0, Call::Connect(connection));
            }
            Action::Request { source, request, pieces, max_pieces, in_order, urgent } => {
                let source = self.numbers[&source];
                leech.requests.insert(request, source);
                self.requests += 1;
                let bytes = REQUEST + PIECE * pieces.len() as u64;
                let ask = ChunkRequest { request, pieces, max_pieces, in_order, urgent };
                self.call(no, source, bytes, Call::Request(ask));
            }
            Action::Cancel(request) => {
                if let Some(source) = leech.requests.remove(&request) {
                    self.drop_part(no, request);
                    self.call(no, source, 0, Call::Cancel(request));
                }
            }
            Action::Disconnect(peer) => {
                let source = self.numbers[&peer];
                if let Some(connection) = self.unlink(no, source) {
                    self.call(no, source, 0, Call::Close(connection));
                }
            }
            Action::Complete => self.complete(no),
        }
    }

    /// Removes the connection to a source and all requests on it. Returns the number of the connection.
    fn unlink(&mut self, no: No, source: No) -> Option<u64> {
        let leech = self.hosts[no as usize].leech.as_mut()?;
        let over = leech.requests.extract_if(.., |_, of| *of == source);
        let over: Vec<_> = over.map(|(request, _)| request).collect();
        let connection = leech.links.remove(&source);
        over.into_iter().for_each(|request| self.drop_part(no, request));
        connection
    }

    fn complete(&mut self, no: No) {
        let now = self.clock.now();
        let Some(leech) = &mut self.hosts[no as usize].leech else { return };
        leech.finished = Some(now);
        leech.requests.clear();
        let parts: Vec<_> = leech.parts.keys().copied().collect();
        parts.into_iter().for_each(|request| self.drop_part(no, request));
        let Some(leech) = &mut self.hosts[no as usize].leech else { return };
        let links = std::mem::take(&mut leech.links);
        self.left -= 1;
        for (source, connection) in links {
            self.call(no, source, 0, Call::Close(connection));
        }
        self.report_all(no);
    }

    /// Handles a source's message when it reaches the leecher.
    pub(super) fn answered(&mut self, no: No, source: No, answer: Answer) {
        let peer = self.hosts[source as usize].id;
        let host = &mut self.hosts[no as usize];
        if !host.is_there() {
            return;
        }
        let Some(leech) = &mut host.leech else { return };
        let linked = |connection| leech.links.get(&source) == Some(&connection);
        match answer {
            Answer::Connected(connection, has) if linked(connection) => {
                self.feed(no, Event::Connected(peer, has));
            }
            Answer::Gained(connection, piece) if linked(connection) => {
                self.feed(no, Event::Gained(peer, vec![piece]));
            }
            Answer::Disconnected(connection, failure) if linked(connection) => {
                self.unlink(no, source);
                self.feed(no, Event::Disconnected(peer, failure));
            }
            Answer::Connected(..) | Answer::Gained(..) | Answer::Disconnected(..) => {}
            Answer::Queued(request, place) => {
                if leech.requests.contains_key(&request) {
                    self.feed(no, Event::Queued(request, place));
                }
            }
            Answer::Ended(request, result) => {
                if leech.requests.remove(&request).is_some() {
                    self.drop_part(no, request);
                    self.feed(no, Event::Ended(request, result));
                }
            }
            Answer::Data(quantum) => self.data(no, source, quantum),
        }
    }

    fn data(&mut self, no: No, source: No, quantum: Quantum) {
        let lies = self.hosts[source as usize].lies;
        self.host(no).tally.received += u64::from(quantum.bytes);
        let Quantum { request, piece, bytes, .. } = quantum;
        if quantum.first && self.wants(no, request) {
            self.feed(no, Event::Started(request, piece));
        }
        // The state machine may have cancelled the request in response to `Started`.
        if !self.wants(no, request) {
            self.count_twice(no, u64::from(bytes));
            return;
        }
        if let Some(leech) = &mut self.host(no).leech {
            leech.parts.entry(request).or_insert((piece, 0)).1 += u64::from(bytes);
            if quantum.last {
                leech.parts.remove(&request);
            }
        }
        self.feed(no, Event::Received(request, bytes));
        self.note_halfway(no);
        let read = quantum.last && !lies && self.is_reader(no);
        if quantum.last && lies {
            self.feed(no, Event::Bad(request, piece));
        } else if quantum.last {
            self.gain(no, piece);
            self.feed(no, Event::Verified(request, piece));
        }
        if read {
            self.read_on(no);
        }
    }

    /// Forgets the partly received piece of a request that ends. Its bytes count as received twice if the
    /// piece is verified or another request is on it.
    fn drop_part(&mut self, no: No, request: DownloadRequestId) {
        let host = &mut self.hosts[no as usize];
        let Some(leech) = &mut host.leech else { return };
        let Some((piece, bytes)) = leech.parts.remove(&request) else { return };
        if host.have.contains(piece) || leech.parts.values().any(|(other, _)| *other == piece) {
            self.count_twice(no, bytes);
        }
    }

    /// Counts bytes of a piece that has come, or is to come, from another source.
    fn count_twice(&mut self, no: No, bytes: u64) {
        let host = &mut self.hosts[no as usize];
        let Some(leech) = &host.leech else { return };
        let endgame = leech.machine.is_endgame();
        *if endgame { &mut host.tally.raced } else { &mut host.tally.twice } += bytes;
    }

    /// Records the leecher's estimate of the time left when it first has half of the file.
    fn note_halfway(&mut self, no: No) {
        let (now, half) = (self.clock.now(), self.layout.length() / 2);
        let Some(leech) = &mut self.host(no).leech else { return };
        if leech.halfway.is_none() && leech.machine.done_bytes() >= half {
            leech.halfway = Some((now, leech.machine.eta(now).unwrap_or_default()));
        }
    }

    fn wants(&self, no: No, request: DownloadRequestId) -> bool {
        let leech = self.hosts[no as usize].leech.as_ref();
        leech.is_some_and(|leech| leech.requests.contains_key(&request))
    }

    /// Adds a verified piece, reports it to the leechers that are connected, and announces it.
    fn gain(&mut self, no: No, piece: PieceIndex) {
        let length = self.layout.piece_length(piece);
        let host = self.host(no);
        host.gain(piece, length);
        let watchers: Vec<_> =
            host.watchers.iter().map(|(leecher, connection)| (*leecher, *connection)).collect();
        for (leecher, connection) in watchers {
            self.answer(no, leecher, 4, Answer::Gained(connection, piece));
        }
        self.report(no, Held::Gained(vec![piece]));
        self.drain();
    }
}
