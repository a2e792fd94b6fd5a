//! Which of several paths work, found out by asking when there is reason to.
//!
//! A path in use shows by itself that it works: what is sent is answered. When something has not been answered for a
//! while, all paths are pinged, the silent one and the others, until it is answered. If it stays silent for its idle
//! timeout and another path does not, it is given up, and noq sends again over another what was lost. A path that
//! nobody uses is pinged now and then: that keeps NAT bindings, and shows when it has died.
//!
//! noq sends acknowledgements over one available path, whichever path they are for: they say nothing of the way back,
//! and are lost if that path is dead. So a ping is answered by another one on its path.
//!
//! noq's own idle timeout and keep-alive of a path don't serve: a ping that arrives puts off the other side's, so that
//! one side alone ever pings, and when all paths are silent for a moment, each side gives up one of its own choice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use noq_proto::{PathId, PathStatus};

use crate::answers::Answers;
use crate::connection::Connection;
use crate::path::{LONGEST_ACK_DELAY, SILENT};

/// Pings within a path's idle timeout, while there is a question.
const PINGS: u32 = 10;
/// The shortest idle timeout: pings more often than each 6 ms would be a load, and prove no more.
pub const MIN_IDLE_TIMEOUT: Duration = Duration::from_millis(60);
/// How long an answer may take before it is asked for, at least: longer than the peer may wait to acknowledge.
const QUESTION_AFTER: Duration = Duration::from_millis(150);
/// How long a new path has to be validated: enough for four challenges.
const VALIDATION_TIMEOUT: Duration = Duration::from_secs(3);

/// How rarely a path that works may be taken for one that does not, for each question: the chance that so many packets
/// in a row are lost, or their answers, at the rate at which the path loses them.
const MISTAKE: f64 = 1e-6;
/// The rate of loss that is expected of a path that has not lost any.
const LEAST_LOSS: f64 = 0.001;
/// Over how many packets the rate is averaged.
const LOSS_WINDOW: f64 = 100.0;

/// What has been seen of one path.
struct Seen {
    remote: SocketAddr,
    answers: Arc<Answers>,
    opened: Instant,
    /// Packets sent and lost at the last look, and the rate of loss.
    packets: u64,
    lost: u64,
    loss: f64,
    /// Until when what is found lost was so in an outage, which says nothing of how lucky packets are otherwise.
    outage: Option<Instant>,
    /// Since when enough is unanswered for the path not to be merely unlucky.
    convicted: Option<Instant>,
    /// Datagrams and pings received, and datagrams sent, at the last look.
    received: u64,
    pings: u64,
    sent: u64,
    /// When the first of these was last found to have changed, and the last.
    heard: Option<Instant>,
    spoke: Instant,
    /// When there was last a sign that it works, as of the last look.
    last_evidence: Option<Instant>,
    /// When something was first sent on it after a path has recovered.
    spoke_again: Option<Instant>,
    /// A ping has come that is not answered.
    is_asked: bool,
    /// As the client: answers to our pings that may yet come as pings, and until when.
    owed: u64,
    owed_until: Instant,
}

/// What is known of a path's working, the better the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Evidence {
    Nothing,
    /// The peer's packets arrive.
    Heard,
    /// Ours arrive, too.
    Answered,
}

struct Question {
    since: Instant,
    next_ping: Instant,
}

pub struct Watch {
    idle_timeout: Duration,
    keep_alive: Duration,
    /// There are several paths.
    is_on: bool,
    paths: BTreeMap<PathId, Seen>,
    question: Option<Question>,
    /// When there was last a path less. Answers to what others carried may be lost with it.
    lessened: Option<Instant>,
    next_look: Option<Instant>,
}

impl Watch {
    /// `idle_timeout`: how long a path may be silent that should not; `keep_alive`: how long one may be quiet.
    pub fn new(idle_timeout: Duration, keep_alive: Duration) -> Self {
        Self {
            idle_timeout,
            keep_alive,
            is_on: false,
            paths: BTreeMap::new(),
            question: None,
            lessened: None,
            next_look: None,
        }
    }

    pub fn next_look(&self) -> Option<Instant> {
        self.next_look
    }
}

