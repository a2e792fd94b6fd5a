//! The QUIC half of an endpoint, with no socket and no clock: datagrams and the time go in, datagrams, events
//! and the next timeout come out.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use noq_proto::{
    ClientConfig, ConnectionHandle, ConnectionId, DatagramEvent, EcnCodepoint, Endpoint,
    EndpointConfig, FourTuple, Incoming, ServerConfig, StreamId, Transmit, TransportConfig, VarInt,
};
use std::net::{IpAddr, SocketAddr};

use crate::admission::{Admission, Verdict};
use crate::budget::Budgets;
use crate::clock::Clock;
use crate::connection::{Connection, Event};
use crate::controller::PathControllers;
use crate::demux::{Protocol, classify};
use crate::moves::{Move, Moves};
use crate::path::Timeouts;
use crate::race::Races;
use crate::route::Routes;
use crate::seeded::Seeded;
use crate::tls::{Credentials, PeerKey, server_name};
use crate::{nat, whereabouts};

/// Transmits that one connection may make before the others have their turn.
const TURN: usize = 32;
/// The largest QUIC datagram we take: noq's `max_udp_payload_size`, which peers are told (RFC 9000 §18.2). A larger
/// one would be kept alive by any part of it that waits to be read.
pub const LARGEST: usize = 1472;
/// Datagrams kept for Python that are not QUIC; more than that is a flood, and dropped.
const STUN_QUEUE: usize = 1024;
/// A client that closes amid the handshake says so in up to three packets (RFC 9000 §10.2.3). noq asks to send the
/// first again until it was given room for all at once.
const CLOSING_SEGMENTS: NonZeroUsize = NonZeroUsize::new(3).expect("not zero");

/// A datagram that is not QUIC, for the layer above.
pub struct Packet {
    pub data: Bytes,
    pub path: FourTuple,
}

/// What the endpoint saw and did not take, since it was made.
#[derive(Clone, Copy, Default)]
pub struct Drops {
    /// Datagrams of no protocol of ours, by their first octet, and larger ones than we take.
    pub other: u64,
    /// STUN datagrams beyond what the layer above fetched in time.
    pub overflow: u64,
}

/// What a connection is to be made to, and how.
pub struct Attempt<'a> {
    pub remote: SocketAddr,
    /// The address to send from, for the system to choose if `None`.
    pub local: Option<IpAddr>,
    /// The key to be proven.
    pub peer: Option<&'a PeerKey>,
    /// With X.509 instead of a key: the name on the certificate.
    pub name: &'a str,
    /// The application protocols to offer, the preferred first.
    pub alpns: Vec<Vec<u8>>,
    /// The race that it is an attempt of.
    pub race: Option<u64>,
    /// The first packet's destination connection id, which the peer sees as `Connection::initial_id`.
    pub initial_id: Option<ConnectionId>,
}

/// Why there is no connection to begin with.
pub enum ConnectError {
    /// Another attempt of the race is a connection already.
    RaceWon,
    Tls(rustls::Error),
    Quic(noq_proto::ConnectError),
}

pub struct Engine {
    endpoint: Endpoint,
    transport: Arc<TransportConfig>,
    credentials: Arc<Credentials>,
    receive_window: u64,
    timeouts: Timeouts,
    /// By noq's connection handle, which is a slab index and comes back into use.
    connections: Vec<Option<Box<Connection>>>,
    made: u64,
    /// Of the handshakes that others begin.
    pub admission: Admission,
    races: Races,
    pub moves: Moves,
    probe_budgets: Budgets,
    move_budgets: Budgets,
    unsettled: VecDeque<ConnectionHandle>,
    /// How often the first of `unsettled` has transmitted in its turn.
    turn: usize,
    deadlines: BTreeSet<(Instant, usize)>,
    responses: VecDeque<(Transmit, Vec<u8>)>,
    packets: VecDeque<Packet>,
    pub routes: Routes,
    events: Vec<(u64, Event)>,
    pub drops: Drops,
    seeded: Option<Seeded>,
}

