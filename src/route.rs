//! Relayed routes: what goes and comes through a TURN server, framed as ChannelData (RFC 8656 §12.4).
//!
//! To noq a relay is a local address of ours like any other, only that nobody has it: a packet that leaves from there
//! is wrapped and sent to the server, and one that the server passes on has come to there. So an answer leaves by the
//! way its question came, and one peer can be spoken with directly and through several relays at once.
//!
//! Which relays there are, and which channels are bound on them, the layer above knows and says.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use bytes::{Buf, BytesMut};
use noq_proto::{FourTuple, Transmit};
use rustc_hash::FxHashMap;

use crate::demux::{MAGIC_COOKIE, STUN_HEADER};

/// RFC 8656 §12: what a channel number may be.
pub const CHANNELS: RangeInclusive<u16> = 0x4000..=0x4fff;
/// A channel number and a length.
pub const HEADER: usize = 4;
/// Where relays have their addresses: a network of ours (RFC 4193 §3.1) that never leaves the engine.
const PREFIX: [u8; 6] = [0xfd, 0x71, 0x75, 0x69, 0x63, 0x65];
/// RFC 8656 §12.5: on a stream ChannelData is padded to a multiple of this.
const ALIGNMENT: usize = 4;
/// What a stream's server is owed at most: as much as we ask a socket to hold.
const MAX_OUTPUT: usize = 4 << 20;
/// So many bytes of a stream share an allocation, as a few datagrams do: a part that waits to be read keeps the rest.
const SHARED: usize = 6000;

/// Whether this is the address of a relay.
pub fn is_synthetic(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.octets().starts_with(&PREFIX))
}

/// An address of the same network that no relay has, and no peer.
pub fn synthetic_peer(number: u32) -> IpAddr {
    let mut octets = [0; 16];
    octets[..PREFIX.len()].copy_from_slice(&PREFIX);
    octets[PREFIX.len() + 1] = 1;
    octets[12..].copy_from_slice(&number.to_be_bytes());
    Ipv6Addr::from(octets).into()
}

/// What was to go or came through a relay, and did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// From a server: of a channel that is not bound, cut off, or behind what can't be made out in a stream.
    pub received: u64,
    /// To a peer without a channel, or from a relay that was removed.
    pub unbound: u64,
    /// While a stream was congested.
    pub congested: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum RouteError {
    NoSuchRelay,
    NotAChannel,
}

struct Relay {
    server: SocketAddr,
    /// The address we send to the server from, if known.
    local: Option<IpAddr>,
    channels: FxHashMap<SocketAddr, u16>,
    peers: FxHashMap<u16, SocketAddr>,
    /// Over TCP or TLS.
    stream: Option<Stream>,
}

/// What is under way between a server and us, when we speak over a stream.
#[derive(Default)]
struct Stream {
    /// The beginning of a message whose end has not come yet.
    input: BytesMut,
    output: Vec<u8>,
    congested: bool,
    /// Something came that is no message, so that nobody knows where the next one starts.
    lost: bool,
}

#[derive(Default)]
pub struct Routes {
    /// By their addresses.
    relays: BTreeMap<IpAddr, Relay>,
    /// Those that speak UDP, by their server's.
    servers: FxHashMap<SocketAddr, Vec<IpAddr>>,
    made: u64,
    /// Where a transmit is wrapped.
    wrapped: Vec<u8>,
    pub drops: Drops,
}

impl Routes {
    /// A new relay's address, which no other one of this engine had or will have.
    pub fn add(&mut self, server: SocketAddr, local: Option<IpAddr>, stream: bool) -> IpAddr {
        self.made += 1;
        let mut octets = [0; 16];
        octets[..PREFIX.len()].copy_from_slice(&PREFIX);
        octets[8..].copy_from_slice(&self.made.to_be_bytes());
        let host = IpAddr::V6(Ipv6Addr::from(octets));
        let server = normal(server);
        if !stream {
            self.servers.entry(server).or_default().push(host);
        }
        let relay = Relay {
            server,
            local,
            channels: FxHashMap::default(),
            peers: FxHashMap::default(),
            stream: stream.then(Stream::default),
        };
        self.relays.insert(host, relay);
        host
    }

    pub fn remove(&mut self, host: IpAddr) {
        let Some(relay) = self.relays.remove(&host) else {
            return;
        };
        if let Some(hosts) = self.servers.get_mut(&relay.server) {
            hosts.retain(|other| *other != host);
            if hosts.is_empty() {
                self.servers.remove(&relay.server);
            }
        }
    }