impl Connection {
    /// Note which paths there are and when to look after them next, once all is sent. The only path needs no proof that
    /// it works: there is nowhere to go from it.
    pub fn watch_paths(&mut self, now: Instant) {
        self.paths.watch.is_on = false;
        self.paths.watch.next_look = None;
        if !self.quic.is_multipath_negotiated() || self.quic.is_closed() {
            return;
        }
        let open = self.open_paths();
        if open.len() < 2 {
            self.paths.watch.paths.clear();
            self.paths.watch.question = None;
            return;
        }
        self.look(now, &open);
        self.paths.watch.is_on = true;
        self.paths.watch.next_look = self.when_to_look(now, &open);
    }

    fn when_to_look(&self, now: Instant, open: &[PathId]) -> Option<Instant> {
        let watch = &self.paths.watch;
        let mut times = Vec::new();
        for path in open {
            let Some(seen) = watch.paths.get(path) else {
                continue;
            };
            if self.is_path_validated(*path) {
                times.push(seen.spoke + watch.keep_alive);
            }
            if let Some(since) = seen.convicted {
                times.push(since + self.answer_time(*path));
            }
            if let Some(since) = self.silent_since(*path) {
                times.push(since + self.patience(*path));
                if watch.question.is_none() {
                    times.push(since + self.question_after(*path));
                }
            }
        }
        // What has passed without effect waits for answers, and those are asked for.
        times.retain(|time| *time > now);
        times.extend(watch.question.as_ref().map(|question| question.next_ping));
        times.into_iter().min()
    }

    /// Give up paths that are silent while others are not, and send the pings that are due.
    pub fn keep_paths(&mut self, now: Instant) {
        if !self.paths.watch.is_on || self.quic.is_closed() {
            return;
        }
        let open = self.open_paths();
        self.look(now, &open);
        for path in self.failed_paths(now, &open) {
            // Refused for the last one.
            let _ = self.give_up_path(now, path, SILENT);
        }
        let open = self.open_paths();
        let is_questionable = |path: &PathId| {
            let since = self.silent_since(*path);
            since.is_some_and(|since| now >= since + self.question_after(*path))
        };
        if open.len() > 1 && open.iter().any(is_questionable) {
            self.ask(now, &open);
        } else {
            self.paths.watch.question = None;
            self.answer(now, &open);
        }
    }

    /// Ping all paths, if it is time.
    fn ask(&mut self, now: Instant, open: &[PathId]) {
        let interval = self.paths.watch.idle_timeout / PINGS;
        let question = self.paths.watch.question.get_or_insert(Question {
            since: now,
            next_ping: now,
        });
        if question.next_ping > now {
            return;
        }
        question.next_ping = now + interval;
        for path in open {
            self.ask_on(now, *path);
        }
    }

    /// Answer pings, and ping the paths on which we have been quiet.
    ///
    /// The server answers each, the client only what is no answer to its own, or there would be no end.
    fn answer(&mut self, now: Instant, open: &[PathId]) {
        let keep_alive = self.paths.watch.keep_alive;
        let is_available =
            |path: &&PathId| self.quic.path_status(**path) == Ok(PathStatus::Available);
        let mut available = open.iter().filter(is_available);
        // On the only available path, acknowledgements answer.
        let main = available.next().copied();
        let main = main.filter(|_| available.next().is_none());
        for path in open {
            let is_validated = self.is_path_validated(*path);
            let Some(seen) = self.paths.watch.paths.get_mut(path) else {
                continue;
            };
            let is_asked = std::mem::take(&mut seen.is_asked) && Some(*path) != main;
            if is_validated && (is_asked || now >= seen.spoke + keep_alive) {
                self.ask_on(now, *path);
            }
        }
    }

    fn ask_on(&mut self, now: Instant, path: PathId) {
        self.ping_path(path);
        let patience = self.patience(path);
        if let Some(seen) = self.paths.watch.paths.get_mut(&path) {
            seen.is_asked = false;
            seen.owed += 1;
            seen.owed_until = now + patience;
        }
    }

