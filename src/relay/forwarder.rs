//! The thread: it waits for its sockets and for commands, and moves what the `Switch` says.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use noq_proto::Transmit;
use rustc_hash::FxHashMap;

use super::allocation::Client;
use super::counts::Drop;
use super::frame::length_on_stream;
use super::outbox::{Batch, Exit};
use super::shared::{Command, FiveTuple, News, Shared};
use super::stream::Connection;
use super::switch::{Network, Switch};
use crate::udp::{ReceiveBuffer, Run, Socket};

/// Batches that one socket may have before the others get their turn.
const BATCHES: usize = 4;
/// A request is never that long; a longer one is noise that Python is not to see.
const MAX_REQUEST: usize = 2048;
const MAX_CONNECTIONS: usize = 4096;
const MAX_CONNECTIONS_OF_ONE: usize = 64;
/// How long a connection may be without an allocation.
const IDLE: Duration = Duration::from_secs(30);
const SWEEP: Duration = Duration::from_secs(5);

/// Events that are taken at once; the others wait for the next turn.
const EVENTS: usize = 256;

/// What an event is about: the lower bits of its token.
const LISTENER: usize = 0;
const ACCEPTOR: usize = 1;
const CONNECTION: usize = 2;
const RELAYED_V4: usize = 3;
const RELAYED_V6: usize = 4;
const KINDS: usize = 8;
const COMMANDS: Token = Token(usize::MAX);

/// Start forwarding. `rate`: bytes a second that each owner may have carried. `allowed`: networks in which even
/// addresses of this machine may be reached.
pub fn start(
    rate: Option<f64>,
    allowed: Vec<Network>,
) -> io::Result<(Arc<Shared>, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    let shared = Arc::new(Shared::new(Waker::new(&registry, COMMANDS)?)?);
    let theirs = shared.clone();
    let thread = thread::Builder::new()
        .name("quice-relay".into())
        .spawn(move || Forwarder::new(theirs, registry, Switch::new(rate, allowed)).run(poll))?;
    Ok((shared, thread))
}

struct Forwarder {
    shared: Arc<Shared>,
    registry: Registry,
    listeners: Vec<Rc<Socket>>,
    acceptors: Vec<TcpListener>,
    relayed: FxHashMap<(u64, bool), Rc<Socket>>,
    switch: Switch,
    /// Connections by who they are to the control plane.
    numbers: FxHashMap<FiveTuple, u64>,
    next_number: u64,
    accepting: bool,
    swept: Instant,
}

impl Forwarder {
    fn new(shared: Arc<Shared>, registry: Registry, switch: Switch) -> Self {
        Self {
            shared,
            registry,
            listeners: Vec::new(),
            acceptors: Vec::new(),
            relayed: FxHashMap::default(),
            swept: switch.now,
            switch,
            numbers: FxHashMap::default(),
            next_number: 0,
            accepting: true,
        }
    }

    fn run(mut self, mut poll: Poll) {
        let mut buffer = ReceiveBuffer::new();
        let mut events = Events::with_capacity(EVENTS);
        // A source is only told to be ready when it becomes so: what was left there is looked for again.
        let mut left = Vec::new();
        loop {
            let sweeps = !self.numbers.is_empty() || !self.accepting;
            let patience = if left.is_empty() {
                sweeps.then_some(SWEEP)
            } else {
                Some(Duration::ZERO)
            };
            if poll.poll(&mut events, patience).is_err() {
                // Interrupted by a signal.
                continue;
            }
            self.switch.now = Instant::now();
            for command in self.shared.take_commands() {
                if matches!(command, Command::Stop) {
                    return;
                }
                self.obey(command);
            }
            self.switch.retry();
            self.flush();
            let ready = events.iter().map(|event| event.token());
            for token in std::mem::take(&mut left).into_iter().chain(ready) {
                if token == COMMANDS {
                    continue;
                }
                if self.serve(token, &mut buffer) {
                    left.push(token);
                }
                self.flush();
            }
            self.sweep();
            self.shared.publish(self.switch.counts);
        }
    }

