//! One QUIC connection: noq's state machine, its streams' received bytes, and who waits for what.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use noq_proto::crypto::rustls::HandshakeData;
use noq_proto::n0_nat_traversal::Event as NatEvent;
use noq_proto::{
    ClosedStream, ConnectionError, ConnectionEvent, ConnectionHandle, ConnectionId, Dir,
    Event as QuicEvent, PathId, PathStatus, ReadError, SendDatagramError, StreamEvent, StreamId,
    TransportError, TransportErrorCode, VarInt, WriteError,
};
use rustc_hash::FxHashMap;
use rustls::pki_types::CertificateDer;

use crate::moves::{Ends, Move};
use crate::nat::Probes;
use crate::path::{PathLoss, Paths, Timeouts};
use crate::reassembly::Reassembly;
use crate::tls::{PeerKey, peer_key};
use crate::whereabouts::Whereabouts;

/// Chunks of a stream that noq may hold: it takes 2048, and what comes before the next `collect` must fit as well.
///
/// Since noq grants the peer anew what is taken out of it, this is also how much of a stream's window is kept
/// when nobody reads the stream: a window of more than so many packets gives way to the connection's.
const LEFT_IN_NOQ: usize = 1024;
/// The most that one drain brings: `LEFT_IN_NOQ` packets and those of a batch.
const RESERVE: u64 = 2 << 20;
/// Datagrams after which to collect, though more of the batch are there.
const BATCH: usize = 256;
/// The gaps that the received bytes of a connection may have at least, and one more for so many bytes of its
/// window. Twice what a window full of packets has of which every other is lost, and a bound on the memory and
/// the time (noq looks at all gaps of a stream for each frame) that a peer can take with tiny frames.
const GAPS: usize = 1024;

fn reserve(window: u64) -> u64 {
    RESERVE.min(window / 2)
}

fn most_gaps(window: u64) -> usize {
    GAPS + usize::try_from(window).unwrap_or(usize::MAX) / 1024
}

fn too_many_gaps() -> TransportError {
    let reason = "too many gaps in what was received on the streams";
    TransportError::new(TransportErrorCode::INTERNAL_ERROR, reason.into())
}

/// What the layer above must know of a connection.
#[derive(Debug)]
pub enum Event {
    Connected,
    /// The connection is over, and not by a call of `close`.
    Lost(ConnectionError),
    /// Another attempt of the same race was faster.
    Outraced,
    Opened(StreamId),
    /// A stream on which a read found nothing has something now: bytes, the end, or a reset.
    Readable(StreamId),
    Writable(StreamId),
    Stopped(StreamId, VarInt),
    StreamsAvailable(Dir),
    DatagramReceived,
    DatagramsUnblocked,
    /// A path to this address can carry data.
    PathOpened(PathId, SocketAddr),
    PathLost(PathId, PathLoss),
    /// What the peer wants the path to be to it.
    PathStatus(PathId, PathStatus),
    /// The server has named an address for NAT traversal, or taken it back.
    AddressAdded(SocketAddr),
    AddressRemoved(SocketAddr),
    /// The last trace of the connection is gone; its id means nothing any more.
    Drained,
}

/// The answer to a read.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Bytes(usize),
    /// Nothing yet: `Event::Readable` will tell.
    Blocked,
    /// The end: everything before it has been read.
    Finished,
    /// The peer reset the stream, with this code.
    Reset(VarInt),
    /// We stopped reading, or the stream does not exist.
    Closed,
}

/// Our receiving half of a stream.
#[derive(Default)]
struct Receiver {
    reassembly: Reassembly,
    /// At most so many chunks are in noq.
    left: usize,
    /// How it ended, once noq has handed over everything.
    end: Option<Result<(), VarInt>>,
    reader_waits: bool,
}

pub struct Connection {
    pub id: u64,
    pub handle: ConnectionHandle,
    pub quic: noq_proto::Connection,
    receivers: FxHashMap<StreamId, Receiver>,
    events: Vec<Event>,
    /// Bytes in all `receivers`, received and not read.
    unread: u64,
    /// Gaps in all `receivers`.
    gaps: usize,
    /// Datagrams since the last `collect`.
    uncollected: usize,
    receive_window: u64,
    /// The window last given to noq.
    announced_window: u64,
    datagram_reader_waits: bool,
    pub deadline: Option<Instant>,
    /// In the engine's queue of connections to settle.
    pub queued: bool,
    pub was_connected: bool,
    /// The race that it is an attempt of.
    pub race: Option<u64>,
    /// Of an accepted one: what the client chose as its first packet's destination connection id.
    pub initial_id: Option<ConnectionId>,
    pub paths: Paths,
    pub probes: Probes,
    pub whereabouts: Whereabouts,
    /// To these addresses, where to send from until noq has learnt it from the peer's answers.
    pub first_local: Vec<Ends>,
    /// Its paths that are elsewhere than noq knows. Of a client at most one, where it is and then where it was before.
    pub moves: Vec<Move>,
    /// No longer counted among the handshakes under way.
    pub handshake_over: bool,
    pub drained: bool,
}

