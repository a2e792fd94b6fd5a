//! What the data path knows of an allocation (RFC 8656 §6): permissions, channels, and how much it may carry.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use rustc_hash::{FxHashMap, FxHashSet};

/// How long a silent owner saves up for a burst.
const BURST_SECONDS: f64 = 1.0;

/// Who the allocation's client is, as its packets show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Client {
    /// On the listening socket with this number, from this address, to this one of ours.
    Udp {
        listener: usize,
        remote: SocketAddr,
        local: Option<IpAddr>,
    },
    /// The connection with this number.
    Tcp(u64),
}

pub struct Allocation {
    pub client: Client,
    pub owner: String,
    pub bucket: Rc<RefCell<Bucket>>,
    /// The relayed addresses, IPv4 and IPv6, as peers see them: a NAT before us may have changed them.
    pub relayed: [Option<SocketAddr>; 2],
    pub permissions: FxHashSet<IpAddr>,
    pub peers: FxHashMap<u16, SocketAddr>,
    pub channels: FxHashMap<SocketAddr, u16>,
}

impl Allocation {
    pub fn relayed_for(&self, peer: SocketAddr) -> Option<SocketAddr> {
        self.relayed[usize::from(peer.is_ipv6())]
    }

    pub fn bind_channel(&mut self, number: u16, peer: SocketAddr) {
        self.unbind_channel(number);
        self.peers.insert(number, peer);
        self.channels.insert(peer, number);
    }

    pub fn unbind_channel(&mut self, number: u16) {
        if let Some(peer) = self.peers.remove(&number) {
            self.channels.remove(&peer);
        }
    }
}

/// How many bytes an owner's allocations may carry, both ways and all together.
pub struct Bucket {
    /// Bytes a second; `None` for any number.
    rate: Option<f64>,
    left: f64,
    filled: Instant,
}

impl Bucket {
    pub fn new(rate: Option<f64>, now: Instant) -> Self {
        Self {
            rate,
            left: rate.unwrap_or(0.0) * BURST_SECONDS,
            filled: now,
        }
    }

    /// Whether that many bytes may pass now.
    pub fn take(&mut self, bytes: usize, now: Instant) -> bool {
        let Some(rate) = self.rate else {
            return true;
        };
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + since * rate).min(rate * BURST_SECONDS);
        self.filled = now;
        let passes = self.left >= bytes as f64;
        if passes {
            self.left -= bytes as f64;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_passes_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(1000.0), start);
        let passed = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(100, now)).count();
        assert_eq!(passed(&mut bucket, start), 10);
        assert_eq!(passed(&mut bucket, start + Duration::from_millis(500)), 5);
        assert_eq!(
            passed(&mut bucket, start + Duration::from_secs(60)),
            10,
            "no more is saved up"
        );
    }

    #[test]
    fn without_a_rate_everything_passes() {
        let start = Instant::now();
        assert!(Bucket::new(None, start).take(usize::MAX, start));
    }
}