    fn obey(&mut self, command: Command) {
        let switch = &mut self.switch;
        match command {
            Command::Listen(socket) => {
                self.watch(socket.fd(), self.listeners.len() * KINDS + LISTENER);
                self.listeners.push(Rc::new(socket));
            }
            Command::Accept(listener) => {
                self.watch(
                    listener.as_raw_fd(),
                    self.acceptors.len() * KINDS + ACCEPTOR,
                );
                self.acceptors.push(listener);
            }
            Command::Own(addresses) => addresses.into_iter().for_each(|ip| switch.add_own(ip)),
            Command::Close(ports) => switch.own_ports.extend(ports),
            Command::Open {
                allocation,
                client,
                owner,
            } => self.open(allocation, client, owner),
            Command::Relay {
                allocation,
                socket,
                public,
            } => self.relay(allocation, Rc::new(socket), public),
            Command::Unrelay(id, v6) => {
                switch.unrelay(id, v6);
                self.forget(id, v6);
            }
            Command::Delete(id) => self.delete(id),
            Command::Permit(id, ip) => {
                if let Some(allocation) = switch.allocations.get_mut(&id) {
                    allocation.permissions.insert(ip);
                }
            }
            Command::Forbid(id, ip) => {
                if let Some(allocation) = switch.allocations.get_mut(&id) {
                    allocation.permissions.remove(&ip);
                }
            }
            Command::Bind(id, number, peer) => {
                if let Some(allocation) = switch.allocations.get_mut(&id) {
                    allocation.bind_channel(number, peer);
                }
            }
            Command::Unbind(id, number) => {
                if let Some(allocation) = switch.allocations.get_mut(&id) {
                    allocation.unbind_channel(number);
                }
            }
            Command::Send(client, data) => self.send(client, &data),
            Command::Decided(number) => switch.decide(number),
            Command::Stop => {}
        }
    }

    fn open(&mut self, id: u64, five_tuple: FiveTuple, owner: String) {
        let Some(client) = self.client(five_tuple) else {
            // It has gone since it asked.
            let request = None;
            self.shared.tell(News {
                client: five_tuple,
                request,
            });
            return;
        };
        if let Client::Tcp(number) = client
            && let Some(connection) = self.switch.connections.get_mut(&number)
        {
            connection.allocation = Some(id);
        }
        self.switch.open(id, client, owner);
    }

    fn relay(&mut self, id: u64, socket: Rc<Socket>, public: SocketAddr) {
        let v6 = public.is_ipv6();
        let local = socket.local.ip();
        if self.switch.relay(id, local, public) {
            let kind = if v6 { RELAYED_V6 } else { RELAYED_V4 };
            self.watch(socket.fd(), id as usize * KINDS + kind);
            self.relayed.insert((id, v6), socket);
        }
    }

    fn delete(&mut self, id: u64) {
        let Some(allocation) = self.switch.delete(id) else {
            return;
        };
        self.forget(id, false);
        self.forget(id, true);
        if let Client::Tcp(number) = allocation.client
            && let Some(connection) = self.switch.connections.get_mut(&number)
        {
            connection.allocation = None;
            connection.accepted = self.switch.now;
        }
    }

    /// Close a relayed address.
    fn forget(&mut self, id: u64, v6: bool) {
        if let Some(socket) = self.relayed.remove(&(id, v6)) {
            self.unwatch(socket.fd());
        }
    }

    fn client(&self, five_tuple: FiveTuple) -> Option<Client> {
        if five_tuple.tcp {
            return self.numbers.get(&five_tuple).copied().map(Client::Tcp);
        }
        let FiveTuple { client, server, .. } = five_tuple;
        let serves = |socket: &Rc<Socket>| {
            let local = socket.local;
            local.port() == server.port()
                && (local.ip() == server.ip()
                    || (local.ip().is_unspecified() && local.is_ipv4() == server.is_ipv4()))
        };
        Some(Client::Udp {
            listener: self.listeners.iter().position(serves)?,
            remote: client,
            local: source(server.ip()),
        })
    }

    fn send(&mut self, five_tuple: FiveTuple, data: &[u8]) {
        match self.client(five_tuple) {
            Some(Client::Udp {
                listener,
                remote,
                local,
            }) => self.listeners[listener].send_packet(data, local, remote),
            Some(Client::Tcp(number)) => {
                if let Some(connection) = self.switch.connections.get_mut(&number)
                    && let Some(out) = connection.room_for_answer(data.len())
                {
                    out.extend(data);
                    self.write(number);
                }
            }
            None => {}
        }
    }