    /// Take in what has happened on the paths since the last look.
    fn look(&mut self, now: Instant, open: &[PathId]) {
        let is_client = self.quic.side().is_client();
        let before = self.paths.watch.paths.len();
        self.paths.watch.paths.retain(|path, _| open.contains(path));
        if self.paths.watch.paths.len() < before {
            self.paths.watch.lessened = Some(now);
        }
        // After all were silent, one may be heard first without the others being worse.
        let mut has_recovered = false;
        for path in open {
            let Ok(tuple) = self.quic.network_path(*path) else {
                continue;
            };
            let stats = self.quic.path_stats(*path).unwrap_or_default();
            let patience = self.patience(*path);
            let watch = &mut self.paths.watch;
            let known = watch.paths.get_mut(path);
            let Some(seen) = known.filter(|seen| seen.remote == tuple.remote()) else {
                if let Some(answers) = Answers::of(&self.quic, *path) {
                    let seen = Seen {
                        remote: tuple.remote(),
                        answers,
                        opened: now,
                        received: stats.udp_rx.datagrams,
                        pings: stats.frame_rx.ping,
                        sent: stats.udp_tx.datagrams,
                        packets: stats.sent_packets,
                        lost: stats.lost_packets,
                        loss: 0.0,
                        outage: None,
                        convicted: None,
                        heard: None,
                        spoke: now,
                        last_evidence: None,
                        spoke_again: Some(now),
                        is_asked: false,
                        owed: 0,
                        owed_until: now,
                    };
                    watch.paths.insert(*path, seen);
                }
                continue;
            };
            if seen.received != stats.udp_rx.datagrams {
                seen.received = stats.udp_rx.datagrams;
                seen.heard = Some(now);
            }
            if seen.sent != stats.udp_tx.datagrams {
                seen.sent = stats.udp_tx.datagrams;
                seen.spoke = now;
                seen.spoke_again.get_or_insert(now);
            }
            let waiting = seen.answers.waiting_since();
            if waiting.is_some_and(|since| now >= since + patience) {
                seen.outage = Some(now + patience);
            }
            seen.weigh(now, stats.sent_packets, stats.lost_packets);
            let pings = stats.frame_rx.ping - seen.pings;
            if pings > 0 {
                seen.pings = stats.frame_rx.ping;
                let owed = if is_client && now <= seen.owed_until {
                    seen.owed
                } else {
                    0
                };
                seen.owed = owed.saturating_sub(pings);
                seen.is_asked |= pings > owed;
            }
            let evidence = seen.heard.max(seen.answers.last());
            let before = std::mem::replace(&mut seen.last_evidence, evidence);
            if let Some(question) = &watch.question
                && evidence > before
                && now >= before.map_or(question.since, |b| b.max(question.since)) + patience
            {
                has_recovered = true;
            }
        }
        if has_recovered {
            for seen in self.paths.watch.paths.values_mut() {
                seen.spoke_again = None;
            }
        }
    }

    /// A path goes on elsewhere: what was silent before says nothing of it.
    pub fn pardon(&mut self, path: PathId) {
        if let Some(seen) = self.paths.watch.paths.get_mut(&path) {
            seen.spoke_again = None;
            seen.convicted = None;
            seen.loss = 0.0;
        }
    }

    /// For how long something has waited for an answer, on whatever path, while none has come on any.
    pub fn silence(&self, now: Instant) -> Duration {
        let answers: Vec<_> = self
            .open_paths()
            .into_iter()
            .filter_map(|path| Answers::of(&self.quic, path))
            .collect();
        let waiting = answers.iter().filter_map(|path| path.waiting_since()).max();
        let answered = answers.iter().filter_map(|path| path.last()).max();
        waiting.map_or(Duration::ZERO, |since| {
            now.saturating_duration_since(answered.map_or(since, |time| time.max(since)))
        })
    }

    /// The round trip of a path, as far as it is known. noq's is without what the peer waits to acknowledge, but takes a
    /// silence for a long way.
    pub fn round_trip(&self, path: PathId) -> Duration {
        let seen = self.paths.watch.paths.get(&path);
        let measured = seen.and_then(|seen| seen.answers.rtt());
        let known = self.quic.rtt(path).unwrap_or_default();
        measured.map_or(known, |rtt| rtt.min(known))
    }

    /// How long a path may be silent.
    fn patience(&self, path: PathId) -> Duration {
        let rtt = self.round_trip(path);
        self.paths.watch.idle_timeout.max(5 * rtt / 2)
    }