impl Connection {
    pub fn new(
        id: u64,
        handle: ConnectionHandle,
        quic: noq_proto::Connection,
        receive_window: u64,
        timeouts: Timeouts,
    ) -> Self {
        let mut connection = Self {
            id,
            handle,
            quic,
            receivers: FxHashMap::default(),
            events: Vec::new(),
            unread: 0,
            gaps: 0,
            uncollected: 0,
            receive_window,
            announced_window: receive_window,
            datagram_reader_waits: false,
            deadline: None,
            queued: false,
            was_connected: false,
            race: None,
            initial_id: None,
            paths: Paths::new(timeouts),
            probes: Probes::default(),
            whereabouts: Whereabouts::default(),
            first_local: Vec::new(),
            moves: Vec::new(),
            handshake_over: false,
            drained: false,
        };
        connection.announce_window();
        connection
    }

    /// Take in what noq's endpoint has for this connection, such as a datagram.
    pub fn handle_event(&mut self, now: Instant, event: ConnectionEvent) {
        self.quic.handle_event(event);
        self.uncollected += 1;
        if self.uncollected == BATCH {
            self.collect(now);
        }
    }

    /// Take over what noq has to tell, and those received bytes that it can't keep or somebody waits for.
    pub fn collect(&mut self, now: Instant) {
        self.uncollected = 0;
        while let Some(event) = self.quic.poll() {
            match event {
                QuicEvent::Connected => {
                    self.was_connected = true;
                    self.events.push(Event::Connected);
                }
                QuicEvent::ConnectionLost { reason } => self.events.push(Event::Lost(reason)),
                QuicEvent::Stream(event) => self.collect_stream(event),
                QuicEvent::DatagramReceived => {
                    if std::mem::take(&mut self.datagram_reader_waits) {
                        self.events.push(Event::DatagramReceived);
                    }
                }
                QuicEvent::DatagramsUnblocked => self.events.push(Event::DatagramsUnblocked),
                QuicEvent::Path(event) => {
                    let event = self.on_path_event(now, event);
                    self.events.extend(event);
                }
                QuicEvent::NatTraversal(NatEvent::AddressAdded(address)) => {
                    self.events.push(Event::AddressAdded(address));
                }
                QuicEvent::NatTraversal(NatEvent::AddressRemoved(address)) => {
                    self.events.push(Event::AddressRemoved(address));
                }
                QuicEvent::HandshakeDataReady | QuicEvent::HandshakeConfirmed => {}
            }
        }
        if self.gaps > most_gaps(self.receive_window) && !self.quic.is_closed() {
            self.fail(now, too_many_gaps());
        }
    }

    /// End the connection for a fault of the peer that noq does not see.
    fn fail(&mut self, now: Instant, error: TransportError) {
        // noq sends only an application's close for its caller (RFC 9000 §19.19); the code is the transport's.
        let reason = Bytes::from(error.reason.clone());
        let code = VarInt::from_u64(error.code.into()).unwrap_or_default();
        self.quic.close(now, code, reason);
        self.receivers.clear();
        self.unread = 0;
        self.gaps = 0;
        let error = ConnectionError::TransportError(error);
        self.events.push(Event::Lost(error));
    }