    /// Do what there is to do at a source. Returns whether something is left.
    fn serve(&mut self, token: Token, buffer: &mut ReceiveBuffer) -> bool {
        let index = token.0 / KINDS;
        match token.0 % KINDS {
            LISTENER => self.serve_listener(index, buffer),
            ACCEPTOR => {
                self.accept(index);
                false
            }
            CONNECTION => self.serve_connection(index as u64),
            kind => self.serve_relayed(index as u64, kind == RELAYED_V6, buffer),
        }
    }

    fn serve_listener(&mut self, listener: usize, buffer: &mut ReceiveBuffer) -> bool {
        let socket = self.listeners[listener].clone();
        receive(&socket, buffer, |run| {
            let remote = plain(run.path.remote());
            let local = run.path.local_ip().and_then(source);
            let client = Client::Udp {
                listener,
                remote,
                local,
            };
            let allocation = self.switch.clients.get(&client).copied();
            for datagram in datagrams(&run) {
                if self
                    .switch
                    .take_from_client(client, allocation, run.ecn, datagram)
                {
                    let server =
                        SocketAddr::new(local.unwrap_or(socket.local.ip()), socket.local.port());
                    let tcp = false;
                    self.request(
                        client,
                        FiveTuple {
                            tcp,
                            client: remote,
                            server,
                        },
                        datagram,
                    );
                }
            }
        })
    }

    fn serve_relayed(&mut self, id: u64, v6: bool, buffer: &mut ReceiveBuffer) -> bool {
        // A command may have closed it since the event.
        let Some(socket) = self.relayed.get(&(id, v6)).cloned() else {
            return false;
        };
        receive(&socket, buffer, |run| {
            let peer = plain(run.path.remote());
            for datagram in datagrams(&run) {
                self.switch.take_from_peer(id, peer, run.ecn, datagram);
            }
        })
    }

    fn accept(&mut self, index: usize) {
        loop {
            let (stream, remote) = match self.acceptors[index].accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // One that has given up while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(_) => {
                    // Mostly, that there is no descriptor left. The next would fail as well.
                    self.accepting = false;
                    return;
                }
            };
            let remote = plain(remote);
            let all = &self.switch.connections;
            let of_one = || {
                all.values()
                    .filter(|c| c.remote.ip() == remote.ip())
                    .count()
            };
            if all.len() >= MAX_CONNECTIONS || of_one() >= MAX_CONNECTIONS_OF_ONE {
                continue;
            }
            let Ok(connection) = Connection::new(stream, remote, self.switch.now) else {
                continue;
            };
            let number = self.next_number;
            self.next_number += 1;
            self.watch(
                connection.stream.as_raw_fd(),
                number as usize * KINDS + CONNECTION,
            );
            self.numbers.insert(connection.five_tuple(), number);
            self.switch.connections.insert(number, connection);
        }
    }

    fn serve_connection(&mut self, number: u64) -> bool {
        self.write(number);
        let Some(connection) = self.switch.connections.get_mut(&number) else {
            return false;
        };
        let (mut over, more) = match connection.read() {
            Ok(more) => (false, more),
            Err(_) => (true, false),
        };
        let five_tuple = connection.five_tuple();
        let allocation = connection.allocation;
        let mut input = std::mem::take(&mut connection.input);
        let mut start = 0;
        loop {
            let length = match length_on_stream(&input[start..]) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(_) => {
                    over = true;
                    break;
                }
            };
            let Some(frame) = input.get(start..start + length) else {
                break;
            };
            let client = Client::Tcp(number);
            if self
                .switch
                .take_from_client(client, allocation, None, frame)
            {
                self.request(client, five_tuple, frame);
            }
            start += length;
        }
        input.drain(..start);
        if allocation.is_none() {
            // A stranger's connection is to hold no more than what it has begun to say.
            input.shrink_to_fit();
        }
        if let Some(connection) = self.switch.connections.get_mut(&number) {
            connection.input = input;
        }
        if over {
            self.hang_up(number);
        }
        more && !over
    }

    /// Hand a request to the control plane.
    fn request(&mut self, client: Client, five_tuple: FiveTuple, request: &[u8]) {
        if request.len() > MAX_REQUEST {
            self.switch.counts.drop(Drop::Malformed);
            return;
        }
        let told = self.shared.tell(News {
            client: five_tuple,
            request: Some(request.to_vec()),
        });
        match told {
            Some(number) => self.switch.waiting.ask(client, number),
            None => self.switch.counts.drop(Drop::Full),
        }
    }

    /// Send what has been gathered.
    fn flush(&mut self) {
        let (switch, listeners, relayed) = (&mut self.switch, &self.listeners, &self.relayed);
        let counts = &mut switch.counts;
        switch.outbox.flush(|batch| {
            let socket = match batch.way.exit {
                Exit::Listener(index) => listeners.get(index),
                Exit::Relayed(id, v6) => relayed.get(&(id, v6)),
            };
            if socket.is_none_or(|socket| !sent(socket, batch)) {
                counts.drop(Drop::Full);
            }
        });
        let mut written = std::mem::take(&mut self.switch.written);
        written.sort_unstable();
        written.dedup();
        for &number in &written {
            self.write(number);
        }
        written.clear();
        self.switch.written = written;
    }

    /// Write what waits on a connection.
    fn write(&mut self, number: u64) {
        let Some(connection) = self.switch.connections.get_mut(&number) else {
            return;
        };
        // What is left waits for room: then the connection is ready again.
        if connection.flush().is_err() {
            self.hang_up(number);
        }
    }

    fn hang_up(&mut self, number: u64) {
        let Some(connection) = self.switch.connections.remove(&number) else {
            return;
        };
        self.unwatch(connection.stream.as_raw_fd());
        let client = connection.five_tuple();
        self.numbers.remove(&client);
        if connection.allocation.is_some() {
            let request = None;
            self.shared.tell(News { client, request });
        }
    }

    /// End connections that came for nothing, and take others where there was no room.
    fn sweep(&mut self) {
        if self.switch.now - self.swept < SWEEP {
            return;
        }
        self.swept = self.switch.now;
        let is_idle = |connection: &Connection| {
            connection.allocation.is_none() && self.swept - connection.accepted > IDLE
        };
        let connections = self.switch.connections.iter();
        let idle: Vec<u64> = connections
            .filter(|(_, connection)| is_idle(connection))
            .map(|(number, _)| *number)
            .collect();
        for number in idle {
            self.hang_up(number);
        }
        if !std::mem::replace(&mut self.accepting, true) {
            (0..self.acceptors.len()).for_each(|index| self.accept(index));
        }
    }

    fn watch(&self, descriptor: RawFd, token: usize) {
        // A UDP socket has room again after each datagram that has left: nobody waits for that.
        let interest = if token % KINDS == CONNECTION {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        let watched = self
            .registry
            .register(&mut SourceFd(&descriptor), Token(token), interest);
        // The system is out of memory for it: nothing arrives there, and its users give up.
        drop(watched);
    }

    fn unwatch(&self, descriptor: RawFd) {
        let _ = self.registry.deregister(&mut SourceFd(&descriptor));
    }
}

