//! The paths of one connection (draft-ietf-quic-multipath): which there are, and which of them work.
//!
//! noq has an idle timeout and a keep-alive for each path, and neither serves. A ping that arrives puts off the other
//! side's, so that one side alone ever pings, and the acknowledgements it gets may come on another path. And when all
//! paths fall silent for a moment, each side gives up one of its own choice, which leaves none. So while there are
//! several paths, each side pings all of them on a timer that receiving does not touch, and gives up the silent ones
//! only as long as another is heard from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use noq_proto::{
    ClosePathError, FourTuple, PathAbandonReason, PathError, PathEvent, PathId, PathStatus,
    SetPathStatusError, VarInt,
};

use crate::connection::{Connection, Event};

/// How many paths a connection may have at once: one in use, a relay, another family, and one that is being tried.
pub const MAX_PATHS: u32 = 4;
/// Pings within a path's idle timeout; all must be lost, and what is sent again for each, before it is given up.
const PINGS: u32 = 6;
/// The shortest idle timeout: pings more often than each 10 ms would be a load, and prove no more.
pub const MIN_IDLE_TIMEOUT: Duration = Duration::from_millis(60);
/// How long a new path has to be validated: enough for four challenges.
const VALIDATION_TIMEOUT: Duration = Duration::from_secs(3);

/// draft-ietf-quic-multipath §7: why a path is abandoned, APPLICATION_ABANDON_PATH and PATH_UNSTABLE_OR_POOR.
const NOT_WANTED: VarInt = VarInt::from_u32(0x3e);
const SILENT: VarInt = VarInt::from_u32(0x3e76);

/// What has been heard on a path.
struct Hearing {
    datagrams: u64,
    /// When that number was found to have changed, or the path to be there.
    last: Instant,
}

/// What noq does not keep about a connection's paths.
pub struct Paths {
    /// Those that have carried a response to a challenge, and the first.
    validated: BTreeSet<PathId>,
    /// Those that noq has given up and not yet forgotten.
    abandoned: BTreeSet<PathId>,
    /// Those of ours that are not validated yet, of whose status the peer has been told.
    announced: BTreeSet<PathId>,
    /// As the accepting side: what the client wants of paths that have not reached us yet.
    wanted: BTreeMap<PathId, PathStatus>,
    /// By path, as of the last pings.
    hearing: BTreeMap<PathId, Hearing>,
    idle_timeout: Duration,
    next_ping: Option<Instant>,
}

impl Paths {
    pub fn new(idle_timeout: Duration) -> Self {
        Self {
            validated: BTreeSet::from([PathId::ZERO]),
            abandoned: BTreeSet::new(),
            announced: BTreeSet::new(),
            wanted: BTreeMap::new(),
            hearing: BTreeMap::new(),
            idle_timeout,
            next_ping: None,
        }
    }

    pub fn next_ping(&self) -> Option<Instant> {
        self.next_ping
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

    fn give_up_path(
        &mut self,
        now: Instant,
        path: PathId,
        code: VarInt,
    ) -> Result<(), ClosePathError> {
        self.quic.close_path(now, path, code)?;
        self.collect(now);
        Ok(())
    }

    /// Have the peer acknowledge something on this path. Returns whether there is such a path.
    pub fn ping_path(&mut self, path: PathId) -> bool {
        !self.paths.abandoned.contains(&path) && self.quic.ping_path(path).is_ok()
    }

    /// Note what happened to a path; returns what the layer above must know of it.
    pub fn on_path_event(&mut self, event: PathEvent) -> Option<Event> {
        match event {
            PathEvent::Established { id, .. } => {
                self.paths.validated.insert(id);
                self.agree_on_status(id);
                let remote = self.quic.network_path(id).ok()?.remote();
                Some(Event::PathOpened(id, remote))
            }
            PathEvent::Abandoned { id, reason, .. } => {
                self.paths.validated.remove(&id);
                self.paths.announced.remove(&id);
                self.paths.wanted.remove(&id);
                self.paths.abandoned.insert(id);
                Some(Event::PathLost(id, reason.into()))
            }
            PathEvent::Discarded { id, .. } => {
                self.paths.abandoned.remove(&id);
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

    /// See whether there are paths to be pinged. The only path needs no proof that it works: there is nowhere to go
    /// from it.
    pub fn watch_paths(&mut self, now: Instant) {
        let several = self.quic.is_multipath_negotiated()
            && !self.quic.is_closed()
            && self.open_paths().len() > 1;
        self.paths.next_ping = several.then(|| self.paths.next_ping.unwrap_or(now));
    }

    /// Ping the paths if it is time, and give up those that don't answer.
    pub fn keep_paths(&mut self, now: Instant) {
        if self.paths.next_ping.is_none_or(|due| due > now) {
            return;
        }
        let open = self.open_paths();
        self.listen(now, &open);
        for path in self.silent_paths(now, &open) {
            // Refused for the last one.
            let _ = self.give_up_path(now, path, SILENT);
        }
        for path in open {
            self.ping_path(path);
        }
        self.paths.next_ping = Some(now + self.paths.idle_timeout / PINGS);
    }

    fn listen(&mut self, now: Instant, open: &[PathId]) {
        self.paths.hearing.retain(|path, _| open.contains(path));
        for path in open {
            let stats = self.quic.path_stats(*path).unwrap_or_default();
            let datagrams = stats.udp_rx.datagrams;
            let heard = self.paths.hearing.entry(*path);
            let heard = heard.or_insert(Hearing {
                datagrams,
                last: now,
            });
            if heard.datagrams != datagrams {
                *heard = Hearing {
                    datagrams,
                    last: now,
                };
            }
        }
    }

    /// The paths on which nothing has been heard for too long, if there is another that is known to work.
    fn silent_paths(&self, now: Instant, open: &[PathId]) -> Vec<PathId> {
        let silence = |path: &PathId| now.saturating_duration_since(self.paths.hearing[path].last);
        let works = |path: &&PathId| {
            self.paths.validated.contains(path) && silence(path) < self.paths.idle_timeout / 2
        };
        if !open.iter().any(|path| works(&path)) {
            return Vec::new();
        }
        let patience = |path: &PathId| {
            if self.paths.validated.contains(path) {
                self.paths.idle_timeout
            } else {
                VALIDATION_TIMEOUT.max(self.paths.idle_timeout)
            }
        };
        let is_silent = |path: &&PathId| silence(path) >= patience(path);
        open.iter().filter(is_silent).copied().collect()
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