impl Engine {
    /// `alpns`: what we answer to, the preferred first; with none, nobody can connect to us. `server_transport`: for
    /// the connections that others make to us. `clock`: whose time counts, if not the system's. `seeded`: what to draw
    /// from, if not from the system's randomness.
    #[allow(clippy::too_many_arguments, reason = "an engine is made in one place")]
    pub fn new(
        credentials: Arc<Credentials>,
        alpns: Vec<Vec<u8>>,
        mut transport: TransportConfig,
        mut server_transport: TransportConfig,
        receive_window: u64,
        timeouts: Timeouts,
        clock: Option<Arc<Clock>>,
        seeded: Option<Seeded>,
    ) -> Result<Self, rustls::Error> {
        let controllers = Arc::new(PathControllers::default());
        transport.congestion_controller_factory(controllers.clone());
        server_transport.congestion_controller_factory(controllers);
        let mut config = seeded
            .as_ref()
            .map_or_else(EndpointConfig::default, Seeded::endpoint_config);
        // RFC 9443 §3: a QUIC packet must show the bit, or it could be taken for another protocol.
        config.grease_quic_bit(false);
        let server = if alpns.is_empty() {
            None
        } else {
            let crypto = Arc::new(credentials.server_config(alpns, seeded.as_ref())?);
            let mut server = match &seeded {
                Some(seeded) => ServerConfig::new(crypto, seeded.token_key()),
                None => ServerConfig::with_crypto(crypto),
            };
            if let Some(clock) = clock {
                server.time_source(clock);
            }
            server.transport_config(Arc::new(server_transport));
            Some(Arc::new(server))
        };
        Ok(Self {
            endpoint: Endpoint::new(Arc::new(config), server, true),
            transport: Arc::new(transport),
            credentials,
            receive_window,
            timeouts,
            connections: Vec::new(),
            made: 0,
            admission: Admission::default(),
            races: Races::default(),
            moves: Moves::default(),
            probe_budgets: Budgets::new(nat::BURST, nat::RATE),
            move_budgets: Budgets::new(whereabouts::BURST, whereabouts::RATE),
            unsettled: VecDeque::new(),
            turn: 0,
            deadlines: BTreeSet::new(),
            responses: VecDeque::new(),
            packets: VecDeque::new(),
            routes: Routes::default(),
            events: Vec::new(),
            drops: Drops::default(),
            seeded,
        })
    }

    /// Start a handshake.
    pub fn connect(&mut self, now: Instant, attempt: Attempt<'_>) -> Result<u64, ConnectError> {
        if attempt.race.is_some_and(|race| self.races.is_won(race)) {
            return Err(ConnectError::RaceWon);
        }
        let Attempt { peer, .. } = attempt;
        let moved = self.moves.of(attempt.remote, attempt.local);
        let (remote, local) = moved.map_or((attempt.remote, attempt.local), |moved| {
            (moved.known.0, Some(moved.known.1))
        });
        let name = peer.map_or_else(|| attempt.name.to_owned(), server_name);
        let crypto = self
            .credentials
            .client_config(attempt.alpns, self.seeded.as_ref())
            .map_err(ConnectError::Tls)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        if let Some(initial_id) = attempt.initial_id {
            config.initial_dst_cid_provider(Arc::new(move || initial_id));
        } else if let Some(seeded) = &self.seeded {
            config.initial_dst_cid_provider(seeded.initial_dst_cids());
        }
        let (handle, quic) = self
            .endpoint
            .connect(now, config, remote, &name)
            .map_err(ConnectError::Quic)?;
        let id = self.adopt(handle, quic);
        if let Some(connection) = self.connection(id) {
            connection.first_local = local.map(|local| (remote, local)).into_iter().collect();
            connection.moves = moved.into_iter().collect();
            connection.race = attempt.race;
        }
        if let Some(race) = attempt.race {
            self.races.join(race, id);
        }
        Ok(id)
    }