    /// How long it may be silent before it is asked.
    fn question_after(&self, path: PathId) -> Duration {
        let rtt = self.round_trip(path);
        QUESTION_AFTER.max(2 * rtt).min(self.patience(path) / 2)
    }

    /// How long an answer takes at most, as a rule.
    pub fn answer_time(&self, path: PathId) -> Duration {
        let rtt = self.round_trip(path);
        5 * rtt / 4 + LONGEST_ACK_DELAY
    }

    /// Whether a path has been silent for longer than it should, be it given up for that or not. What an answer that
    /// has come late, by another path, is for was sent before it fell silent.
    pub fn is_in_question(&self, now: Instant, path: PathId) -> bool {
        let Some(answers) = Answers::of(&self.quic, path) else {
            return false;
        };
        let patience = self.question_after(path);
        let is_due = |since| now >= since + patience;
        answers.waiting_since().is_some_and(is_due) || answers.went_on() >= patience
    }

    /// Since when an answer is due on a path: to what was sent, or as the validation of a new path.
    fn silent_since(&self, path: PathId) -> Option<Instant> {
        let seen = self.paths.watch.paths.get(&path)?;
        if self.is_path_validated(path) {
            seen.answers.waiting_since()
        } else {
            Some(seen.opened)
        }
    }

    fn evidence(&self, now: Instant, path: PathId) -> Evidence {
        let Some(seen) = self.paths.watch.paths.get(&path) else {
            return Evidence::Nothing;
        };
        let oldest = self.patience(path) / 2;
        let is_fresh =
            |time: Option<Instant>| time.is_some_and(|t| now.saturating_duration_since(t) < oldest);
        if is_fresh(seen.answers.last()) {
            Evidence::Answered
        } else if is_fresh(seen.heard) {
            Evidence::Heard
        } else {
            Evidence::Nothing
        }
    }

    /// The paths that have been silent for too long, and longer than another was known to work better.
    fn failed_paths(&self, now: Instant, open: &[PathId]) -> Vec<PathId> {
        let fails = |path: &&PathId| {
            let Some(mut since) = self.silent_since(**path) else {
                return false;
            };
            let (patience, evidence) = if self.is_path_validated(**path) {
                (self.patience(**path), self.evidence(now, **path))
            } else {
                let patience = self.patience(**path).max(VALIDATION_TIMEOUT);
                (patience, Evidence::Nothing)
            };
            let convicted = self.paths.watch.paths[path].convicted;
            let is_unlucky = |since: Instant| now < since + self.answer_time(**path);
            if self.is_path_validated(**path) && convicted.is_none_or(is_unlucky) {
                return false;
            }
            let Some(spoke_again) = self.paths.watch.paths[path].spoke_again else {
                return false;
            };
            since = since.max(spoke_again);
            if evidence == Evidence::Heard {
                since = since.max(self.paths.watch.lessened.unwrap_or(since));
            }
            let is_better = |other: &PathId| {
                *other != **path
                    && self.is_path_validated(*other)
                    && self.evidence(now, *other) > evidence
            };
            let mut others = open
                .iter()
                .filter(|other| self.paths.watch.paths.contains_key(other));
            now >= since + patience && others.any(is_better)
        };
        open.iter().filter(fails).copied().collect()
    }
}

impl Seen {
    /// Take in how many packets were sent and lost by now.
    fn weigh(&mut self, now: Instant, packets: u64, lost: u64) {
        let sent = (packets - self.packets) as f64;
        let gone = (lost - self.lost) as f64;
        (self.packets, self.lost) = (packets, lost);
        if self.outage.is_none_or(|end| now >= end) {
            self.loss += (gone - self.loss * sent) / LOSS_WINDOW.max(sent);
        }
        let loss = self.loss.clamp(LEAST_LOSS, 0.5);
        // A packet may be lost, and its answer, which is that to the next one, too (RFC 9000 §13.2.2).
        let lost = 1.0 - (1.0 - loss) * (1.0 - loss);
        if self.answers.unanswered() as f64 / 2.0 * lost.ln() <= MISTAKE.ln() {
            self.convicted.get_or_insert(now);
        } else {
            self.convicted = None;
        }
    }
}