/// Take in what waits on a socket, for as long as it is its turn. Returns whether there is probably more.
fn receive(socket: &Socket, buffer: &mut ReceiveBuffer, mut take: impl FnMut(Run<'_>)) -> bool {
    (0..BATCHES).all(|_| {
        let received = socket.receive_runs(buffer, &mut take);
        // Another error is an ICMP message about an earlier datagram: others may wait behind it.
        received.unwrap_or_else(|error| error.kind() != io::ErrorKind::WouldBlock)
    })
}

/// The datagrams of a run; an empty one is a datagram, too.
fn datagrams<'a>(run: &Run<'a>) -> impl Iterator<Item = &'a [u8]> {
    let empty = run.data.is_empty().then_some(run.data);
    run.data.chunks(run.stride).chain(empty)
}

/// Whether the socket took a batch. What the network refuses is lost as in a network.
fn sent(socket: &Socket, batch: &Batch) -> bool {
    let way = batch.way;
    if batch.data.is_empty() {
        socket.send_packet(&batch.data, way.source, way.destination);
        return true;
    }
    let transmit = Transmit {
        destination: way.destination,
        ecn: way.ecn,
        size: batch.data.len(),
        segment_size: (batch.data.len() > batch.segment).then_some(batch.segment),
        src_ip: way.source,
    };
    socket.send(&transmit, &batch.data).is_ok()
}

/// Without the flow label, which says nothing about who somebody is.
fn plain(mut address: SocketAddr) -> SocketAddr {
    if let SocketAddr::V6(v6) = &mut address {
        v6.set_flowinfo(0);
    }
    address
}

/// The address to answer from, if it is known.
fn source(ip: IpAddr) -> Option<IpAddr> {
    (!ip.is_unspecified()).then_some(ip)
}