    fn collect_stream(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Opened { dir } => {
                while let Some(id) = self.quic.streams().accept(dir) {
                    self.receivers.insert(id, Receiver::default());
                    self.events.push(Event::Opened(id));
                    self.arrived(id);
                }
            }
            StreamEvent::Readable { id } => self.arrived(id),
            StreamEvent::Writable { id } => self.events.push(Event::Writable(id)),
            // Nobody waits for the peer to have all of a stream; as an event it would cost each request.
            StreamEvent::Finished { .. } => {}
            StreamEvent::Stopped { id, error_code } => {
                self.events.push(Event::Stopped(id, error_code));
            }
            StreamEvent::Available { dir } => self.events.push(Event::StreamsAvailable(dir)),
        }
    }

    /// noq has a chunk more of a stream, or its end.
    fn arrived(&mut self, id: StreamId) {
        let Some(receiver) = self.receivers.get_mut(&id) else {
            return;
        };
        receiver.left += 1;
        if receiver.left >= LEFT_IN_NOQ {
            self.drain(id, usize::MAX);
        } else if receiver.reader_waits {
            self.drain(id, 1);
        } else if receiver.end.is_none()
            && let Ok(Some(code)) = self.quic.recv_stream(id).received_reset()
        {
            self.end(id, Err(code));
        }
    }

    /// Move bytes of a stream from noq into its reassembly buffer until `wanted` of them can be read.
    ///
    /// No more than that, for noq grants the peer anew whatever is taken out of it (RFC 9000 §4.1 has a stream's
    /// limit move with what the application reads).
    fn drain(&mut self, id: StreamId, wanted: usize) {
        let Some(receiver) = self.receivers.get_mut(&id) else {
            return;
        };
        if receiver.end.is_some() || receiver.reassembly.available() >= wanted {
            return;
        }
        let mut end = None;
        let gaps = receiver.reassembly.gaps();
        let mut stream = self.quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(false) else {
            return;
        };
        while receiver.reassembly.available() < wanted {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    receiver.left = receiver.left.saturating_sub(1);
                    self.unread += chunk.bytes.len() as u64;
                    let in_order = receiver.reassembly.insert(chunk.offset, chunk.bytes);
                    // Chunks come by offset: no later one fills the gap before this one.
                    if !in_order && wanted < usize::MAX {
                        break;
                    }
                }
                Ok(None) => end = Some(Ok(())),
                Err(ReadError::Reset(code)) => end = Some(Err(code)),
                Err(ReadError::Blocked) => {
                    receiver.left = 0;
                    break;
                }
            }
            if end.is_some() {
                break;
            }
        }
        // What it would tell us to transmit goes out when the connection is settled.
        let _ = chunks.finalize();
        self.gaps = self.gaps - gaps + receiver.reassembly.gaps();
        if let Some(end) = end {
            return self.end(id, end);
        }
        if receiver.reassembly.available() > 0 && std::mem::take(&mut receiver.reader_waits) {
            self.events.push(Event::Readable(id));
        }
        self.announce_window();
    }

    /// Nothing more comes on this stream.
    fn end(&mut self, id: StreamId, end: Result<(), VarInt>) {
        let Some(receiver) = self.receivers.get_mut(&id) else {
            return;
        };
        if end.is_err() {
            // RFC 9000 §3.2: a reset may discard what was received and not read.
            self.gaps -= receiver.reassembly.gaps();
            self.unread -= receiver.reassembly.discard();
        }
        receiver.end = Some(end);
        if std::mem::take(&mut receiver.reader_waits) {
            self.events.push(Event::Readable(id));
        }
        self.announce_window();
    }

    /// Let noq grant the peer what our receive window leaves after the bytes nobody has read yet.
    ///
    /// noq grants anew whatever is drained from it, except that a window made smaller is first worked off. So the
    /// window shrinks at once with what waits unread, and `RESERVE` in advance, for what one drain may bring: the
    /// grant never runs ahead, and the peer comes to a stand when the window is full.
    fn announce_window(&mut self) {
        let window = self
            .receive_window
            .saturating_sub(self.unread + reserve(self.receive_window));
        // Growth costs a MAX_DATA frame each time, so it goes in steps.
        let grows = window >= self.announced_window + self.receive_window / 8;
        if window < self.announced_window || grows {
            self.announced_window = window;
            self.quic
                .set_receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX));
        }
    }

    /// The address to send from to `remote`, which noq does not know yet.
    pub fn first_local(&self, remote: SocketAddr) -> Option<IpAddr> {
        let (_, local) = self.first_local.iter().find(|(to, _)| *to == remote)?;
        // Once it does, whatever names no address is something else, such as a probe.
        let unknown = self.quic.paths().into_iter().any(|path| {
            let path = self.quic.network_path(path);
            path.is_ok_and(|path| path.remote() == remote && path.local_ip().is_none())
        });
        unknown.then_some(*local)
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The peer's key, once its raw public key is proven; `None` with X.509 or before that.
    pub fn peer(&self) -> Option<PeerKey> {
        let identity = self.quic.crypto_session().peer_identity()?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        peer_key(chain.first()?)
    }

    pub fn alpn(&self) -> Option<Vec<u8>> {
        let data = self.quic.crypto_session().handshake_data()?;
        data.downcast::<HandshakeData>().ok()?.protocol
    }

    pub fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let id = self.quic.streams().open(dir)?;
        if dir == Dir::Bi {
            self.receivers.insert(id, Receiver::default());
        }
        Some(id)
    }

    /// Whether we may send on this stream: noq takes an id of the wrong kind for a bug and panics.
    fn sends(&self, id: StreamId) -> bool {
        id.dir() == Dir::Bi || id.initiator() == self.quic.side()
    }

    /// How many of `wanted` bytes `read` has for this stream now.
    pub fn available(&mut self, id: StreamId, wanted: usize) -> usize {
        self.drain(id, wanted);
        self.receivers
            .get(&id)
            .map_or(0, |receiver| receiver.reassembly.available().min(wanted))
    }

    /// Fill `out` from the stream; `Read::Bytes` holds how many bytes were written to it.
    pub fn read(&mut self, id: StreamId, out: &mut [u8]) -> Read {
        self.drain(id, out.len().max(1));
        let Some(receiver) = self.receivers.get_mut(&id) else {
            return Read::Closed;
        };
        if receiver.reassembly.available() > 0 {
            let count = receiver.reassembly.read(out);
            self.unread -= count as u64;
            self.announce_window();
            return Read::Bytes(count);
        }
        match receiver.end {
            None => {
                receiver.reader_waits = true;
                Read::Blocked
            }
            Some(end) => {
                self.receivers.remove(&id);
                end.map_or_else(Read::Reset, |()| Read::Finished)
            }
        }
    }

    /// Ask the peer to send no more on this stream (STOP_SENDING), and drop what it sent.
    pub fn stop(&mut self, id: StreamId, code: VarInt) -> Result<(), ClosedStream> {
        let Some(mut receiver) = self.receivers.remove(&id) else {
            return Ok(());
        };
        self.gaps -= receiver.reassembly.gaps();
        self.unread -= receiver.reassembly.discard();
        self.announce_window();
        if receiver.end.is_some() {
            return Ok(());
        }
        self.quic.recv_stream(id).stop(code)
    }

    /// Give a stream up that nobody can read or write any more: what was written counts as all, what comes is not
    /// wanted. Returns whether there is something to tell the peer.
    pub fn release(&mut self, id: StreamId) -> bool {
        let granted = self.announced_window;
        let reading = self
            .receivers
            .get(&id)
            .is_some_and(|receiver| receiver.end.is_none());
        let stopped = self.stop(id, VarInt::from_u32(0)).is_ok() && reading;
        let finished = self.finish(id).is_ok();
        stopped || finished || self.announced_window > granted
    }

    /// Take as much of `data` as fits; `Event::Writable` follows when it was not all of it.
    pub fn write(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        if !self.sends(id) {
            return Err(WriteError::ClosedStream);
        }
        let mut written = 0;
        while written < data.len() {
            match self.quic.send_stream(id).write(&data[written..]) {
                Ok(count) => written += count,
                Err(WriteError::Blocked) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    pub fn finish(&mut self, id: StreamId) -> Result<(), noq_proto::FinishError> {
        if !self.sends(id) {
            return Err(noq_proto::FinishError::ClosedStream);
        }
        self.quic.send_stream(id).finish()
    }

    pub fn reset(&mut self, id: StreamId, code: VarInt) -> Result<(), ClosedStream> {
        if !self.sends(id) {
            return Ok(());
        }
        self.quic.send_stream(id).reset(code)
    }

    pub fn priority(&mut self, id: StreamId) -> Result<i32, ClosedStream> {
        if !self.sends(id) {
            return Ok(0);
        }
        self.quic.send_stream(id).priority()
    }

    pub fn set_priority(&mut self, id: StreamId, priority: i32) -> Result<(), ClosedStream> {
        if !self.sends(id) {
            return Ok(());
        }
        self.quic.send_stream(id).set_priority(priority)
    }

    pub fn send_datagram(&mut self, data: &[u8]) -> Result<(), SendDatagramError> {
        self.quic
            .datagrams()
            .send(Bytes::copy_from_slice(data), false)
    }

    pub fn max_datagram_size(&mut self) -> Option<usize> {
        self.quic.datagrams().max_size()
    }

    pub fn receive_datagram(&mut self) -> Option<Bytes> {
        let datagram = self.quic.datagrams().recv();
        self.datagram_reader_waits = datagram.is_none();
        datagram
    }

    pub fn close(&mut self, now: Instant, code: VarInt, reason: Bytes) {
        self.quic.close(now, code, reason);
    }

    /// Give up: another attempt of the same race has won.
    pub fn give_way(&mut self, now: Instant) {
        if !self.quic.is_closed() {
            self.quic.close(now, VarInt::from_u32(0), Bytes::new());
            self.events.push(Event::Outraced);
        }
    }

    /// When it wants to be called next; a time gone by counts as now.
    pub fn next_timeout(&self) -> Option<Instant> {
        let timeouts = [
            self.quic.poll_timeout(),
            self.paths.watch.next_look(),
            self.paths.recovery.next_step(),
        ];
        timeouts.into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.quic.handle_timeout(now);
    }

    /// The round-trip time of the first path.
    pub fn rtt(&self) -> Option<Duration> {
        self.quic.rtt(PathId::ZERO)
    }
}
