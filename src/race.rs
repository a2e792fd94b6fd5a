//! Attempts at the same thing on different addresses, of which at most one becomes a connection (in the spirit of
//! RFC 8305 §5).
//!
//! A server takes a handshake for done when the client's Finished arrives. So a race is decided where the client
//! becomes ready to send it: the engine asks `won` before it lets the winner transmit, and closes the others at once.

use rustc_hash::FxHashMap;

/// The races of an engine by the caller's numbers. A number is free again when all its connections are gone.
#[derive(Default)]
pub struct Races(FxHashMap<u64, Race>);

#[derive(Default)]
struct Race {
    /// The connections that are still there, in the order they joined.
    attempts: Vec<u64>,
    won: bool,
}

impl Races {
    pub fn is_won(&self, race: u64) -> bool {
        self.0.get(&race).is_some_and(|race| race.won)
    }

    /// A connection is an attempt of this race, which is not won.
    pub fn join(&mut self, race: u64, connection: u64) {
        self.0.entry(race).or_default().attempts.push(connection);
    }

    /// A connection is established: it has won, and these have lost.
    pub fn won(&mut self, race: u64, connection: u64) -> Vec<u64> {
        let Some(race) = self.0.get_mut(&race) else {
            return Vec::new();
        };
        race.won = true;
        let others = race.attempts.iter().filter(|id| **id != connection);
        others.copied().collect()
    }

    /// A connection is gone.
    pub fn leave(&mut self, race: u64, connection: u64) {
        let Some(found) = self.0.get_mut(&race) else {
            return;
        };
        found.attempts.retain(|id| *id != connection);
        if found.attempts.is_empty() {
            self.0.remove(&race);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_free_again_when_its_connections_are_gone() {
        let mut races = Races::default();
        for connection in [1, 2, 3] {
            races.join(7, connection);
        }
        assert!(!races.is_won(7));
        assert_eq!(races.won(7, 2), [1, 3]);
        for connection in [1, 2, 3] {
            assert!(races.is_won(7));
            races.leave(7, connection);
        }
        assert!(!races.is_won(7));
        assert!(races.0.is_empty());
    }
}
