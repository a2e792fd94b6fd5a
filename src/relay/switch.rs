//! Where a client's or a peer's data goes: the rules of RFC 8656 §11 and §12 on the tables that commands keep.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use noq_proto::EcnCodepoint;
use rustc_hash::{FxHashMap, FxHashSet};

use super::allocation::{Allocation, Bucket, Client};
use super::counts::{Counts, Drop};
use super::frame::{CHANNEL_HEADER, Frame, indication_size, parse, put_channel, put_indication};
use super::outbox::{Exit, Outbox, Way};
use super::stream::Connection;
use super::waiting::Waiting;

/// A network in CIDR notation.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Network {
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (network, ip, width) = match (self.address, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let free = width - u32::from(self.prefix).min(width);
        (network ^ ip).checked_shr(free).unwrap_or(0) == 0
    }
}

pub struct Switch {
    pub allocations: FxHashMap<u64, Allocation>,
    pub clients: FxHashMap<Client, u64>,
    pub connections: FxHashMap<u64, Connection>,
    /// Connections that something was appended for.
    pub written: Vec<u64>,
    pub outbox: Outbox,
    pub waiting: Waiting,
    pub counts: Counts,
    pub now: Instant,
    pub own_ports: FxHashSet<u16>,
    /// Whether what is at an address of ours may be reached there, because the operator named its network.
    own: FxHashMap<IpAddr, bool>,
    allowed: Vec<Network>,
    relayed: FxHashMap<SocketAddr, u64>,
    owners: FxHashMap<String, Rc<RefCell<Bucket>>>,
    rate: Option<f64>,
    indications: u64,
}

impl Switch {
    pub fn new(rate: Option<f64>, allowed: Vec<Network>) -> Self {
        Self {
            allocations: FxHashMap::default(),
            clients: FxHashMap::default(),
            connections: FxHashMap::default(),
            written: Vec::new(),
            outbox: Outbox::default(),
            waiting: Waiting::default(),
            counts: Counts::default(),
            now: Instant::now(),
            own_ports: FxHashSet::default(),
            own: FxHashMap::default(),
            allowed,
            relayed: FxHashMap::default(),
            owners: FxHashMap::default(),
            rate,
            indications: 0,
        }
    }

    pub fn add_own(&mut self, ip: IpAddr) {
        let is_allowed = self.allowed.iter().any(|network| network.contains(ip));
        self.own.insert(ip, is_allowed);
    }

    pub fn open(&mut self, id: u64, client: Client, owner: String) {
        let bucket = self
            .owners
            .entry(owner.clone())
            .or_insert_with(|| Rc::new(RefCell::new(Bucket::new(self.rate, self.now))))
            .clone();
        self.clients.insert(client, id);
        self.allocations.insert(
            id,
            Allocation {
                client,
                owner,
                bucket,
                relayed: [None, None],
                permissions: FxHashSet::default(),
                peers: FxHashMap::default(),
                channels: FxHashMap::default(),
            },
        );
    }