    fn adopt(&mut self, handle: ConnectionHandle, quic: noq_proto::Connection) -> u64 {
        self.made += 1;
        // The handle finds the connection; the count makes sure that it is still the one that is meant.
        let id = self.made << 32 | handle.0 as u64;
        if self.connections.len() <= handle.0 {
            self.connections.resize_with(handle.0 + 1, || None);
        }
        let connection = Connection::new(id, handle, quic, self.receive_window, self.timeouts);
        self.connections[handle.0] = Some(Box::new(connection));
        self.unsettle(handle);
        id
    }

    /// The connection with this id, if it is still there; it will be settled by the next `poll_transmit`.
    pub fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.find(id)?;
        self.unsettle(handle(id));
        self.find(id)
    }

    pub fn find(&mut self, id: u64) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(handle(id).0)?.as_deref_mut()?;
        (connection.id == id).then_some(connection)
    }

    /// Give up a stream of the connection with this id. Returns whether there is something to tell the peer.
    pub fn release(&mut self, id: u64, stream: StreamId) -> bool {
        let tell = self
            .find(id)
            .is_some_and(|connection| connection.release(stream));
        if tell {
            self.unsettle(handle(id));
        }
        tell
    }

    /// Whether a connection follows this move.
    pub fn follows(&self, moved: Move) -> bool {
        let mut connections = self.connections.iter().flatten();
        connections.any(|connection| connection.moves.contains(&moved))
    }

    pub fn connection_ids(&self) -> Vec<u64> {
        self.connections.iter().flatten().map(|c| c.id).collect()
    }

    fn unsettle(&mut self, handle: ConnectionHandle) {
        if let Some(connection) = self.connections[handle.0].as_mut()
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.unsettled.push_back(handle);
        }
    }

    /// Take in a datagram from the network.
    pub fn receive(
        &mut self,
        now: Instant,
        path: FourTuple,
        ecn: Option<EcnCodepoint>,
        mut data: BytesMut,
    ) {
        match classify(&data, || self.routes.serves(path)) {
            Protocol::ChannelData => {
                if let Some(path) = self.routes.unwrap(path, &mut data) {
                    self.receive_relayed(now, path, ecn, data);
                }
            }
            protocol => self.take(now, protocol, path, ecn, data),
        }
    }

    /// Take in what a peer sent through a relay.
    pub fn receive_relayed(
        &mut self,
        now: Instant,
        path: FourTuple,
        ecn: Option<EcnCodepoint>,
        data: BytesMut,
    ) {
        // Frames are not nested: what looks like another one is QUIC.
        let protocol = classify(&data, || false);
        self.take(now, protocol, path, ecn, data);
    }

    /// Take in bytes of a relay's stream.
    pub fn read_stream(&mut self, now: Instant, host: IpAddr, data: &[u8]) {
        let mut messages = Vec::new();
        self.routes
            .read_stream(host, data, |path, message| messages.push((path, message)));
        for (path, message) in messages {
            self.receive_relayed(now, path, None, message);
        }
    }

    fn take(
        &mut self,
        now: Instant,
        protocol: Protocol,
        path: FourTuple,
        ecn: Option<EcnCodepoint>,
        data: BytesMut,
    ) {
        match protocol {
            Protocol::Quic if data.len() > LARGEST => self.drops.other += 1,
            Protocol::Quic => self.receive_quic(now, path, ecn, data),
            Protocol::Stun if self.packets.len() < STUN_QUEUE => {
                let data = data.freeze();
                self.packets.push_back(Packet { data, path });
            }
            Protocol::Stun => self.drops.overflow += 1,
            Protocol::Other | Protocol::ChannelData => self.drops.other += 1,
        }
    }

    fn receive_quic(
        &mut self,
        now: Instant,
        path: FourTuple,
        ecn: Option<EcnCodepoint>,
        data: BytesMut,
    ) {
        let mut response = Vec::new();
        let moved = self.moves.inward(path);
        let path = moved.map_or(path, |moved| moved.known_path());
        match self.endpoint.handle(now, path, ecn, data, &mut response) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(Some(connection)) = self.connections.get_mut(handle.0) {
                    let budgets = &mut self.move_budgets;
                    if !connection.may_come_from(now, path.remote(), budgets) {
                        return;
                    }
                    if connection.moves.is_empty() {
                        connection.moves.extend(moved);
                    }
                    connection.handle_event(now, event);
                    connection.came_from(now, path.remote(), budgets);
                    self.decide_race(now, handle);
                    self.unsettle(handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.answer(now, incoming, response, moved);
            }
            Some(DatagramEvent::Response(transmit)) => self.respond(transmit, response, moved),
            None => {}
        }
    }

    fn respond(&mut self, mut transmit: Transmit, response: Vec<u8>, moved: Option<Move>) {
        if let Some(moved) = moved {
            moved.outward(&mut transmit);
        }
        self.responses.push_back((transmit, response));
    }

    /// Close the other attempts of a race when this one has just been established. Nothing has been transmitted
    /// since, so neither its Finished nor another's has left.
    fn decide_race(&mut self, now: Instant, handle: ConnectionHandle) {
        let Some(connection) = self.connections[handle.0].as_deref_mut() else {
            return;
        };
        let Some(race) = connection.race.filter(|_| !connection.was_connected) else {
            return;
        };
        connection.collect(now);
        if !connection.was_connected {
            return;
        }
        let winner = connection.id;
        for id in self.races.won(race, winner) {
            if let Some(loser) = self.connection(id) {
                loser.give_way(now);
            }
        }
    }

    fn answer(
        &mut self,
        now: Instant,
        incoming: Incoming,
        mut response: Vec<u8>,
        moved: Option<Move>,
    ) {
        let initial_id = incoming.orig_dst_cid();
        match self
            .admission
            .judge(initial_id, incoming.remote_address_validated())
        {
            Verdict::Accept => {}
            Verdict::Retry => {
                if let Ok(transmit) = self.endpoint.retry(incoming, &mut response) {
                    self.respond(transmit, response, moved);
                }
                return;
            }
            Verdict::Ignore => return self.endpoint.ignore(incoming),
        }
        match self.endpoint.accept(incoming, now, &mut response, None) {
            Ok((handle, quic)) => {
                let id = self.adopt(handle, quic);
                self.admission.begun(initial_id);
                if let Some(connection) = self.find(id) {
                    connection.initial_id = Some(initial_id);
                    connection.moves = moved.into_iter().collect();
                }
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.respond(transmit, response, moved);
                }
            }
        }
    }

    /// When `handle_timeouts` wants to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Whether `poll_transmit` has something to do.
    pub fn has_work(&self) -> bool {
        !self.unsettled.is_empty() || !self.responses.is_empty()
    }

    pub fn handle_timeouts(&mut self, now: Instant) {
        while let Some(&(deadline, index)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(connection) = self.connections[index].as_mut() {
                connection.deadline = None;
                connection.handle_timeout(now);
            }
            self.unsettle(ConnectionHandle(index));
        }
    }

    /// The next datagrams to send, written to `buffer` from its start: as many as `segments` of equal size in
    /// one transmit, or `CLOSING_SEGMENTS` at the end of a connection. `None` once every connection is settled.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        segments: NonZeroUsize,
        buffer: &mut Vec<u8>,
    ) -> Option<Transmit> {
        buffer.clear();
        if let Some((transmit, response)) = self.responses.pop_front() {
            buffer.extend_from_slice(&response);
            return Some(transmit);
        }
        while let Some(&handle) = self.unsettled.front() {
            let Some(connection) = self.connections[handle.0].as_mut() else {
                self.next_turn(false);
                continue;
            };
            if self.turn == 0 {
                connection.collect(now);
                connection.keep_paths(now);
                connection.note_migrations(now);
                connection.recover_lost(now);
                connection.replace_numbers(now);
            }
            let segments = if connection.quic.is_closed() {
                segments.max(CLOSING_SEGMENTS)
            } else {
                segments
            };
            if let Some(mut transmit) = connection.quic.poll_transmit(now, segments, buffer) {
                let first_local = || connection.first_local(transmit.destination);
                transmit.src_ip = transmit.src_ip.or_else(first_local);
                let leaves = connection.may_leave(now, &mut transmit, &mut self.probe_budgets);
                connection.outward(&mut transmit);
                self.turn += 1;
                if self.turn >= TURN {
                    self.next_turn(true);
                }
                if !leaves {
                    buffer.clear();
                    continue;
                }
                return Some(transmit);
            }
            if !self.consult_endpoint(handle) {
                self.settle(now, handle);
                self.next_turn(false);
            }
        }
        None
    }

    /// Carry what a connection has to say to noq's endpoint, and the answers back. Returns whether there were
    /// answers: connection ids, which the connection will want to transmit.
    fn consult_endpoint(&mut self, handle: ConnectionHandle) -> bool {
        let Some(connection) = self.connections[handle.0].as_deref_mut() else {
            return false;
        };
        let mut answered = false;
        while let Some(event) = connection.quic.poll_endpoint_events() {
            connection.drained |= event.is_drained();
            if let Some(answer) = self.endpoint.handle_event(handle, event) {
                connection.quic.handle_event(answer);
                answered = true;
            }
        }
        answered
    }

    fn next_turn(&mut self, again: bool) {
        self.turn = 0;
        if let Some(handle) = self.unsettled.pop_front() {
            if again {
                self.unsettled.push_back(handle);
            } else if let Some(connection) = self.connections[handle.0].as_mut() {
                connection.queued = false;
            }
        }
    }

    /// A connection has nothing more to send: hand on its events, set its timer, forget it if it is drained.
    fn settle(&mut self, now: Instant, handle: ConnectionHandle) {
        let Some(connection) = self.connections[handle.0].as_deref_mut() else {
            return;
        };
        let handshaking = !connection.was_connected && !connection.quic.is_closed();
        let drained = connection.drained;
        connection.collect(now);
        connection.watch_paths(now);
        let id = connection.id;
        let events = connection.take_events();
        self.events
            .extend(events.into_iter().map(|event| (id, event)));
        if !handshaking
            && !std::mem::replace(&mut connection.handshake_over, true)
            && let Some(initial_id) = connection.initial_id
        {
            self.admission.over(initial_id);
        }
        let race = connection.race;
        let has_moved = !connection.moves.is_empty();
        let moves = if drained {
            std::mem::take(&mut connection.moves)
        } else {
            Vec::new()
        };
        let deadline = connection.next_timeout().filter(|_| !drained);
        if deadline != connection.deadline {
            if let Some(old) = connection.deadline {
                self.deadlines.remove(&(old, handle.0));
            }
            if let Some(new) = deadline {
                self.deadlines.insert((new, handle.0));
            }
            connection.deadline = deadline;
        }
        if drained {
            if let Some(race) = race {
                self.races.leave(race, id);
            }
            self.connections[handle.0] = None;
            for moved in moves {
                self.forget_move(moved);
            }
            self.events.push((id, Event::Drained));
        } else if has_moved {
            self.end_moves(id);
        }
    }

    /// Whether something was received that an application tends to answer at once.
    pub fn awaits_answer(&mut self, now: Instant) -> bool {
        for handle in &self.unsettled {
            if let Some(connection) = self.connections[handle.0].as_deref_mut() {
                connection.collect(now);
                let id = connection.id;
                let events = connection.take_events();
                self.events
                    .extend(events.into_iter().map(|event| (id, event)));
            }
        }
        self.events
            .iter()
            .any(|(_, event)| matches!(event, Event::Opened(_) | Event::Readable(_)))
    }

    pub fn take_events(&mut self) -> Vec<(u64, Event)> {
        std::mem::take(&mut self.events)
    }

    pub fn take_packets(&mut self) -> VecDeque<Packet> {
        std::mem::take(&mut self.packets)
    }

    /// Whether there is anything for the layer above to fetch.
    pub fn has_news(&self) -> bool {
        !self.events.is_empty() || !self.packets.is_empty() || self.routes.has_output()
    }

    pub fn close(&mut self, now: Instant, id: u64, code: VarInt, reason: Bytes) {
        if let Some(connection) = self.connection(id) {
            connection.quic.close(now, code, reason);
        }
    }
}

/// noq's handle of the connection with this id.
fn handle(id: u64) -> ConnectionHandle {
    ConnectionHandle((id & u64::from(u32::MAX)) as usize)
}
