//! The engine on real sockets and the real clock, shared by the event loop and the guardian.
//!
//! All state is behind one mutex. The event loop calls `pump` when a socket is readable, a timer is due or the
//! application did something. While the loop is held up by the application, the guardian, a thread that needs
//! no GIL, pumps in its stead: acknowledgements, loss recovery and keep-alive go on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use noq_proto::{FourTuple, Transmit};

use crate::clock::Clock;
use crate::engine::Engine;
use crate::guardian::{Signal, readable};
use crate::route::is_synthetic;
use crate::udp::{ReceiveBuffer, Socket};

/// How long one pump may take before it lets the event loop look elsewhere.
const BUDGET: Duration = Duration::from_micros(1500);
/// RFC 6335 §6: where a port comes from in memory when the caller names none.
const EPHEMERAL_PORTS: RangeInclusive<u16> = 49152..=65535;

/// Where datagrams come from and go to, and what time it is.
enum World {
    Sockets {
        sockets: Vec<Socket>,
        buffer: ReceiveBuffer,
        /// A transmit that found its socket's buffer full.
        held: Option<Transmit>,
    },
    /// Datagrams go in and out by call, on the caller's clock.
    Memory {
        outgoing: Vec<(Vec<u8>, Option<IpAddr>, SocketAddr)>,
        clock: Arc<Clock>,
        addresses: Vec<SocketAddr>,
    },
}

/// A timer that is so much too late was not missed by this process, which the guardian sees to, but with it: it was
/// stopped, or the machine slept.
const STOPPED: Duration = Duration::from_secs(1);

pub struct State {
    pub engine: Engine,
    world: World,
    /// For how long this process was stopped in all. To the engine no time passes then: an answer that comes after it
    /// would be taken for one that was so long on its way.
    stopped: Duration,
    outgoing: Vec<u8>,
    closed: bool,
}

/// How a pump left things.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// There is more to do at once.
    pub more: bool,
    /// A socket's buffer is full: pump again when it is writable.
    pub blocked: bool,
    /// Nothing was sent, so that acknowledgements can leave with the application's answers.
    pub held: bool,
    pub next_timeout: Option<Instant>,
}

pub struct Driver {
    state: Mutex<State>,
    /// Where times given as seconds count from.
    pub epoch: Instant,
    /// When the event loop last pumped, in nanoseconds since `epoch`.
    pumped: AtomicU64,
    /// Until when the guardian sleeps unless a datagram comes, likewise.
    pub guardian_until: AtomicU64,
    /// Wakes the guardian.
    pub alarm: Signal,
    /// Wakes the event loop.
    pub news: Signal,
    pub stop: AtomicBool,
}