    /// From now on this number means this peer, and no other number does.
    pub fn bind(&mut self, host: IpAddr, peer: SocketAddr, channel: u16) -> Result<(), RouteError> {
        if !CHANNELS.contains(&channel) {
            return Err(RouteError::NotAChannel);
        }
        self.unbind(host, peer);
        let relay = self.relays.get_mut(&host).ok_or(RouteError::NoSuchRelay)?;
        let peer = normal(peer);
        if let Some(other) = relay.peers.insert(channel, peer) {
            relay.channels.remove(&other);
        }
        relay.channels.insert(peer, channel);
        Ok(())
    }

    pub fn unbind(&mut self, host: IpAddr, peer: SocketAddr) {
        if let Some(relay) = self.relays.get_mut(&host)
            && let Some(channel) = relay.channels.remove(&normal(peer))
        {
            relay.peers.remove(&channel);
        }
    }

    pub fn set_congested(&mut self, host: IpAddr, congested: bool) -> Result<(), RouteError> {
        let stream = self.stream(host).ok_or(RouteError::NoSuchRelay)?;
        stream.congested = congested;
        Ok(())
    }

    pub fn is_known(&self, host: IpAddr) -> bool {
        self.relays.contains_key(&host)
    }

    fn stream(&mut self, host: IpAddr) -> Option<&mut Stream> {
        self.relays.get_mut(&host)?.stream.as_mut()
    }

    /// The relays whose server sends to us on this path.
    fn serving(&self, path: FourTuple) -> impl Iterator<Item = (IpAddr, &Relay)> {
        let hosts = self.servers.get(&path.remote()).into_iter().flatten();
        hosts
            .map(|host| (*host, &self.relays[host]))
            .filter(move |(_, relay)| {
                let (ours, theirs) = (relay.local, path.local_ip());
                ours.is_none() || theirs.is_none() || ours == theirs
            })
    }

    /// Whether a server of ours sends to us on this path.
    pub fn serves(&self, path: FourTuple) -> bool {
        !self.servers.is_empty() && self.serving(path).next().is_some()
    }

    /// Take the frame off a datagram of ChannelData; returns the path that its content came on.
    pub fn unwrap(&mut self, path: FourTuple, data: &mut BytesMut) -> Option<FourTuple> {
        let inner = self.sender(path, data);
        if inner.is_none() {
            self.drops.received += 1;
        }
        inner
    }

    fn sender(&self, path: FourTuple, data: &mut BytesMut) -> Option<FourTuple> {
        let (channel, length) = header(data)?;
        let (host, peer) = self
            .serving(path)
            .find_map(|(host, relay)| Some((host, *relay.peers.get(&channel)?)))?;
        data.advance(HEADER);
        // RFC 8656 §12.4, §12.5: cut off is invalid, and more than the length says is padding.
        if data.len() < length {
            return None;
        }
        data.truncate(length);
        Some(FourTuple::new(peer, Some(host)))
    }

    /// The path on which a peer speaks to us through this relay, if it is still there.
    pub fn path(&mut self, host: IpAddr, peer: SocketAddr) -> Option<FourTuple> {
        let known = self.is_known(host);
        if !known {
            self.drops.received += 1;
        }
        known.then(|| FourTuple::new(peer, Some(host)))
    }

    /// Wrap a transmit of QUIC, all its datagrams, if it leaves from a relay. Returns whether there is something to
    /// send: not if it was dropped, and not if it goes over a stream.
    pub fn wrap(&mut self, transmit: &mut Transmit, contents: &mut Vec<u8>) -> bool {
        let Some(host) = transmit.src_ip.filter(|ip| is_synthetic(*ip)) else {
            return true;
        };
        let full = |stream: &mut Stream| stream.congested || stream.output.len() > MAX_OUTPUT;
        if self.stream(host).is_some_and(full) {
            self.drops.congested += datagrams(transmit);
            return false;
        }
        self.frame(host, transmit, contents)
    }

    /// Likewise for a datagram of another protocol. Those are few, and pass even if a stream is congested.
    pub fn wrap_packet(&mut self, transmit: &mut Transmit, contents: &mut Vec<u8>) -> bool {
        match transmit.src_ip.filter(|ip| is_synthetic(*ip)) {
            Some(host) => self.frame(host, transmit, contents),
            None => true,
        }
    }

