//! The paths of one connection (draft-ietf-quic-multipath): which there are, and what each side wants of them. Whether
//! they work, `watch` sees to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use noq_proto::{
    ClosePathError, FourTuple, PathAbandonReason, PathError, PathEvent, PathId, PathStatus,
    SetPathStatusError, VarInt,
};

use crate::answers::Answers;
use crate::connection::{Connection, Event};
use crate::migration::Migrations;
use crate::watch::Watch;

/// How many paths a connection may have at once. Four are enough: one in use, a relay, another family, and one that is
/// being tried. Of later ones the connection ids are told when an earlier one is given up, and may be lost with it, so
/// that as many more are told of from the beginning.
pub const MAX_PATHS: u32 = 8;

/// RFC 9000 §18.2 has 25 ms as the default of what a peer may wait to acknowledge, and ours never says otherwise.
pub const LONGEST_ACK_DELAY: Duration = Duration::from_millis(25);

/// draft-ietf-quic-multipath §7: why a path is abandoned, APPLICATION_ABANDON_PATH and PATH_UNSTABLE_OR_POOR.
const NOT_WANTED: VarInt = VarInt::from_u32(0x3e);
pub const SILENT: VarInt = VarInt::from_u32(0x3e76);

/// What a path may have on its way at first that takes over from another.
const MOST_AT_ONCE: u64 = 128 << 10;

/// How long answers may take to what was sent on a path that is given up, at least.
const OVERDUE: Duration = Duration::from_millis(500);

/// By how much another time than noq's may be meant, when it forgets a path: less than half of `OVERDUE`.
const UNCERTAINTY: Duration = Duration::from_millis(200);

/// How often it is counted what a client has given up.
const BETWEEN_COUNTS: Duration = Duration::from_secs(1);
/// What a client may so get beyond `MAX_PATHS`, for it can say more than once that it gives a path up.
const MOST_REPLACED: u64 = 1000;

/// After how long a connection ends in silence; a path in use is given up; and one that is not in use is pinged.
#[derive(Clone, Copy)]
pub struct Timeouts {
    pub idle: Duration,
    pub path_idle: Duration,
    pub path_keep_alive: Duration,
}

/// What noq does not keep about a connection's paths.
pub struct Paths {
    /// Those that have carried a response to a challenge, and the first.
    validated: BTreeSet<PathId>,
    /// Those that noq has given up and not yet forgotten.
    abandoned: BTreeSet<PathId>,
    /// Of these, the ones that had stopped working, on which something may have been in flight.
    failed: BTreeSet<PathId>,
    /// How many PATH_ABANDON frames had come when the peer last agreed to one that failed.
    abandon_frames: u64,
    /// When that was, until what is left has been taken for lost.
    agreed: Option<Instant>,
    /// How many frames of the peer's had come at the last look, and when that was another number.
    frames: u64,
    heard: Option<Instant>,
    /// Those of ours that are not validated yet, of whose status the peer has been told.
    announced: BTreeSet<PathId>,
    /// How many noq has given up in all.
    given_up: u64,
    /// As the accepting side: how many numbers of paths that never reached us the client was given others for, and when
    /// that was looked at.
    replaced: u64,
    counted: Option<Instant>,
    /// As the accepting side: what the client wants of paths that have not reached us yet.
    wanted: BTreeMap<PathId, PathStatus>,
    pub migrations: Migrations,
    pub watch: Watch,
    /// By how much timers may run early: less than the connection's idle timeout, which is one of them.
    most_early: Duration,
}

impl Paths {
    pub fn new(timeouts: Timeouts) -> Self {
        Self {
            validated: BTreeSet::from([PathId::ZERO]),
            abandoned: BTreeSet::new(),
            failed: BTreeSet::new(),
            abandon_frames: 0,
            agreed: None,
            frames: 0,
            heard: None,
            announced: BTreeSet::new(),
            given_up: 0,
            replaced: 0,
            counted: None,
            wanted: BTreeMap::new(),
            migrations: Migrations::default(),
            watch: Watch::new(timeouts.path_idle, timeouts.path_keep_alive),
            most_early: timeouts.idle * 9 / 10,
        }
    }
}

impl Connection {
    /// The paths that are not given up, in the order they were opened.
    pub fn open_paths(&self) -> Vec<PathId> {
        let mut paths = self.quic.paths();
        paths.retain(|path| !self.paths.abandoned.contains(path));
        paths
    }

    pub fn is_path_validated(&self, path: PathId) -> bool {
        self.was_connected && self.paths.validated.contains(&path)
    }

