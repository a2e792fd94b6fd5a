//! How often something may happen on a peer's account, whatever connections it has.

use std::time::Instant;

use rustc_hash::FxHashMap;

use crate::tls::PeerKey;

/// Peers remembered that have asked for something lately; only beyond that are those looked for that can be forgotten.
const REMEMBERED: usize = 1024;

/// So many times in quick succession, and so many a second in the long run.
pub struct Budget {
    burst: f64,
    rate: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    fn renew(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = self.burst.min(self.left + passed * self.rate);
        self.at = self.at.max(now);
    }

    /// Whether it may happen once more.
    pub fn allows(&mut self, now: Instant) -> bool {
        self.renew(now);
        self.left >= 1.0
    }

    /// It has happened.
    pub fn spend(&mut self) {
        self.left -= 1.0;
    }

    fn is_whole(&mut self, now: Instant) -> bool {
        self.renew(now);
        self.left >= self.burst
    }
}

/// The budgets of all peers; one for those together whose key is not known.
pub struct Budgets {
    burst: f64,
    rate: f64,
    by_peer: FxHashMap<Option<PeerKey>, Budget>,
}

impl Budgets {
    pub fn new(burst: f64, rate: f64) -> Self {
        Self {
            burst,
            rate,
            by_peer: FxHashMap::default(),
        }
    }

    pub fn of(&mut self, now: Instant, peer: Option<PeerKey>) -> &mut Budget {
        if self.by_peer.len() >= REMEMBERED && !self.by_peer.contains_key(&peer) {
            self.by_peer.retain(|_, budget| !budget.is_whole(now));
        }
        let (burst, rate) = (self.burst, self.rate);
        self.by_peer.entry(peer).or_insert(Budget {
            burst,
            rate,
            left: burst,
            at: now,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn take(budgets: &mut Budgets, now: Instant, peer: PeerKey) -> bool {
        let budget = budgets.of(now, Some(peer));
        let allowed = budget.allows(now);
        if allowed {
            budget.spend();
        }
        allowed
    }

    #[test]
    fn each_peer_has_its_own_and_it_is_renewed() {
        let (mut budgets, start) = (Budgets::new(3.0, 0.5), Instant::now());
        let taken = (0..10)
            .filter(|_| take(&mut budgets, start, [1; 32]))
            .count();
        assert_eq!(taken, 3);
        assert!(take(&mut budgets, start, [2; 32]));
        let later = start + Duration::from_secs(3);
        assert!(take(&mut budgets, later, [1; 32]));
        assert!(!take(&mut budgets, later, [1; 32]));
    }

    #[test]
    fn who_asks_for_nothing_any_more_is_forgotten() {
        let (mut budgets, mut now) = (Budgets::new(3.0, 1.0), Instant::now());
        for number in 0..10_000_u32 {
            let mut peer = [0; 32];
            peer[..4].copy_from_slice(&number.to_le_bytes());
            take(&mut budgets, now, peer);
            now += Duration::from_millis(10);
        }
        assert!(budgets.by_peer.len() <= REMEMBERED);
    }
}