    fn frame(&mut self, host: IpAddr, transmit: &mut Transmit, contents: &mut Vec<u8>) -> bool {
        let Some(relay) = self.relays.get_mut(&host) else {
            self.drops.unbound += datagrams(transmit);
            return false;
        };
        let Some(&channel) = relay.channels.get(&transmit.destination) else {
            self.drops.unbound += datagrams(transmit);
            return false;
        };
        let step = transmit.segment_size.unwrap_or(transmit.size).max(1);
        let segments = contents[..transmit.size].chunks(step);
        if let Some(stream) = &mut relay.stream {
            for segment in segments {
                put(&mut stream.output, channel, segment);
                let padding = segment.len().next_multiple_of(ALIGNMENT) - segment.len();
                stream.output.extend_from_slice(&[0; ALIGNMENT][..padding]);
            }
            return false;
        }
        self.wrapped.clear();
        for segment in segments {
            put(&mut self.wrapped, channel, segment);
        }
        std::mem::swap(&mut self.wrapped, contents);
        transmit.destination = relay.server;
        transmit.src_ip = relay.local;
        transmit.size = contents.len();
        transmit.segment_size = transmit.segment_size.map(|size| size + HEADER);
        true
    }

    /// Whether something waits to go out over a stream.
    pub fn has_output(&self) -> bool {
        let mut streams = self
            .relays
            .values()
            .filter_map(|relay| relay.stream.as_ref());
        streams.any(|stream| !stream.output.is_empty())
    }

    /// What is to go out over the streams, by relay.
    pub fn take_output(&mut self) -> Vec<(IpAddr, Vec<u8>)> {
        let relays = self.relays.iter_mut();
        relays
            .filter_map(|(host, relay)| {
                let output = &mut relay.stream.as_mut()?.output;
                (!output.is_empty()).then(|| (*host, std::mem::take(output)))
            })
            .collect()
    }

    /// Take in bytes that came over a stream, and hand on each message that they complete, with the path it came on:
    /// a peer's is its content, the server's own is STUN.
    pub fn read_stream(
        &mut self,
        host: IpAddr,
        data: &[u8],
        mut take: impl FnMut(FourTuple, BytesMut),
    ) {
        let Some(relay) = self.relays.get_mut(&host) else {
            self.drops.received += 1;
            return;
        };
        let Some(stream) = relay.stream.as_mut() else {
            return;
        };
        for some in data.chunks(SHARED) {
            stream.input.extend_from_slice(some);
            while !stream.lost
                && let Some(message) = next_message(&mut stream.input)
            {
                match message {
                    Message::Channel(channel, content) => match relay.peers.get(&channel) {
                        Some(peer) => take(FourTuple::new(*peer, Some(host)), content),
                        None => self.drops.received += 1,
                    },
                    Message::Stun(message) => {
                        take(FourTuple::new(relay.server, Some(host)), message);
                    }
                    Message::Invalid => stream.lost = true,
                }
            }
            if stream.lost {
                stream.input.clear();
                self.drops.received += 1;
                return;
            }
        }
    }
}

/// As noq has addresses, so that one that it names is found.
fn normal(address: SocketAddr) -> SocketAddr {
    FourTuple::from_remote(address).remote()
}

fn datagrams(transmit: &Transmit) -> u64 {
    let step = transmit.segment_size.unwrap_or(transmit.size).max(1);
    transmit.size.div_ceil(step) as u64
}

fn header(data: &[u8]) -> Option<(u16, usize)> {
    let [a, b, c, d] = *data.first_chunk::<HEADER>()?;
    Some((
        u16::from_be_bytes([a, b]),
        u16::from_be_bytes([c, d]).into(),
    ))
}

fn put(out: &mut Vec<u8>, channel: u16, content: &[u8]) {
    // No datagram is longer.
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&content[..usize::from(length)]);
}

enum Message {
    Channel(u16, BytesMut),
    Stun(BytesMut),
    Invalid,
}