    /// Open a path, from the local address if given. Its id, for good; `None` when one can't be opened yet.
    pub fn open_path(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: Option<IpAddr>,
        status: PathStatus,
    ) -> Result<Option<PathId>, PathError> {
        let tuple = FourTuple::new(remote, local);
        match self.quic.open_path(tuple, PathStatus::Available, now) {
            Ok(path) => {
                // What a path is opened with, noq keeps to itself; a change it tells the peer.
                let _ = self.quic.set_path_status(path, status);
                self.paths.announced.insert(path);
                Ok(Some(path))
            }
            Err(PathError::MaxPathIdReached | PathError::RemoteCidsExhausted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn set_path_status(
        &mut self,
        path: PathId,
        status: PathStatus,
    ) -> Result<(), SetPathStatusError> {
        if self.paths.abandoned.contains(&path) {
            return Err(SetPathStatusError::ClosedPath);
        }
        self.quic.set_path_status(path, status).map(drop)
    }

    pub fn close_path(&mut self, now: Instant, path: PathId) -> Result<(), ClosePathError> {
        self.give_up_path(now, path, NOT_WANTED)
    }

    pub fn give_up_path(
        &mut self,
        now: Instant,
        path: PathId,
        code: VarInt,
    ) -> Result<(), ClosePathError> {
        self.quic.close_path(now, path, code)?;
        self.collect(now);
        Ok(())
    }

    /// Have noq send again, over another path, what was in flight on those that failed.
    ///
    /// Once both sides have abandoned a path, noq waits three probe timeouts for late acknowledgements before it takes
    /// what is left for lost. One that was silent for so long that it was given up has none on their way; so the timers
    /// until then are run at once. What else they do is early as well: a probe, an acknowledgement. But a
    /// path that is being validated at another address would be given up, so that is waited for.
    ///
    /// The connection's idle timeout is one of them, so no others may run as early as that. An answer that was delayed
    /// for long, as by a peer that slept, stretches the probe timeouts beyond it; but the idle timeout with them, from
    /// the next packet on, for it is three of the longest one at least (RFC 9000 §10.1).
    pub fn recover_lost(&mut self, now: Instant) {
        if self.paths.abandoned.is_empty()
            || self.quic.is_closed()
            || self.open_paths().is_empty()
            || self.is_migrating(now)
        {
            return;
        }
        let agreed = self.look_for_agreement(now);
        let overdue = self.since_overdue();
        if overdue.is_some() {
            self.paths.agreed = None;
            self.paths.failed.extend(&self.paths.abandoned);
        }
        if self.paths.failed.is_empty() || !(agreed || overdue.is_some()) {
            return;
        }
        let window = self.paths.failed.iter();
        let window = window.filter_map(|path| self.quic.congestion_state(*path));
        let window = window.map(|state| state.window()).max().unwrap_or(0);
        for path in self.paths.failed.clone() {
            let rtt = self.quic.rtt(path).unwrap_or_default();
            let wait = 3 * (10 * rtt + LONGEST_ACK_DELAY);
            let early = now + wait.min(self.paths.most_early);
            let forgotten = overdue.and_then(|since| self.forgotten_at(path, since));
            let limit = forgotten.map_or(early, |time| time.max(early));
            while self.paths.failed.contains(&path)
                && let Some(time) = self.quic.poll_timeout().filter(|time| *time <= limit)
            {
                self.quic.handle_timeout(time.max(now));
                self.collect(now);
            }
        }
        if self.paths.failed.is_empty() {
            self.jump(now, window / 4);
        }
    }

    /// Whether the peer has agreed to give up a path since the last look; note when it is heard.
    fn look_for_agreement(&mut self, now: Instant) -> bool {
        let stats = self.quic.stats().frame_rx;
        let frames = stats.path_acks + stats.stream + stats.ping + stats.path_abandon;
        if std::mem::replace(&mut self.paths.frames, frames) != frames {
            self.paths.heard = Some(now);
        }
        let before = std::mem::replace(&mut self.paths.abandon_frames, stats.path_abandon);
        let agreed = before != stats.path_abandon;
        if agreed {
            self.paths.agreed = Some(now);
        }
        agreed
    }

    /// When the peer agreed, if it has been heard for so long since then that all answers must have come, and the idle
    /// timeout is by as much later than what is waited for. An answer in the very last packet was none yet when that
    /// timeout began anew.
    fn since_overdue(&self) -> Option<Instant> {
        let (since, heard) = (self.paths.agreed?, self.paths.heard?);
        let open = self.open_paths().into_iter();
        let rtt = open.filter_map(|path| self.quic.rtt(path)).min();
        let patience = OVERDUE.max(2 * rtt.unwrap_or_default());
        let is_late = |path: &PathId| {
            let answers = Answers::of(&self.quic, *path);
            answers.is_some_and(|answers| answers.last() >= Some(heard))
        };
        let is_over = heard >= since + patience && !self.paths.abandoned.iter().any(is_late);
        is_over.then_some(since)
    }

    /// When noq forgets a path to whose end the peer agreed then, at the latest.
    fn forgotten_at(&self, path: PathId, agreed: Instant) -> Option<Instant> {
        let timeout = Answers::probe_timeout(&self.quic, path)? + LONGEST_ACK_DELAY;
        Some(agreed + 3 * timeout + UNCERTAINTY)
    }

    /// Let a path that has carried little have more on its way at first than a new one.
    ///
    /// Half of what was on its way on the path that failed has arrived, and its acknowledgements have not: that is sent
    /// again before anything that the peer waits for, and would take many round trips of slow start.
    fn jump(&mut self, now: Instant, bytes: u64) {
        for path in self.open_paths() {
            if self.is_path_validated(path)
                && let Some(answers) = Answers::of(&self.quic, path)
            {
                answers.jump(now, bytes.min(MOST_AT_ONCE));
            }
        }
    }

    /// Let there be another number for each path that the client has given up before anything of it reached the server.
    ///
    /// noq allows for another path when one that it knows is given up; of one that it does not know it takes no notice,
    /// and the client, which waits for its consent, would have used up its numbers after a few attempts.
    pub fn replace_numbers(&mut self, now: Instant) {
        let is_due = self
            .paths
            .counted
            .is_none_or(|at| now >= at + BETWEEN_COUNTS);
        if !is_due || self.quic.is_closed() {
            return;
        }
        self.paths.counted = Some(now);
        if self.quic.side().is_client() {
            // What it has given up itself it does not count.
            let _ = NonZeroU32::new(MAX_PATHS)
                .map(|count| self.quic.set_max_concurrent_paths(now, count));
            return;
        }
        let frames = self.quic.stats().frame_rx.path_abandon;
        let unknown = frames
            .saturating_sub(self.paths.given_up)
            .min(MOST_REPLACED);
        if unknown > self.paths.replaced
            && let Some(count) = NonZeroU32::new(MAX_PATHS + unknown as u32)
            && self.quic.set_max_concurrent_paths(now, count).is_ok()
        {
            self.paths.replaced = unknown;
        }
    }

    /// Have the peer acknowledge something on this path. Returns whether there is such a path.
    pub fn ping_path(&mut self, path: PathId) -> bool {
        !self.paths.abandoned.contains(&path) && self.quic.ping_path(path).is_ok()
    }

    /// Note what happened to a path; returns what the layer above must know of it.
    pub fn on_path_event(&mut self, now: Instant, event: PathEvent) -> Option<Event> {
        match event {
            PathEvent::Established { id, .. } => {
                self.paths.validated.insert(id);
                self.agree_on_status(id);
                let ends = self.quic.network_path(id).ok()?;
                let (remote, _) = self.seen(ends.remote(), ends.local_ip());
                Some(Event::PathOpened(id, remote))
            }
            PathEvent::Abandoned { id, reason, .. } => {
                self.paths.validated.remove(&id);
                self.paths.announced.remove(&id);
                self.paths.wanted.remove(&id);
                self.paths.abandoned.insert(id);
                self.paths.given_up += 1;
                let loss = PathLoss::from(reason);
                if loss == PathLoss::TimedOut || self.is_in_question(now, id) {
                    self.paths.failed.insert(id);
                }
                Some(Event::PathLost(id, loss))
            }
            PathEvent::Discarded { id, .. } => {
                self.paths.abandoned.remove(&id);
                self.paths.failed.remove(&id);
                None
            }
            PathEvent::RemoteStatus { id, status, .. } => {
                // noq tells of each frame, even one that a newer one has overtaken on a faster path.
                let status = self.quic.remote_path_status(id).unwrap_or(status);
                self.follow_status(id, status);
                Some(Event::PathStatus(id, status))
            }
            _ => None,
        }
    }

    /// Each side chooses by its own statuses what to send where, so the accepting side takes over the client's: else
    /// data would go on over a path that the client wants as a backup.
    fn follow_status(&mut self, path: PathId, status: PathStatus) {
        if self.quic.side().is_server() && self.quic.set_path_status(path, status).is_err() {
            self.paths.wanted.insert(path, status);
            // A client may name as many as it likes, but open only these.
            while self.paths.wanted.len() > MAX_PATHS as usize {
                self.paths.wanted.pop_first();
            }
        }
    }

    /// A path is validated: make sure that both sides mean the same by it.
    fn agree_on_status(&mut self, path: PathId) {
        if self.quic.side().is_server() {
            if let Some(status) = self.paths.wanted.remove(&path) {
                let _ = self.quic.set_path_status(path, status);
            }
        } else if !self.paths.announced.remove(&path)
            && self.quic.path_status(path) == Ok(PathStatus::Backup)
        {
            // noq opened it, after NAT traversal; only a change is told.
            let _ = self.quic.set_path_status(path, PathStatus::Available);
            let _ = self.quic.set_path_status(path, PathStatus::Backup);
        }
    }
}

/// Why a path was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathLoss {
    Closed,
    ClosedByPeer,
    TimedOut,
    NetworkChanged,
}

impl From<PathAbandonReason> for PathLoss {
    fn from(reason: PathAbandonReason) -> Self {
        match reason {
            PathAbandonReason::ApplicationClosed { error_code }
            | PathAbandonReason::RemoteAbandoned { error_code }
                if error_code == SILENT =>
            {
                Self::TimedOut
            }
            PathAbandonReason::ApplicationClosed { .. } => Self::Closed,
            PathAbandonReason::RemoteAbandoned { .. } => Self::ClosedByPeer,
            PathAbandonReason::UnusableAfterNetworkChange => Self::NetworkChanged,
            _ => Self::TimedOut,
        }
    }
}
