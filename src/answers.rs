//! When a path's packets were answered. noq tells this to nobody but the congestion controller, so that one listens.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What of a path's packets was sent and answered: those that the peer must acknowledge, on whatever path it does.
///
/// Times are nanoseconds since `epoch`, and one more, so that zero is never.
#[derive(Debug)]
pub struct Answers {
    epoch: Instant,
    last_sent: AtomicU64,
    /// When the first one was sent after all before were answered.
    asked: AtomicU64,
    /// When the last one that is answered was sent, and when its answer came.
    answered_sent: AtomicU64,
    answered: AtomicU64,
    /// How many were sent after the last one that is answered.
    unanswered: AtomicUsize,
    /// Bytes on the way.
    in_flight: AtomicU64,
    /// So many may be on the way though the window is smaller, since this time.
    reprieve: AtomicU64,
    reprieved: AtomicU64,
    /// So many more than the window allows, until packets are lost on the way.
    jump: AtomicU64,
    /// The round trip, in nanoseconds.
    rtt: AtomicU64,
    /// When an answer came that had been on its way for much longer, and none since that had not.
    late: AtomicU64,
}

/// By how much a round trip may exceed twice what it was until now, and be one. What is answered when a peer goes on that
/// was stopped, or when another path brings the answer, says nothing of how far it is; noq takes it for a round trip.
const SLACK: u64 = 100_000_000;

