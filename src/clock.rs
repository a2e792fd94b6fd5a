//! The caller's clock of an engine in memory. Nothing there may read the system's, or a run could not be repeated.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use noq_proto::TimeSource;

/// What the wall shows when the caller's clock starts: any day after 1970 does, as long as it is always the same.
const WALL_AT_START: Duration = Duration::from_secs(1 << 30);

pub struct Clock {
    start: Instant,
    /// Nanoseconds since `start`.
    passed: AtomicU64,
}

impl Clock {
    /// `start`: the instant that is zero on the caller's clock.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            passed: AtomicU64::new(0),
        }
    }

    pub fn now(&self) -> Instant {
        self.start + self.passed()
    }

    /// Move to this time; the clock does not go back.
    pub fn set(&self, time: Instant) {
        let passed = time.saturating_duration_since(self.start).as_nanos();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.passed.fetch_max(passed, Ordering::Relaxed);
    }

    fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed.load(Ordering::Relaxed))
    }
}

/// For the age of address validation tokens (RFC 9000 §8.1.3).
impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + WALL_AT_START + self.passed()
    }
}
