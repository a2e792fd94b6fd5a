//! Paths that go on elsewhere: the peer, or we, are at another address, and noq need not know.
//!
//! A path whose two ends no longer reach each other can be given up, and another opened. But what was lost on it noq
//! sends again only when the old path is forgotten, three of its probe timeouts later, and the first acknowledgements
//! to arrive after a pause stretch these to many times the pause. So a path that was silent is moved instead: from then
//! on its packets are sent to where the peer is found to be (by connectivity checks, which prove that it is the peer),
//! and what comes from there is handed to noq as from where it was. Losses show with the first answer.
//!
//! A server's noq follows its client by itself (RFC 9000 §9), but drops what comes to another address of its own than the
//! one that it had at first. Where that is gone, it is told that the client has moved, to an address that nobody has.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use noq_proto::{FourTuple, PathId, Transmit};
use rustc_hash::FxHashMap;

use crate::answers::Answers;
use crate::connection::Connection;
use crate::engine::Engine;
use crate::route::synthetic_peer;

/// What may be sent in a silence each time that an answer is asked for: a packet.
const REPRIEVE: u64 = 1_500;
/// What may be sent after it, before anything is answered: as much as on a new path (RFC 9002 §7.2).
const NEW_REPRIEVE: u64 = 12_000;

/// The peer's address and ours.
pub type Ends = (SocketAddr, IpAddr);

/// What noq takes for a path's ends, and what they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Which path of a client's; of a server's, whichever comes from there.
    pub path: Option<PathId>,
    pub known: Ends,
    pub actual: Ends,
}

/// All that are moved, by what their ends are.
#[derive(Default)]
pub struct Moves {
    moves: FxHashMap<Ends, Move>,
    /// How many addresses that nobody has were given to clients.
    named: u32,
}

impl Moves {
    /// The move that a datagram between these two has to follow inwards.
    pub fn inward(&self, path: FourTuple) -> Option<Move> {
        if self.moves.is_empty() {
            return None;
        }
        self.of(path.remote(), path.local_ip())
    }

    /// The move by which something begun between these two goes with others that are there already.
    pub fn of(&self, remote: SocketAddr, local: Option<IpAddr>) -> Option<Move> {
        self.moves.get(&(remote, local?)).copied()
    }

    /// What servers are to take these ends for.
    fn named(&mut self, actual: Ends) -> Move {
        if let Some(moved) = self.moves.get(&actual) {
            return *moved;
        }
        self.named = self.named.wrapping_add(1);
        let moved = Move {
            path: None,
            known: (
                SocketAddr::new(synthetic_peer(self.named), actual.0.port()),
                actual.1,
            ),
            actual,
        };
        self.moves.insert(actual, moved);
        moved
    }

    fn add(&mut self, moved: Move) {
        self.moves.insert(moved.actual, moved);
    }

    fn remove(&mut self, moved: Move) {
        if self.moves.get(&moved.actual) == Some(&moved) {
            self.moves.remove(&moved.actual);
        }
    }
}

impl Move {
    fn is_of(&self, remote: SocketAddr, local: Option<IpAddr>) -> bool {
        remote == self.known.0 && local.is_none_or(|ip| ip == self.known.1)
    }

    /// Where a datagram that is for noq's idea of the path really goes.
    pub fn outward(&self, transmit: &mut Transmit) {
        if self.is_of(transmit.destination, transmit.src_ip) {
            (transmit.destination, transmit.src_ip) = (self.actual.0, Some(self.actual.1));
        }
    }

    /// What noq is to take a datagram's path for.
    pub fn known_path(&self) -> FourTuple {
        FourTuple::new(self.known.0, self.path.map(|_| self.known.1))
    }
}

impl Connection {
    /// In a silence: ask for an answer on every path, whatever else was lost.
    pub fn nudge(&mut self, now: Instant) {
        self.ask_all(now, REPRIEVE);
    }

    /// The silence is over, or the way is another one: have an answer show what was lost.
    fn resume(&mut self, now: Instant) {
        self.ask_all(now, NEW_REPRIEVE);
    }

    fn ask_all(&mut self, now: Instant, reprieve: u64) {
        for path in self.open_paths() {
            if let Some(answers) = Answers::of(&self.quic, path) {
                answers.reprieve(now, reprieve);
            }
            self.ping_path(path);
        }
    }

    /// Where a datagram of noq's really goes to and comes from.
    pub fn outward(&self, transmit: &mut Transmit) {
        let (remote, local) = (transmit.destination, transmit.src_ip);
        if let Some(moved) = self.moves.iter().find(|moved| moved.is_of(remote, local)) {
            moved.outward(transmit);
        }
    }