/// The first message of a stream, once it is complete (RFC 8656 §12.5, §3.1; RFC 8489 §5).
fn next_message(input: &mut BytesMut) -> Option<Message> {
    let (kind, length) = header(input)?;
    let is_channel = CHANNELS.contains(&kind);
    let cookie = input.get(4..8).unwrap_or(&MAGIC_COOKIE);
    let size = match kind {
        _ if is_channel => HEADER + length.next_multiple_of(ALIGNMENT),
        0..0x4000 if length.is_multiple_of(ALIGNMENT) && cookie == MAGIC_COOKIE => {
            STUN_HEADER + length
        }
        _ => return Some(Message::Invalid),
    };
    if input.len() < size {
        return None;
    }
    let mut message = input.split_to(size);
    if !is_channel {
        return Some(Message::Stun(message));
    }
    message.advance(HEADER);
    message.truncate(length);
    Some(Message::Channel(kind, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "203.0.113.1:3478";
    const PEER: &str = "198.51.100.7:7";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn relayed(stream: bool) -> (Routes, IpAddr) {
        let mut routes = Routes::default();
        let host = routes.add(address(SERVER), None, stream);
        routes.bind(host, address(PEER), 0x4001).unwrap();
        (routes, host)
    }

    fn transmit(host: IpAddr, size: usize, segment_size: Option<usize>) -> Transmit {
        Transmit {
            destination: address(PEER),
            ecn: None,
            size,
            segment_size,
            src_ip: Some(host),
        }
    }

    #[test]
    fn each_segment_of_a_batch_gets_a_frame_of_its_own() {
        let (mut routes, host) = relayed(false);
        let mut batch = transmit(host, 8, Some(3));
        // What is behind `size` is not part of it.
        let mut contents = b"abcdefghXX".to_vec();
        assert!(routes.wrap(&mut batch, &mut contents));
        assert_eq!(
            contents,
            b"\x40\x01\0\x03abc\x40\x01\0\x03def\x40\x01\0\x02gh"
        );
        assert_eq!((batch.size, batch.segment_size), (20, Some(7)));
        assert_eq!((batch.destination, batch.src_ip), (address(SERVER), None));
    }

    #[test]
    fn what_does_not_leave_from_a_relay_is_left_alone() {
        let (mut routes, _) = relayed(false);
        for source in [
            None,
            Some([192, 0, 2, 1].into()),
            Some("fd71:7569:6366::1".parse().unwrap()),
        ] {
            let mut direct = transmit([0, 0, 0, 0].into(), 3, None);
            direct.src_ip = source;
            let mut contents = b"abc".to_vec();
            assert!(routes.wrap(&mut direct, &mut contents));
            assert_eq!((contents.as_slice(), direct.src_ip), (&b"abc"[..], source));
        }
    }

    #[test]
    fn dropped_batches_count_as_their_datagrams() {
        let (mut routes, host) = relayed(true);
        routes.set_congested(host, true).unwrap();
        assert!(!routes.wrap(&mut transmit(host, 8, Some(3)), &mut vec![0; 8]));
        routes.unbind(host, address(PEER));
        routes.set_congested(host, false).unwrap();
        assert!(!routes.wrap(&mut transmit(host, 8, Some(4)), &mut vec![0; 8]));
        routes.remove(host);
        assert!(!routes.wrap(&mut transmit(host, 8, None), &mut vec![0; 8]));
        assert_eq!((routes.drops.congested, routes.drops.unbound), (3, 3));
        assert!(!routes.has_output());
    }

    #[test]
    fn a_server_that_is_owed_too_much_gets_no_more() {
        let (mut routes, host) = relayed(true);
        for _ in 0..2 * MAX_OUTPUT / 1000 {
            routes.wrap(&mut transmit(host, 1000, None), &mut vec![0; 1000]);
        }
        let output = routes.take_output();
        assert_eq!(output.len(), 1);
        assert!(output[0].1.len() <= MAX_OUTPUT + 1004);
        assert!(routes.drops.congested > 0);
        assert!(!routes.has_output());
    }

    #[test]
    fn content_is_taken_out_of_its_frame_where_it_lies() {
        let (mut routes, host) = relayed(false);
        let path = FourTuple::from_remote(address(SERVER));
        assert!(routes.serves(path));
        let mut data = BytesMut::from(&b"\x40\x01\0\x03abc\0"[..]);
        let place = data.as_ptr();
        let inner = routes.unwrap(path, &mut data).unwrap();
        assert_eq!(inner, FourTuple::new(address(PEER), Some(host)));
        assert_eq!(data, b"abc"[..]);
        assert_eq!(data.as_ptr(), place.wrapping_add(HEADER));
    }

    #[test]
    fn the_server_of_a_removed_relay_is_nobody_in_particular() {
        let (mut routes, host) = relayed(false);
        let path = FourTuple::from_remote(address(SERVER));
        let other = routes.add(address(SERVER), None, false);
        routes.remove(host);
        assert!(routes.serves(path));
        routes.remove(other);
        assert!(!routes.serves(path));
    }
}
