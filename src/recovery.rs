//! What was on its way on paths that failed, and has not arrived: it is sent again over another.
//!
//! Once both sides have abandoned a path, noq waits three probe timeouts for late acknowledgements before it takes what
//! is left for lost. One that was silent for so long that it was given up has none on their way; so the timers until then
//! are run at once. What else they do is early as well: a probe, an acknowledgement. But a path that is being validated
//! at another address would be given up, so that is waited for.
//!
//! What had arrived has been acknowledged over the path that failed, too. So the peer is asked first, over the others:
//! probes have it acknowledge at once what has come on any path (draft-ietf-quic-ack-frequency §5).
//!
//! The connection's idle timeout is one of the timers, so no others may run as early as that. An answer that was delayed
//! for long, as by a peer that slept, stretches the probe timeouts beyond it; but the idle timeout with them, from the
//! next packet on, for it is three of the longest one at least (RFC 9000 §10.1).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use noq_proto::PathId;

use crate::answers::Answers;
use crate::connection::Connection;
use crate::estimate::Estimate;
use crate::path::LONGEST_ACK_DELAY;

/// What a path may have on its way at first that takes over from another.
const MOST_AT_ONCE: u64 = 128 << 10;

/// Which of noq's probes are sent at once, to ask what has arrived: the first was due before if the peer acknowledged over
/// the path that failed, and each is waited for twice as long as the one before.
const PROBES: u32 = 2;

/// How long answers may take to what was sent on a path that is given up, at least.
const OVERDUE: Duration = Duration::from_millis(500);

/// By how much another time than noq's may be meant, when it forgets a path: less than half of `OVERDUE`.
const UNCERTAINTY: Duration = Duration::from_millis(200);

/// What is known of the paths that failed.
pub struct Recovery {
    /// Those that noq has not forgotten, on which something may have been in flight.
    failed: BTreeSet<PathId>,
    /// When the peer was asked what has arrived, since the last one failed.
    asked: Option<Instant>,
    /// It has given up one of them, too, since the last one was forgotten.
    is_agreed: bool,
    /// It has answered, or does not.
    is_known: bool,
    /// When there is something to do next.
    next_step: Option<Instant>,
    /// How many PATH_ABANDON frames had come when the peer last agreed.
    abandon_frames: u64,
    /// When that was, until what is left has been taken for lost.
    agreed: Option<Instant>,
    /// How many frames of the peer's had come at the last look, and when that was another number.
    frames: u64,
    heard: Option<Instant>,
    /// By how much timers may run early: less than the connection's idle timeout.
    most_early: Duration,
}

impl Recovery {
    /// `idle_timeout`: the connection's.
    pub fn new(idle_timeout: Duration) -> Self {
        Self {
            failed: BTreeSet::new(),
            asked: None,
            is_agreed: false,
            is_known: false,
            next_step: None,
            abandon_frames: 0,
            agreed: None,
            frames: 0,
            heard: None,
            most_early: idle_timeout * 9 / 10,
        }
    }

    /// A path was given up that had stopped working.
    pub fn note_failed(&mut self, path: PathId) {
        self.failed.insert(path);
        self.asked = None;
        self.is_known = false;
    }

    /// noq has forgotten a path, and sends again what was left.
    pub fn note_discarded(&mut self, path: PathId) {
        self.failed.remove(&path);
    }

    /// When `recover_lost` wants to be called.
    pub fn next_step(&self) -> Option<Instant> {
        self.next_step
    }
}

impl Connection {
    /// Have noq send again what was in flight on paths that failed, once it is known, or over with them.
    pub fn recover_lost(&mut self, now: Instant) {
        self.paths.recovery.next_step = None;
        if self.paths.abandoned.is_empty() {
            self.paths.recovery.agreed = None;
            return;
        }
        if self.quic.is_closed() || self.open_paths().is_empty() || self.is_migrating(now) {
            return;
        }
        let agreed = self.look_for_agreement(now);
        let overdue = self.since_overdue();
        if overdue.is_some() {
            self.paths.recovery.agreed = None;
            let abandoned = &self.paths.abandoned;
            self.paths.recovery.failed.extend(abandoned);
        }
        if self.paths.recovery.failed.is_empty() {
            return;
        }
        self.paths.recovery.is_agreed |= agreed;
        let is_answered = self.inquire(now);
        let recovery = &mut self.paths.recovery;
        if overdue.is_some() {
            self.forget_failed(now, overdue);
        } else if recovery.is_agreed && is_answered {
            if recovery.is_known {
                self.forget_failed(now, None);
            } else {
                // The peer may have asked, too: its answer leaves in this turn.
                recovery.is_known = true;
                recovery.next_step = Some(now);
            }
        }
    }

