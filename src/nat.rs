//! NAT traversal within a connection (noq's frames, after draft-seemann-quic-nat-traversal): both sides name their
//! addresses, and probe each other's with path challenges.
//!
//! noq probes whatever address the peer names, as often as it names it. So probes are judged where they leave: by
//! their destination, and by how many there were.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use noq_proto::n0_nat_traversal::Error;
use noq_proto::{FourTuple, Transmit};

use crate::budget::{Budget, Budgets};
use crate::connection::Connection;
use crate::route::is_synthetic;
use crate::scope::probe_destination;

/// How many addresses a peer may name.
pub const MAX_ADDRESSES: u8 = 8;
/// Probes of one connection in any second. A round sends up to six to each address in its first.
pub const PROBES_PER_SECOND: usize = 50;
/// Probes for one peer that may go out in quick succession, and how many a second in the long run: the first four rounds
/// of a connection whose peer has eight addresses that do not answer, and one each quarter of a minute.
pub const BURST: f64 = 300.0;
pub const RATE: f64 = 5.0;

/// What probes a connection has sent.
#[derive(Default)]
pub struct Probes {
    /// When the last ones were sent, up to as many as there may be in a second.
    sent: VecDeque<Instant>,
    /// Those that were not sent.
    pub refused: u64,
    /// The destination that was last found to be that of a path.
    on_path: Option<SocketAddr>,
}

impl Probes {
    fn may_send(&mut self, now: Instant, budget: &mut Budget) -> bool {
        let full = self.sent.len() == PROBES_PER_SECOND;
        if (full && self.sent[0] + Duration::from_secs(1) > now) || !budget.allows(now) {
            return false;
        }
        if full {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
        budget.spend();
        true
    }
}

impl Connection {
    /// Whether both sides have NAT traversal on.
    fn is_nat_traversal_negotiated(&self) -> bool {
        self.quic.get_local_nat_traversal_addresses().is_ok()
    }

    /// The paths that lead to the peer itself. What a relay reaches says nothing of what we do.
    fn direct_paths(&self) -> Vec<FourTuple> {
        let paths = self.quic.paths().into_iter();
        paths
            .filter_map(|path| self.quic.network_path(path).ok())
            .filter(|path| !path.local_ip().is_some_and(is_synthetic))
            .collect()
    }

    /// The addresses that we have named to the peer.
    fn named(&self) -> Vec<SocketAddr> {
        self.quic
            .get_local_nat_traversal_addresses()
            .unwrap_or_default()
    }

    /// Name one of our addresses to the peer, at once as the server, with the next round as the client.
    pub fn add_nat_traversal_address(&mut self, address: SocketAddr) -> Result<(), Error> {
        self.quic.add_nat_traversal_address(address)
    }

    pub fn remove_nat_traversal_address(&mut self, address: SocketAddr) -> Result<(), Error> {
        self.quic.remove_nat_traversal_address(address)
    }

    /// Have both sides probe each other's addresses; returns those of the peer that are probed.
    pub fn initiate_nat_traversal_round(&mut self, now: Instant) -> Result<Vec<SocketAddr>, Error> {
        let (paths, ours) = (self.direct_paths(), self.named());
        let named = self.quic.initiate_nat_traversal_round(now)?;
        let probed = named.into_iter();
        Ok(probed
            .filter_map(|address| probe_destination(address, &paths, &ours))
            .collect())
    }

    /// Judge a transmit before it leaves: what goes elsewhere than over a path is a probe. Returns whether to send it.
    pub fn may_leave(
        &mut self,
        now: Instant,
        transmit: &mut Transmit,
        budgets: &mut Budgets,
    ) -> bool {
        let destination = transmit.destination;
        // A relay takes packets only to the peers that it was told of, and no probe leaves from one.
        if transmit.src_ip.is_some_and(is_synthetic) {
            return true;
        }
        if self.probes.on_path == Some(destination) || !self.is_nat_traversal_negotiated() {
            return true;
        }
        let paths = self.direct_paths();
        if paths.iter().any(|path| path.remote() == destination) {
            self.probes.on_path = Some(destination);
            return true;
        }
        let budget = budgets.of(now, self.peer());
        let allowed = probe_destination(destination, &paths, &self.named())
            .filter(|_| self.probes.may_send(now, budget));
        match allowed {
            Some(destination) => transmit.destination = destination,
            None => self.probes.refused += 1,
        }
        allowed.is_some()
    }
}
