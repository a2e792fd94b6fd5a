//! Paths that go on elsewhere: the peer, or we, are at another address, and noq need not know.
//!
//! A path whose two ends no longer reach each other can be given up, and another opened. But what was lost on it noq
//! sends again only when the old path is forgotten, three of its probe timeouts later, and the first acknowledgements
//! to arrive after a pause stretch these to many times the pause. So a path that was silent is moved instead: from then
//! on its packets are sent to where the peer is found to be (by connectivity checks, which prove that it is the peer),
//! and what comes from there is handed to noq as from where it was. Losses show with the first answer.
//!
//! A server's noq follows its client by itself (RFC 9000 §9), but keeps to the address that it had itself at first. What
//! is to leave from there leaves from where the server is now.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use noq_proto::{FourTuple, NetworkChangeHint, PathId, Transmit};
use rustc_hash::FxHashMap;

use crate::connection::Connection;
use crate::engine::Engine;

/// The peer's address and ours.
pub type Ends = (SocketAddr, IpAddr);

/// What noq takes for a path's ends, and what they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub path: PathId,
    pub known: Ends,
    pub actual: Ends,
}

/// All that are moved, by what their ends are.
#[derive(Default)]
pub struct Moves(FxHashMap<Ends, Move>);

impl Moves {
    /// The move that a datagram between these two has to follow inwards.
    pub fn inward(&self, path: FourTuple) -> Option<Move> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(path.remote(), path.local_ip()?)).copied()
    }

    /// The move by which something begun between these two goes with others that are there already.
    pub fn of(&self, remote: SocketAddr, local: Option<IpAddr>) -> Option<Move> {
        self.0.get(&(remote, local?)).copied()
    }

    fn add(&mut self, moved: Move) {
        self.0.insert(moved.actual, moved);
    }

    fn remove(&mut self, moved: Move) {
        self.0.remove(&moved.actual);
    }
}

impl Move {
    /// Where a datagram that is for noq's idea of the path really goes.
    pub fn outward(&self, transmit: &mut Transmit) {
        let (remote, local) = self.known;
        if transmit.destination == remote && transmit.src_ip.is_none_or(|ip| ip == local) {
            transmit.destination = self.actual.0;
            transmit.src_ip = Some(self.actual.1);
        }
    }

    /// What noq is to take a datagram's path for.
    pub fn known_path(&self) -> FourTuple {
        FourTuple::new(self.known.0, Some(self.known.1))
    }

    /// The ends that a path really has.
    pub fn seen(&self, ends: (SocketAddr, Option<IpAddr>)) -> (SocketAddr, Option<IpAddr>) {
        let (remote, local) = ends;
        if remote == self.known.0 && local.is_none_or(|ip| ip == self.known.1) {
            (self.actual.0, Some(self.actual.1))
        } else {
            ends
        }
    }
}

/// Every path may work again.
#[derive(Debug)]
struct Recoverable;

impl NetworkChangeHint for Recoverable {
    fn is_path_recoverable(&self, _: PathId, _: FourTuple) -> bool {
        true
    }
}

impl Connection {
    /// After a silence: send at once what would wait for a probe timeout that has been doubled again and again.
    pub fn nudge(&mut self, now: Instant) {
        // noq forgets its own addresses, and asks the peer's answers for them.
        self.first_local = self
            .open_paths()
            .into_iter()
            .filter_map(|path| self.ends(path))
            .collect();
        self.quic.handle_network_change(Some(&Recoverable), now);
    }

    /// As the server: what is to leave on this path leaves from this address. Returns whether there is such a path.
    pub fn relocate(&mut self, now: Instant, path: PathId, local: IpAddr) -> bool {
        let Some((_, known)) = self.ends(path) else {
            return false;
        };
        self.relocated.retain(|(from, _)| *from != known);
        if known != local {
            self.relocated.push((known, local));
        }
        self.pardon(path);
        // noq would drop what comes to another address than the one it knows.
        self.nudge(now);
        true
    }

    /// Where a datagram of noq's really goes to and comes from.
    pub fn outward(&self, transmit: &mut Transmit) {
        if let Some(moved) = &self.moved {
            moved.outward(transmit);
        }
        transmit.src_ip = transmit.src_ip.map(|ip| self.located(ip));
    }

    /// The ends that noq's path really has.
    pub fn seen(&self, remote: SocketAddr, local: Option<IpAddr>) -> (SocketAddr, Option<IpAddr>) {
        let local = local.map(|ip| self.located(ip));
        self.moved
            .map_or((remote, local), |moved| moved.seen((remote, local)))
    }

    fn located(&self, known: IpAddr) -> IpAddr {
        let found = self.relocated.iter().find(|(from, _)| *from == known);
        found.map_or(known, |(_, to)| *to)
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
    /// Let a path go on between other ends, and close all others: the connection is there from now on. Returns whether
    /// there is such a path.
    pub fn move_path(&mut self, now: Instant, id: u64, path: PathId, actual: Ends) -> bool {
        let Some(connection) = self.connection(id) else {
            return false;
        };
        let before = connection.moved;
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
        let moved = (known != actual).then_some(Move {
            path,
            known,
            actual,
        });
        connection.moved = moved;
        connection.pardon(path);
        connection.nudge(now);
        if let Some(moved) = moved {
            self.moves.add(moved);
        }
        if let Some(before) = before.filter(|before| Some(*before) != moved) {
            self.forget_move(before);
        }
        true
    }

    /// Forget where a path has moved that is given up: another may be opened there.
    pub fn end_move(&mut self, id: u64) {
        let Some(connection) = self.find(id) else {
            return;
        };
        let over = |moved: &Move| !connection.open_paths().contains(&moved.path);
        if let Some(moved) = connection.moved.filter(over) {
            connection.moved = None;
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