    /// Ask the peer what has arrived. Returns whether it has answered, or does not within the time that it takes.
    fn inquire(&mut self, now: Instant) -> bool {
        let open = self.open_paths().into_iter();
        let answers: Vec<_> = open
            .filter(|path| self.is_path_validated(*path))
            .filter_map(|path| Some((path, Answers::of(&self.quic, path)?)))
            .collect();
        let asked = match self.paths.recovery.asked {
            Some(asked) => asked,
            // There are probes only where something waits for an answer.
            None if answers.iter().any(|(_, answers)| answers.is_waiting()) => {
                let paths: Vec<_> = answers.iter().map(|(path, _)| *path).collect();
                self.probe(now, &paths);
                *self.paths.recovery.asked.insert(now)
            }
            None => return true,
        };
        let times = answers.iter().map(|(path, _)| self.answer_time(*path));
        let ends = asked + times.max().unwrap_or_default();
        let mut answers = answers.iter();
        let is_over = now >= ends || answers.any(|(_, answers)| answers.is_answered_since(asked));
        self.paths.recovery.next_step = Some(ends).filter(|_| !is_over);
        is_over
    }

    /// Have noq send its next probes on these paths at once, but not forget those that failed by that.
    fn probe(&mut self, now: Instant, paths: &[PathId]) {
        let timeouts = paths.iter().filter_map(|path| self.probe_timeout(*path));
        let mut early = PROBES * timeouts.max().unwrap_or_default();
        if self.paths.recovery.is_agreed {
            let failed = self.paths.recovery.failed.iter();
            let rtts = failed.filter_map(|path| self.quic.rtt(*path));
            early = early.min(3 * (rtts.min().unwrap_or_default() + LONGEST_ACK_DELAY));
        }
        let limit = now + early.min(self.paths.recovery.most_early);
        self.run_timers(now, limit, |_| true);
    }

    /// Have noq forget the paths that failed, as far as the peer has agreed.
    fn forget_failed(&mut self, now: Instant, overdue: Option<Instant>) {
        let failed = self.paths.recovery.failed.clone();
        let window = failed.iter();
        let window = window.filter_map(|path| self.quic.congestion_state(*path));
        let window = window.map(|state| state.window()).max().unwrap_or(0);
        for path in failed {
            let rtt = self.quic.rtt(path).unwrap_or_default();
            let wait = 3 * (10 * rtt + LONGEST_ACK_DELAY);
            let early = now + wait.min(self.paths.recovery.most_early);
            let forgotten = overdue.and_then(|since| self.forgotten_at(path, since));
            let limit = forgotten.map_or(early, |time| early.max(time + UNCERTAINTY));
            self.run_timers(now, limit, |recovery| recovery.failed.contains(&path));
        }
        self.paths.recovery.is_agreed = false;
        self.paths.recovery.is_known = false;
        if self.paths.recovery.failed.is_empty() {
            self.jump(window / 4);
        }
    }

    /// Run noq's timers until then at once, as long as there is need.
    fn run_timers(&mut self, now: Instant, limit: Instant, needs: impl Fn(&Recovery) -> bool) {
        while needs(&self.paths.recovery)
            && let Some(time) = self.quic.poll_timeout().filter(|time| *time <= limit)
        {
            self.quic.handle_timeout(time.max(now));
            self.collect(now);
        }
    }

    /// Whether the peer has agreed to give up a path since the last look; note when it is heard.
    fn look_for_agreement(&mut self, now: Instant) -> bool {
        let stats = self.quic.stats().frame_rx;
        let frames = stats.path_acks + stats.stream + stats.ping + stats.path_abandon;
        let recovery = &mut self.paths.recovery;
        if std::mem::replace(&mut recovery.frames, frames) != frames {
            recovery.heard = Some(now);
        }
        let before = std::mem::replace(&mut recovery.abandon_frames, stats.path_abandon);
        let agreed = before != stats.path_abandon;
        if agreed {
            recovery.agreed = Some(now);
        }
        agreed
    }

    /// When the peer agreed, if it has been heard for so long since then that all answers must have come, and the idle
    /// timeout is by as much later than what is waited for. An answer in the very last packet was none yet when that
    /// timeout began anew.
    fn since_overdue(&self) -> Option<Instant> {
        let recovery = &self.paths.recovery;
        let (since, heard) = (recovery.agreed?, recovery.heard?);
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

    /// When noq forgets a path to whose end the peer agreed then.
    fn forgotten_at(&self, path: PathId, agreed: Instant) -> Option<Instant> {
        Some(agreed + 3 * self.probe_timeout(path)?)
    }

    fn probe_timeout(&self, path: PathId) -> Option<Duration> {
        Some(Estimate::of(&self.quic, path)?.probe_timeout() + LONGEST_ACK_DELAY)
    }

    /// Let a path that has carried little have more on its way at first than a new one: what the other has lost is sent
    /// again before anything that the peer waits for, and would take many round trips of slow start.
    fn jump(&mut self, bytes: u64) {
        let bytes = bytes.min(MOST_AT_ONCE);
        for path in self.open_paths() {
            if self.is_path_validated(path)
                && let Some(state) = self.quic.congestion_state(path)
                && let Some(answers) = Answers::of(&self.quic, path)
            {
                answers.jump(bytes.saturating_sub(state.window()));
            }
        }
    }
}
