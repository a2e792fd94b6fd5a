//! Which of a server's paths have followed their client elsewhere (RFC 9000 §9), and are not validated there yet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use noq_proto::{PathId, PathStatus};

use crate::connection::Connection;

/// After this noq has given up: it has three probe timeouts' patience.
const PATIENCE: Duration = Duration::from_secs(3);

struct Seen {
    remote: SocketAddr,
    /// PATH_RESPONSE frames that have come on the path.
    responses: u64,
    /// Since when one is due, that proves that the client is where its packets come from.
    since: Option<Instant>,
    status: PathStatus,
}

/// What was seen of each path at the last look.
#[derive(Default)]
pub struct Migrations(BTreeMap<PathId, Seen>);

impl Connection {
    /// Note where the client's paths are. noq tells nobody of a migration, nor of its end; and takes it, at another IP
    /// address, for a new path of which the client has not said yet what it is for.
    pub fn note_migrations(&mut self, now: Instant) {
        if self.quic.side().is_client() || !self.quic.is_multipath_negotiated() {
            return;
        }
        let open = self.open_paths();
        self.paths
            .migrations
            .0
            .retain(|path, _| open.contains(path));
        for path in open {
            let Ok(tuple) = self.quic.network_path(path) else {
                continue;
            };
            let stats = self.quic.path_stats(path).unwrap_or_default();
            let responses = stats.frame_rx.path_response;
            let status = self.quic.path_status(path).unwrap_or(PathStatus::Available);
            let seen = self.paths.migrations.0.entry(path).or_insert(Seen {
                remote: tuple.remote(),
                responses,
                since: None,
                status,
            });
            if seen.remote != tuple.remote() {
                seen.since = Some(now);
                if self.quic.remote_path_status(path).is_none() {
                    let _ = self.quic.set_path_status(path, seen.status);
                }
            } else if seen.responses != responses {
                seen.since = None;
            }
            seen.status = self.quic.path_status(path).unwrap_or(seen.status);
            (seen.remote, seen.responses) = (tuple.remote(), responses);
        }
    }

    /// Whether a path is being validated at another address than before.
    pub fn is_migrating(&self, now: Instant) -> bool {
        let is_due = |seen: &Seen| seen.since.is_some_and(|since| now < since + PATIENCE);
        self.paths.migrations.0.values().any(is_due)
    }
}