impl Driver {
    /// `clock`: the caller's, if datagrams go in and out by call and not through sockets.
    pub fn new(engine: Engine, clock: Option<Arc<Clock>>) -> io::Result<Self> {
        let epoch = clock
            .as_ref()
            .map_or_else(Instant::now, |clock| clock.now());
        let world = match clock {
            None => World::Sockets {
                sockets: Vec::new(),
                buffer: ReceiveBuffer::new(),
                held: None,
            },
            Some(clock) => World::Memory {
                outgoing: Vec::new(),
                clock,
                addresses: Vec::new(),
            },
        };
        Ok(Self {
            state: Mutex::new(State {
                engine,
                world,
                stopped: Duration::ZERO,
                outgoing: Vec::new(),
                closed: false,
            }),
            epoch,
            pumped: AtomicU64::new(0),
            guardian_until: AtomicU64::new(u64::MAX),
            alarm: Signal::new()?,
            news: Signal::new()?,
            stop: AtomicBool::new(false),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug that has been reported by then; closing must still work.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn nanos(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Pump for the event loop.
    pub fn pump(&self, state: &mut State, receive: bool, hold: bool) -> Progress {
        let progress = state.pump(receive, hold);
        if !progress.held {
            self.pumped
                .store(self.nanos(Instant::now()), Ordering::Relaxed);
        }
        let wanted = progress.next_timeout.map_or(u64::MAX, |t| self.nanos(t));
        if wanted < self.guardian_until.load(Ordering::Relaxed) {
            self.alarm.set();
        }
        progress
    }

    /// Whether something waits to be pumped: a datagram, a timer, or what the application asked for.
    pub fn overdue(&self) -> bool {
        let state = self.lock();
        state.engine.has_work()
            || state
                .next_timeout()
                .is_some_and(|time| time <= Instant::now())
            || readable(state.sockets())
    }

    /// Close the sockets and end the guardian.
    pub fn shut(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.lock().shut();
        self.alarm.set();
    }

    /// When the event loop last pumped.
    pub fn last_pumped(&self) -> u64 {
        self.pumped.load(Ordering::Relaxed)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The guardian finds nobody to guard, and ends.
        self.alarm.set();
    }
}

impl State {
    /// The time as the engine knows it.
    pub fn now(&mut self) -> Instant {
        let clock = self.clock();
        let due = self.next_timeout();
        let late = due.map(|due| clock.saturating_duration_since(due));
        if let Some(late) = late.filter(|late| *late >= STOPPED) {
            self.stopped += late;
        }
        clock - self.stopped
    }

    /// The system's time, or in memory the caller's.
    pub fn clock(&self) -> Instant {
        match &self.world {
            World::Sockets { .. } => Instant::now(),
            World::Memory { clock, .. } => clock.now(),
        }
    }

    /// When the engine next wants to be pumped, on that clock.
    pub fn next_timeout(&self) -> Option<Instant> {
        Some(self.engine.next_timeout()? + self.stopped)
    }

    /// Set the time in memory; it does not go back.
    pub fn set_now(&mut self, time: Instant) {
        if let World::Memory { clock, .. } = &self.world {
            clock.set(time);
        }
    }

    /// Bind a socket, or in memory note an address; returns the socket's descriptor, or -1, and the address.
    pub fn bind(&mut self, local: SocketAddr) -> io::Result<(RawFd, SocketAddr)> {
        if self.closed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        match &mut self.world {
            World::Sockets { sockets, .. } => {
                let socket = Socket::bind(local)?;
                let bound = (socket.fd(), socket.local);
                sockets.push(socket);
                Ok(bound)
            }
            World::Memory { addresses, .. } => {
                let local = free_address(addresses, local)?;
                addresses.push(local);
                Ok((-1, local))
            }
        }
    }

    /// The port of what is bound to the local address `ip`, if known, and speaks with `remote`; 0 for nothing, and for
    /// a relay.
    pub fn local_port(&self, ip: Option<IpAddr>, remote: SocketAddr) -> u16 {
        if ip.is_some_and(is_synthetic) {
            return 0;
        }
        let bound: Vec<SocketAddr> = match &self.world {
            World::Sockets { sockets, .. } => sockets.iter().map(|socket| socket.local).collect(),
            World::Memory { addresses, .. } => addresses.clone(),
        };
        let found = bound_for(&bound, |address| *address, ip, remote);
        found.map_or(0, |index| bound[index].port())
    }

    pub fn sockets(&self) -> &[Socket] {
        match &self.world {
            World::Sockets { sockets, .. } => sockets,
            World::Memory { .. } => &[],
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Close the sockets. Connections that are still open are abandoned without a word to their peers.
    pub fn shut(&mut self) {
        self.closed = true;
        if let World::Sockets { sockets, held, .. } = &mut self.world {
            sockets.clear();
            *held = None;
        }
    }

    /// Receive (if asked to: the caller knows that no socket is readable), handle timeouts and transmit, in turn,
    /// until nothing is left or the time is up. `hold`: leave the transmitting to the next pump when the application
    /// will probably answer what was received.
    pub fn pump(&mut self, receive: bool, hold: bool) -> Progress {
        let start = self.now();
        let mut now = start;
        let mut blocked = false;
        let mut more = false;
        let mut held = false;
        if !self.closed {
            loop {
                let readable = receive && self.receive(now);
                self.engine.handle_timeouts(now);
                if hold && receive && !readable && self.engine.awaits_answer(now) {
                    held = true;
                    more = true;
                    break;
                }
                blocked = self.transmit(now);
                if !readable && (blocked || !self.engine.has_work()) {
                    break;
                }
                now = self.now();
                if now - start >= BUDGET {
                    more = true;
                    break;
                }
            }
        }
        Progress {
            more,
            blocked,
            held,
            next_timeout: self.next_timeout(),
        }
    }

    /// Take one batch from every socket; returns whether there is probably more.
    fn receive(&mut self, now: Instant) -> bool {
        let World::Sockets {
            sockets, buffer, ..
        } = &mut self.world
        else {
            return false;
        };
        let mut more = false;
        for socket in sockets {
            // An error here is an ICMP message about an earlier datagram, or an empty socket.
            more |= socket
                .receive(buffer, |path, ecn, data| {
                    self.engine.receive(now, path, ecn, data);
                })
                .unwrap_or(false);
        }
        more
    }

    /// Take in one datagram in memory.
    pub fn receive_one(&mut self, data: &[u8], path: FourTuple) {
        let now = self.now();
        self.engine.receive(now, path, None, BytesMut::from(data));
    }

    /// Send until every connection is settled or a while has passed. Returns whether a socket is full.
    fn transmit(&mut self, now: Instant) -> bool {
        // Between two looks at the sockets no more than this, or acknowledgements would wait too long.
        const BURST: usize = 24;
        match &mut self.world {
            World::Sockets { sockets, held, .. } => {
                let segments = sockets
                    .iter()
                    .map(Socket::segments)
                    .min()
                    .unwrap_or(NonZeroUsize::MIN);
                for _ in 0..BURST {
                    let transmit = match held.take() {
                        Some(transmit) => transmit,
                        None => {
                            let next = self.engine.poll_transmit(now, segments, &mut self.outgoing);
                            let Some(mut transmit) = next else {
                                return false;
                            };
                            let routes = &mut self.engine.routes;
                            if !routes.wrap(&mut transmit, &mut self.outgoing) {
                                continue;
                            }
                            transmit
                        }
                    };
                    let (source, destination) = (transmit.src_ip, transmit.destination);
                    let Some(index) = bound_for(sockets, |s| s.local, source, destination) else {
                        continue;
                    };
                    if let Err(error) = sockets[index].send(&transmit, &self.outgoing)
                        && error.kind() == io::ErrorKind::WouldBlock
                    {
                        *held = Some(transmit);
                        return true;
                    }
                }
                false
            }
            World::Memory { outgoing, .. } => {
                while let Some(mut transmit) =
                    self.engine
                        .poll_transmit(now, NonZeroUsize::MIN, &mut self.outgoing)
                {
                    let routes = &mut self.engine.routes;
                    if !routes.wrap(&mut transmit, &mut self.outgoing) {
                        continue;
                    }
                    let step = transmit.segment_size.unwrap_or(transmit.size);
                    for datagram in self.outgoing[..transmit.size].chunks(step) {
                        outgoing.push((datagram.to_vec(), transmit.src_ip, transmit.destination));
                    }
                }
                false
            }
        }
    }

    /// Send one datagram that is not QUIC, from the local address `source` if given.
    pub fn send(&mut self, data: &[u8], source: Option<IpAddr>, destination: SocketAddr) {
        let mut contents = data.to_vec();
        let mut transmit = Transmit {
            destination: FourTuple::from_remote(destination).remote(),
            ecn: None,
            size: contents.len(),
            segment_size: None,
            src_ip: source,
        };
        if !self.engine.routes.wrap_packet(&mut transmit, &mut contents) {
            return;
        }
        match &mut self.world {
            World::Sockets { sockets, .. } => {
                let (source, destination) = (transmit.src_ip, transmit.destination);
                if let Some(index) = bound_for(sockets, |s| s.local, source, destination) {
                    // A full socket buffer is a lost datagram: STUN retransmits.
                    let _ = sockets[index].send(&transmit, &contents);
                }
            }
            World::Memory { outgoing, .. } => {
                outgoing.push((contents, transmit.src_ip, transmit.destination));
            }
        }
    }

    /// Take in bytes of a relay's stream.
    pub fn read_stream(&mut self, host: IpAddr, data: &[u8]) {
        let now = self.now();
        self.engine.read_stream(now, host, data);
    }

    /// Take in what a peer sent through a relay, whose frame has been taken off.
    pub fn receive_relayed(&mut self, host: IpAddr, peer: SocketAddr, data: &[u8]) {
        let now = self.now();
        if let Some(path) = self.engine.routes.path(host, peer) {
            self.engine
                .receive_relayed(now, path, None, BytesMut::from(data));
        }
    }

    /// What has been sent in memory since the last call.
    pub fn take_outgoing(&mut self) -> Vec<(Vec<u8>, Option<IpAddr>, SocketAddr)> {
        match &mut self.world {
            World::Sockets { .. } => Vec::new(),
            World::Memory { outgoing, .. } => std::mem::take(outgoing),
        }
    }
}

/// `wanted`, with a port if it has none.
fn free_address(taken: &[SocketAddr], wanted: SocketAddr) -> io::Result<SocketAddr> {
    let is_free = |address: &SocketAddr| !taken.contains(address);
    if wanted.port() != 0 {
        return Some(wanted)
            .filter(is_free)
            .ok_or_else(|| io::ErrorKind::AddrInUse.into());
    }
    EPHEMERAL_PORTS
        .map(|port| SocketAddr::new(wanted.ip(), port))
        .find(is_free)
        .ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

/// The index, in what is bound, of what speaks with `remote`: the one at the local address `ip`, if there is one.
fn bound_for<T>(
    bound: &[T],
    address: impl Fn(&T) -> SocketAddr,
    ip: Option<IpAddr>,
    remote: SocketAddr,
) -> Option<usize> {
    let of_family = || {
        let same = |(_, one): &(usize, &T)| address(one).is_ipv4() == remote.is_ipv4();
        bound.iter().enumerate().filter(same)
    };
    of_family()
        .find(|(_, one)| Some(address(one).ip()) == ip)
        .or_else(|| of_family().next())
        .map(|(index, _)| index)
}
