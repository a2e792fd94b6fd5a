//! One QUIC connection: noq's state machine, its streams' received bytes, and who waits for what.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use noq_proto::crypto::rustls::HandshakeData;
use noq_proto::{
    ClosedStream, ConnectionError, ConnectionHandle, Dir, Event as QuicEvent, PathId, PathStatus,
    ReadError, ReadableError, SendDatagramError, StreamEvent, StreamId, VarInt, WriteError,
};
use rustc_hash::FxHashMap;
use rustls::pki_types::CertificateDer;

use crate::path::{PathLoss, Paths};
use crate::reassembly::Reassembly;
use crate::tls::{PeerKey, peer_key};

/// The most that one drain brings: a full batch of GRO buffers, of which there are 32.
const RESERVE: u64 = 2 << 20;

fn reserve(window: u64) -> u64 {
    RESERVE.min(window / 2)
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
    /// The peer has everything up to our end of the stream.
    Finished(StreamId),
    Stopped(StreamId, VarInt),
    StreamsAvailable(Dir),
    DatagramReceived,
    DatagramsUnblocked,
    /// A path to this address can carry data.
    PathOpened(PathId, SocketAddr),
    PathLost(PathId, PathLoss),
    /// What the peer wants the path to be to it.
    PathStatus(PathId, PathStatus),
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
    pub paths: Paths,
    /// To this address, where to send from until noq has learnt it from the peer's answers.
    pub first_local: Option<(SocketAddr, IpAddr)>,
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
        path_idle_timeout: Duration,
    ) -> Self {
        let mut connection = Self {
            id,
            handle,
            quic,
            receivers: FxHashMap::default(),
            events: Vec::new(),
            unread: 0,
            receive_window,
            announced_window: receive_window,
            datagram_reader_waits: false,
            deadline: None,
            queued: false,
            was_connected: false,
            race: None,
            paths: Paths::new(path_idle_timeout),
            first_local: None,
            handshake_over: false,
            drained: false,
        };
        connection.announce_window();
        connection
    }

    /// Take over what noq has to tell, and every byte it has received.
    pub fn collect(&mut self) {
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
                    let event = self.on_path_event(event);
                    self.events.extend(event);
                }
                QuicEvent::HandshakeDataReady
                | QuicEvent::HandshakeConfirmed
                | QuicEvent::NatTraversal(_) => {}
            }
        }
    }

    fn collect_stream(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Opened { dir } => {
                while let Some(id) = self.quic.streams().accept(dir) {
                    self.receivers.insert(id, Receiver::default());
                    self.events.push(Event::Opened(id));
                    self.drain(id);
                }
            }
            StreamEvent::Readable { id } => self.drain(id),
            StreamEvent::Writable { id } => self.events.push(Event::Writable(id)),
            StreamEvent::Finished { id } => self.events.push(Event::Finished(id)),
            StreamEvent::Stopped { id, error_code } => {
                self.events.push(Event::Stopped(id, error_code));
            }
            StreamEvent::Available { dir } => self.events.push(Event::StreamsAvailable(dir)),
        }
    }

    /// Move what noq has of a stream into its reassembly buffer.
    fn drain(&mut self, id: StreamId) {
        let Some(receiver) = self.receivers.get_mut(&id) else {
            return;
        };
        if receiver.end.is_some() {
            return;
        }
        let mut stream = self.quic.recv_stream(id);
        match stream.read(false) {
            Ok(mut chunks) => {
                loop {
                    match chunks.next(usize::MAX) {
                        Ok(Some(chunk)) => {
                            self.unread += chunk.bytes.len() as u64;
                            receiver.reassembly.insert(chunk.offset, chunk.bytes);
                        }
                        Ok(None) => receiver.end = Some(Ok(())),
                        Err(ReadError::Reset(code)) => {
                            // RFC 9000 §3.2: a reset may discard what was received and not read.
                            self.unread -= receiver.reassembly.discard();
                            receiver.end = Some(Err(code));
                        }
                        Err(ReadError::Blocked) => break,
                    }
                    if receiver.end.is_some() {
                        break;
                    }
                }
                // What it would tell us to transmit goes out when the connection is settled.
                let _ = chunks.finalize();
            }
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => return,
        }
        let something = receiver.reassembly.available() > 0 || receiver.end.is_some();
        if something && std::mem::take(&mut receiver.reader_waits) {
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

    /// How many bytes `read` has for this stream now.
    pub fn available(&self, id: StreamId) -> usize {
        self.receivers
            .get(&id)
            .map_or(0, |receiver| receiver.reassembly.available())
    }

    /// Fill `out` from the stream; `Read::Bytes` holds how many bytes were written to it.
    pub fn read(&mut self, id: StreamId, out: &mut [u8]) -> Read {
        let Some(receiver) = self.receivers.get_mut(&id) else {
            return Read::Closed;
        };
        let count = receiver.reassembly.read(out);
        if count > 0 {
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
        self.unread -= receiver.reassembly.discard();
        self.announce_window();
        if receiver.end.is_some() {
            return Ok(());
        }
        self.quic.recv_stream(id).stop(code)
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
        let timeouts = [self.quic.poll_timeout(), self.paths.next_ping()];
        timeouts.into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.quic.handle_timeout(now);
        self.keep_paths(now);
    }

    /// The round-trip time of the first path.
    pub fn rtt(&self) -> Option<Duration> {
        self.quic.rtt(PathId::ZERO)
    }
}