impl Answers {
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            last_sent: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            answered_sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            unanswered: AtomicUsize::new(0),
            in_flight: AtomicU64::new(0),
            reprieve: AtomicU64::new(0),
            reprieved: AtomicU64::new(0),
            jump: AtomicU64::new(0),
            rtt: AtomicU64::new(0),
            late: AtomicU64::new(0),
        }
    }

    fn since_epoch(&self, time: Instant) -> u64 {
        let nanos = time.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX - 1) + 1
    }

    fn instant(&self, since: u64) -> Option<Instant> {
        Some(self.epoch + Duration::from_nanos(since.checked_sub(1)?))
    }

    /// A packet has left that the peer must acknowledge.
    pub fn on_sent(&self, now: Instant, bytes: u64) {
        self.in_flight.fetch_add(bytes, Ordering::Relaxed);
        let now = self.since_epoch(now);
        if !self.is_waiting() {
            self.asked.store(now, Ordering::Relaxed);
        }
        self.last_sent.store(now, Ordering::Relaxed);
    }

    /// One is answered that was sent then.
    pub fn on_answer(&self, now: Instant, sent: Instant, bytes: u64) {
        self.left(bytes);
        let (now, sent) = (self.since_epoch(now), self.since_epoch(sent));
        self.answered_sent.fetch_max(sent, Ordering::Relaxed);
        self.answered.store(now, Ordering::Relaxed);
        if sent >= self.reprieved.load(Ordering::Relaxed) {
            self.reprieve.store(0, Ordering::Relaxed);
        }
        self.measure(now, sent);
    }

    fn measure(&self, now: u64, sent: u64) {
        let (sample, rtt) = (now.saturating_sub(sent), self.rtt.load(Ordering::Relaxed));
        let late = self.late.load(Ordering::Relaxed);
        if rtt > 0 && sample > 2 * rtt + SLACK && (late == 0 || sent < late) {
            self.late.fetch_max(now, Ordering::Relaxed);
            return;
        }
        self.late.store(0, Ordering::Relaxed);
        let rtt = if rtt == 0 {
            sample
        } else {
            (7 * rtt + sample) / 8
        };
        self.rtt.store(rtt, Ordering::Relaxed);
    }

    /// The round trip as answers show it; none before the first.
    pub fn rtt(&self) -> Option<Duration> {
        let rtt = self.rtt.load(Ordering::Relaxed);
        (rtt > 0).then(|| Duration::from_nanos(rtt))
    }

    /// Let so many bytes more be sent though the window may be full, until one of them is answered.
    ///
    /// What a silent path has lost fills its window until an answer shows that it is lost; and noq then sends not even
    /// acknowledgements and the responses to challenges, without which the peer may not answer.
    pub fn reprieve(&self, now: Instant, bytes: u64) {
        if self.is_waiting() {
            let allowed = self.in_flight.load(Ordering::Relaxed) + bytes;
            self.reprieve.store(allowed, Ordering::Relaxed);
            self.reprieved
                .store(self.since_epoch(now), Ordering::Relaxed);
        }
    }

    /// Let so many bytes more be on the way than the window allows, on a path that has to carry what another did, until
    /// it shows that they are too many.
    pub fn jump(&self, bytes: u64) {
        self.jump.fetch_max(bytes, Ordering::Relaxed);
    }

    /// What the window allowed was too much.
    pub fn on_congestion(&self) {
        self.jump.store(0, Ordering::Relaxed);
    }

    /// What may be on the way where the window is this.
    pub fn allowed(&self, window: u64) -> u64 {
        let reprieve = self.reprieve.load(Ordering::Relaxed);
        let jump = self.jump.load(Ordering::Relaxed);
        (window + jump).max(reprieve)
    }

    /// These are no longer on the way, answered or lost.
    pub fn left(&self, bytes: u64) {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        self.in_flight
            .store(in_flight.saturating_sub(bytes), Ordering::Relaxed);
    }

    /// Whether something was sent after all that is answered.
    pub fn is_waiting(&self) -> bool {
        self.last_sent.load(Ordering::Relaxed) > self.answered_sent.load(Ordering::Relaxed)
    }

    /// Whether something is answered that was sent since then.
    pub fn is_answered_since(&self, time: Instant) -> bool {
        self.answered_sent.load(Ordering::Relaxed) >= self.since_epoch(time)
    }

    /// Since when something waits for an answer and none has come.
    pub fn waiting_since(&self) -> Option<Instant> {
        let asked = self.asked.load(Ordering::Relaxed);
        let since = asked.max(self.answered.load(Ordering::Relaxed));
        self.is_waiting().then(|| self.instant(since))?
    }

    /// How long things went on being sent after the last one that is answered.
    pub fn went_on(&self) -> Duration {
        let last = self.last_sent.load(Ordering::Relaxed);
        let answered = self.answered_sent.load(Ordering::Relaxed);
        let since = match answered {
            0 => self.asked.load(Ordering::Relaxed),
            answered => answered,
        };
        Duration::from_nanos(last.saturating_sub(since))
    }

    pub fn set_unanswered(&self, packets: usize) {
        self.unanswered.store(packets, Ordering::Relaxed);
    }

    /// How many packets have been sent after the last one that is answered.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// When the last answer came.
    pub fn last(&self) -> Option<Instant> {
        self.instant(self.answered.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_counts_from_the_first_question_since_the_last_answer() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let answers = Answers::new(start);
        assert_eq!((answers.waiting_since(), answers.last()), (None, None));
        answers.on_sent(at(0), 1200);
        answers.on_sent(at(10), 1200);
        assert_eq!(answers.waiting_since(), Some(at(0)));
        // There is more to be answered, but something was.
        answers.on_answer(at(50), at(0), 1200);
        assert_eq!(answers.waiting_since(), Some(at(50)));
        answers.on_answer(at(60), at(10), 1200);
        assert_eq!(answers.waiting_since(), None);
        answers.on_sent(at(900), 1200);
        assert_eq!(answers.waiting_since(), Some(at(900)));
        // An answer to what had been answered before.
        answers.on_answer(at(910), at(0), 1200);
        assert_eq!(answers.waiting_since(), Some(at(910)));
        assert_eq!(answers.last(), Some(at(910)));
    }

    #[test]
    fn what_is_answered_late_once_is_no_round_trip() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let answers = Answers::new(start);
        let rtt = || answers.rtt().unwrap().as_millis();
        answers.on_answer(at(100), at(0), 1200);
        // All that was sent in a minute is answered in the end, be it in one packet or many.
        for sent in (0..60_000).step_by(250) {
            answers.on_answer(at(60_100), at(sent), 1200);
            assert!(rtt() <= 200, "{}", rtt());
        }
        let before = rtt();
        answers.on_answer(at(60_200), at(60_100), 1200);
        assert!(rtt() <= before);
        // It has become that far.
        for sent in (61_000..121_000).step_by(1_000) {
            answers.on_answer(at(sent + 900), at(sent), 1200);
        }
        assert!(rtt() > 800, "{}", rtt());
    }

    #[test]
    fn a_path_on_which_things_went_on_being_sent_was_silent_though_an_older_one_is_answered() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let answers = Answers::new(start);
        for millis in [0, 300, 900] {
            answers.on_sent(at(millis), 1200);
        }
        assert_eq!(answers.went_on(), Duration::from_millis(900));
        answers.on_answer(at(5000), at(300), 1200);
        assert_eq!(answers.went_on(), Duration::from_millis(600));
        answers.on_answer(at(5000), at(900), 1200);
        assert_eq!(answers.went_on(), Duration::ZERO);
    }
}
