//! Where a client is, as its server sees it, and how often it may be seen elsewhere.
//!
//! Who is at the other end of a connection can write any source address on its packets. noq follows the first packet
//! that comes from elsewhere (RFC 9000 §9), and sends a full packet there to find out whether the peer is there at all,
//! for as few bytes as that packet has (§9.3.1 would have it three times as many). So moves are counted.

use std::net::SocketAddr;
use std::time::Instant;

use crate::budget::Budgets;
use crate::connection::Connection;

/// Moves of one peer's paths in quick succession, and how many a second in the long run. Each costs two packets at most.
pub const BURST: f64 = 64.0;
pub const RATE: f64 = 1.0;

/// The remote ends of a connection's paths, as they were when a packet last came from elsewhere.
#[derive(Default)]
pub struct Whereabouts(Vec<SocketAddr>);

impl Connection {
    /// Whether a packet from this address is taken: one from elsewhere only while the peer may move.
    pub fn may_come_from(
        &mut self,
        now: Instant,
        source: SocketAddr,
        budgets: &mut Budgets,
    ) -> bool {
        if !self.follows_peer() || self.whereabouts.0.contains(&source) {
            return true;
        }
        self.whereabouts = Whereabouts(self.remotes());
        self.whereabouts.0.contains(&source) || budgets.of(now, self.peer()).allows(now)
    }

    /// A packet from this address was taken: if a path leads there now, the peer has moved, or opened another.
    pub fn came_from(&mut self, now: Instant, source: SocketAddr, budgets: &mut Budgets) {
        if !self.follows_peer() || self.whereabouts.0.contains(&source) {
            return;
        }
        self.whereabouts = Whereabouts(self.remotes());
        if self.whereabouts.0.contains(&source) {
            budgets.of(now, self.peer()).spend();
        }
    }

    /// Whether this is a server's connection, that goes where its client's packets come from.
    fn follows_peer(&self) -> bool {
        self.was_connected && self.quic.side().is_server()
    }

    fn remotes(&self) -> Vec<SocketAddr> {
        let paths = self.quic.paths().into_iter();
        paths
            .filter_map(|path| self.quic.network_path(path).ok())
            .map(|path| path.remote())
            .collect()
    }
}