    /// The ends that noq's path really has.
    pub fn seen(&self, remote: SocketAddr, local: Option<IpAddr>) -> (SocketAddr, Option<IpAddr>) {
        let moved = self.moves.iter().find(|moved| moved.is_of(remote, local));
        moved.map_or((remote, local), |moved| {
            (moved.actual.0, Some(moved.actual.1))
        })
    }

    /// As the client: the path that noq takes for the one between these ends, and that is elsewhere. None can be opened
    /// there beside it.
    pub fn moved_from(&self, ends: Ends) -> Option<PathId> {
        let moved = self.moves.first().filter(|moved| moved.known == ends)?;
        let open = self.open_paths();
        moved
            .path
            .filter(|path| moved.actual != ends && open.contains(path))
    }

    /// Those of its moves that are over: noq has forgotten the path, or all are elsewhere by now. What the peer has sent
    /// on a path until it learns that it is given up still counts.
    fn ended_moves(&self) -> Vec<Move> {
        let (open, known) = (self.open_paths(), self.quic.paths());
        let is_at = |moved: &Move, path: &PathId| {
            let ends = self.quic.network_path(*path);
            ends.is_ok_and(|ends| moved.is_of(ends.remote(), ends.local_ip()))
        };
        let is_over = |moved: &&Move| match moved.path {
            Some(path) => !known.contains(&path),
            // The client may not have come yet to where it was last found.
            None => self.moves.last() != Some(moved) && !open.iter().any(|path| is_at(moved, path)),
        };
        self.moves.iter().filter(is_over).copied().collect()
    }

    fn ends(&self, path: PathId) -> Option<Ends> {
        let path = self.quic.network_path(path).ok()?;
        let local = path
            .local_ip()
            .or_else(|| self.first_local(path.remote()))?;
        Some((path.remote(), local))
    }
}

impl Engine {
    /// As the client: let a path go on between other ends, and close all others; the connection is there from now on.
    /// Returns whether there is such a path.
    pub fn move_path(&mut self, now: Instant, id: u64, path: PathId, actual: Ends) -> bool {
        let Some(connection) = self.connection(id) else {
            return false;
        };
        let ends = connection.ends(path).or_else(|| {
            let remote = connection.quic.network_path(path).ok()?.remote();
            Some((remote, actual.1))
        });
        let Some(known) = ends.filter(|_| connection.open_paths().contains(&path)) else {
            return false;
        };
        for other in connection.open_paths() {
            if other != path {
                let _ = connection.close_path(now, other);
            }
        }
        let (remote, local) = connection.seen(known.0, Some(known.1));
        let former = (remote, local.unwrap_or(known.1));
        let at = |actual| Move {
            path: Some(path),
            known,
            actual,
        };
        let moves = if former == actual {
            connection.moves.clone()
        } else if former != known {
            // The peer sends there until it learns of the move, and noq would follow what comes.
            vec![at(actual), at(former)]
        } else {
            vec![at(actual)]
        };
        let before = std::mem::replace(&mut connection.moves, moves.clone());
        connection.pardon(path);
        connection.resume(now);
        for each in before {
            self.forget_move(each);
        }
        for each in moves {
            self.moves.add(each);
        }
        true
    }

    /// Another path begins between these ends: what comes from there is for that one, and what it sends goes there.
    pub fn vacate(&mut self, id: u64, ends: Ends) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        let open = connection.open_paths();
        let is_over = |moved: &Move| moved.path.is_some_and(|path| !open.contains(&path));
        let is_former = |index: usize, moved: &Move| index > 0 && moved.path.is_some();
        let moves = connection.moves.iter().enumerate();
        let left: Vec<_> = moves
            .filter(|(index, moved)| {
                let is_here = moved.actual == ends || (is_over(moved) && moved.known == ends);
                is_here && (is_former(*index, moved) || is_over(moved))
            })
            .map(|(_, moved)| *moved)
            .collect();
        connection.moves.retain(|moved| !left.contains(moved));
        for moved in left {
            self.forget_move(moved);
        }
    }

    /// As the server: let the client go on between these ends, where its paths' ends here are gone.
    pub fn relocate(&mut self, now: Instant, id: u64, actual: Ends) {
        let moved = self.moves.named(actual);
        if let Some(connection) = self.connection(id) {
            connection.moves.retain(|each| *each != moved);
            connection.moves.push(moved);
            for path in connection.open_paths() {
                connection.pardon(path);
            }
            connection.resume(now);
        }
    }

    /// Forget where paths have moved that are given up: others may be opened there.
    pub fn end_moves(&mut self, id: u64) {
        let Some(connection) = self.find(id) else {
            return;
        };
        let over = connection.ended_moves();
        connection.moves.retain(|moved| !over.contains(moved));
        for moved in over {
            self.forget_move(moved);
        }
    }

    /// A connection does not follow this move any more.
    pub fn forget_move(&mut self, moved: Move) {
        if !self.follows(moved) {
            self.moves.remove(moved);
        }
    }
}