    /// Give an allocation a relayed address. Returns whether there is such an allocation.
    pub fn relay(&mut self, id: u64, local: IpAddr, public: SocketAddr) -> bool {
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return false;
        };
        allocation.relayed[usize::from(public.is_ipv6())] = Some(public);
        self.relayed.insert(public, id);
        self.add_own(public.ip());
        self.add_own(local);
        true
    }

    /// Take an allocation's relayed address away.
    pub fn unrelay(&mut self, id: u64, v6: bool) {
        if let Some(allocation) = self.allocations.get_mut(&id)
            && let Some(public) = allocation.relayed[usize::from(v6)].take()
        {
            self.relayed.remove(&public);
        }
    }

    pub fn delete(&mut self, id: u64) -> Option<Allocation> {
        let allocation = self.allocations.remove(&id)?;
        self.clients.remove(&allocation.client);
        for public in allocation.relayed.iter().flatten() {
            self.relayed.remove(public);
        }
        // Two are left: ours and the allocation's.
        if Rc::strong_count(&allocation.bucket) == 2 {
            self.owners.remove(&allocation.owner);
        }
        Some(allocation)
    }

    /// Data of a client; returns whether it is a request instead, for the control plane.
    pub fn take_from_client(
        &mut self,
        client: Client,
        allocation: Option<u64>,
        ecn: Option<EcnCodepoint>,
        datagram: &[u8],
    ) -> bool {
        let frame = parse(datagram);
        if frame == Frame::Request {
            return true;
        }
        if let Err(reason) = self.carry_out(allocation, ecn, frame) {
            self.wait_or_drop(client, ecn, datagram, reason);
        }
        false
    }

    /// All requests up to this one have been dealt with: what waited for that goes, or is dropped.
    pub fn decide(&mut self, number: u64) {
        self.waiting.decide(number);
        self.retry();
    }

    /// Try again what waits: commands may have allowed it.
    pub fn retry(&mut self) {
        for held in self.waiting.take() {
            let allocation = self.clients.get(&held.client).copied();
            if let Err(reason) = self.carry_out(allocation, held.ecn, parse(&held.datagram)) {
                self.wait_or_drop(held.client, held.ecn, &held.datagram, reason);
            }
        }
    }

    fn wait_or_drop(
        &mut self,
        client: Client,
        ecn: Option<EcnCodepoint>,
        datagram: &[u8],
        reason: Drop,
    ) {
        if !reason.can_be_asked_for() || !self.waiting.hold(client, ecn, datagram) {
            self.counts.drop(reason);
        }
    }

    fn carry_out(
        &mut self,
        id: Option<u64>,
        ecn: Option<EcnCodepoint>,
        frame: Frame<'_>,
    ) -> Result<(), Drop> {
        if frame == Frame::Malformed {
            return Err(Drop::Malformed);
        }
        let id = id.ok_or(Drop::NoAllocation)?;
        let allocation = self.allocations.get(&id).ok_or(Drop::NoAllocation)?;
        let (peer, data) = match frame {
            Frame::Channel { number, data } => {
                let peer = allocation.peers.get(&number).ok_or(Drop::NoChannel)?;
                (*peer, data)
            }
            Frame::Send { peer, data } if allocation.permissions.contains(&peer.ip()) => {
                (peer, data)
            }
            _ => return Err(Drop::NoPermission),
        };
        let source = allocation.relayed_for(peer).ok_or(Drop::NoAllocation)?;
        if !allocation.bucket.borrow_mut().take(data.len(), self.now) {
            return Err(Drop::Rate);
        }
        match self.own.get(&peer.ip()) {
            Some(is_allowed) => {
                if let Some(&other) = self.relayed.get(&peer) {
                    count(&mut self.counts.to_peers, data);
                    return self.carry_in(other, source, ecn, data);
                }
                if !is_allowed || self.own_ports.contains(&peer.port()) {
                    return Err(Drop::Forbidden);
                }
            }
            None if peer.port() == 0 => return Err(Drop::Forbidden),
            None if peer.ip().is_loopback() && self.own_ports.contains(&peer.port()) => {
                return Err(Drop::Forbidden);
            }
            None => {}
        }
        count(&mut self.counts.to_peers, data);
        let way = Way {
            exit: Exit::Relayed(id, peer.is_ipv6()),
            source: None,
            destination: peer,
            ecn,
        };
        self.outbox.add(way, data.len()).extend(data);
        Ok(())
    }

    /// Data that came to an allocation's relayed address.
    pub fn take_from_peer(
        &mut self,
        id: u64,
        peer: SocketAddr,
        ecn: Option<EcnCodepoint>,
        data: &[u8],
    ) {
        if let Err(reason) = self.carry_in(id, peer, ecn, data) {
            self.counts.drop(reason);
        }
    }

    fn carry_in(
        &mut self,
        id: u64,
        peer: SocketAddr,
        ecn: Option<EcnCodepoint>,
        data: &[u8],
    ) -> Result<(), Drop> {
        let allocation = self.allocations.get(&id).ok_or(Drop::NoAllocation)?;
        if !allocation.permissions.contains(&peer.ip()) {
            return Err(Drop::NoPermission);
        }
        if !allocation.bucket.borrow_mut().take(data.len(), self.now) {
            return Err(Drop::Rate);
        }
        let channel = allocation.channels.get(&peer).copied();
        let size = match channel {
            Some(_) => CHANNEL_HEADER + data.len(),
            None => indication_size(peer, data.len()),
        };
        let (out, padding) = match allocation.client {
            Client::Udp {
                listener,
                remote,
                local,
            } => {
                let way = Way {
                    exit: Exit::Listener(listener),
                    source: local,
                    destination: remote,
                    ecn,
                };
                (self.outbox.add(way, size), 0)
            }
            Client::Tcp(number) => {
                let padded = size.next_multiple_of(4);
                let connection = self.connections.get_mut(&number);
                let out = connection.and_then(|connection| connection.room(padded));
                self.written.push(number);
                (out.ok_or(Drop::Full)?, padded - size)
            }
        };
        match channel {
            Some(number) => put_channel(out, number, data),
            None => {
                self.indications += 1;
                // RFC 8656 §11.3 has it random, as RFC 8489 §5 wants where an answer could be forged; none comes.
                let mut transaction = [0; 12];
                transaction[4..].copy_from_slice(&self.indications.to_be_bytes());
                put_indication(out, transaction, peer, data);
            }
        }
        out.resize(out.len() + padding, 0);
        count(&mut self.counts.to_clients, data);
        Ok(())
    }
}

fn count((packets, bytes): &mut (u64, u64), data: &[u8]) {
    *packets += 1;
    *bytes += data.len() as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let network = |address: &str, prefix| Network {
            address: address.parse().unwrap(),
            prefix,
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(network("10.0.0.0", 8).contains(ip("10.9.8.7")));
        assert!(!network("10.0.0.0", 8).contains(ip("11.0.0.0")));
        assert!(network("192.0.2.1", 32).contains(ip("192.0.2.1")));
        assert!(!network("192.0.2.1", 32).contains(ip("192.0.2.0")));
        assert!(network("0.0.0.0", 0).contains(ip("192.0.2.1")));
        assert!(network("::", 0).contains(ip("2001:db8::1")));
        assert!(!network("::", 0).contains(ip("192.0.2.1")));
        assert!(network("fd00::", 8).contains(ip("fd12::1")));
        assert!(!network("fd00::", 8).contains(ip("fe80::1")));
    }
}
