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

use crate::connection::{Connection, Event};
use crate::migration::Migrations;
use crate::recovery::Recovery;
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
    pub abandoned: BTreeSet<PathId>,
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
    pub recovery: Recovery,
}

impl Paths {
    pub fn new(timeouts: Timeouts) -> Self {
        Self {
            validated: BTreeSet::from([PathId::ZERO]),
            abandoned: BTreeSet::new(),
            announced: BTreeSet::new(),
            given_up: 0,
            replaced: 0,
            counted: None,
            wanted: BTreeMap::new(),
            migrations: Migrations::default(),
            watch: Watch::new(timeouts.path_idle, timeouts.path_keep_alive),
            recovery: Recovery::new(timeouts.idle),
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
                    self.paths.recovery.note_failed(id);
                }
                Some(Event::PathLost(id, loss))
            }
            PathEvent::Discarded { id, .. } => {
                self.paths.abandoned.remove(&id);
                self.paths.recovery.note_discarded(id);
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
