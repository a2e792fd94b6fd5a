//! When a path's packets were answered. noq tells this to nobody but the congestion controller, so that one listens.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use noq_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};
use noq_proto::{Connection, PathId, RttEstimator};

use crate::burst::Bursts;

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
    fn new(epoch: Instant) -> Self {
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

    /// Those of a path; others once it has migrated.
    pub fn of(quic: &Connection, path: PathId) -> Option<Arc<Self>> {
        Some(Listening::of(quic, path)?.answers.clone())
    }

    /// noq's probe timeout on a path, but for how long a peer may keep an acknowledgement (RFC 9002 §6.2.1).
    pub fn probe_timeout(quic: &Connection, path: PathId) -> Option<Duration> {
        let mut known = Listening::of(quic, path)?.known;
        known.follow(quic.rtt(path)?);
        Some(known.smoothed + 4 * known.variation)
    }

    fn since_epoch(&self, time: Instant) -> u64 {
        let nanos = time.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX - 1) + 1
    }

    fn instant(&self, since: u64) -> Option<Instant> {
        Some(self.epoch + Duration::from_nanos(since.checked_sub(1)?))
    }

    fn on_sent(&self, now: Instant) {
        let now = self.since_epoch(now);
        if !self.is_waiting() {
            self.asked.store(now, Ordering::Relaxed);
        }
        self.last_sent.store(now, Ordering::Relaxed);
    }

    fn on_answer(&self, now: Instant, sent: Instant) {
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

    fn left(&self, bytes: u64) {
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

    /// How many packets have been sent after the last one that is answered.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// When the last answer came.
    pub fn last(&self) -> Option<Instant> {
        self.instant(self.answered.load(Ordering::Relaxed))
    }
}

/// A congestion controller, and an ear.
#[derive(Debug)]
struct Listening {
    controller: Box<dyn Controller>,
    /// The numbers of the packets sent after the last one that is answered. Others than those that must be acknowledged
    /// have numbers, too.
    unanswered: VecDeque<u64>,
    answers: Arc<Answers>,
    /// The round trip as noq has it.
    known: Estimate,
}

/// A round trip and how much it varies, as noq estimates them (RFC 9002 §5.3). It shows but the first, from which the
/// other follows.
#[derive(Clone, Copy, Debug, Default)]
struct Estimate {
    smoothed: Duration,
    variation: Duration,
    has_sample: bool,
}

impl Estimate {
    /// The round trip may have been estimated anew, once at most.
    fn follow(&mut self, smoothed: Duration) {
        if smoothed == self.smoothed {
            return;
        }
        if self.has_sample {
            let sample = (8 * smoothed).saturating_sub(7 * self.smoothed);
            self.variation = (3 * self.variation + sample.abs_diff(self.smoothed)) / 4;
        } else {
            self.has_sample = !self.smoothed.is_zero();
            self.variation = smoothed / 2;
        }
        self.smoothed = smoothed;
    }
}

/// By how many times noq's round trip may exceed ours.
const FAR: u32 = 2;

impl Listening {
    fn new(controller: Box<dyn Controller>, now: Instant) -> Self {
        Self {
            controller,
            unanswered: VecDeque::new(),
            answers: Arc::new(Answers::new(now)),
            known: Estimate::default(),
        }
    }

    /// A copy of what listens on a path.
    fn of(quic: &Connection, path: PathId) -> Option<Box<Self>> {
        let controller = quic.congestion_state(path)?.clone_box();
        controller.into_any().downcast().ok()
    }

    /// What may be on the way where the window is this.
    fn allowed(&self, window: u64) -> u64 {
        let reprieve = self.answers.reprieve.load(Ordering::Relaxed);
        let jump = self.answers.jump.load(Ordering::Relaxed);
        (window + jump).max(reprieve)
    }

    fn answered(&mut self, number: u64) {
        while self
            .unanswered
            .front()
            .is_some_and(|first| *first <= number)
        {
            self.unanswered.pop_front();
        }
        self.count();
    }

    fn count(&self) {
        self.answers
            .unanswered
            .store(self.unanswered.len(), Ordering::Relaxed);
    }
}

/// Makes the congestion controllers of all paths.
#[derive(Default)]
pub struct Listeners(Arc<Bursts>);

impl ControllerFactory for Listeners {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let controller = self.0.clone().build(now, current_mtu);
        Box::new(Listening::new(controller, now))
    }
}

impl Controller for Listening {
    fn on_packet_sent(&mut self, now: Instant, bytes: u16, pn: u64) {
        self.answers.on_sent(now);
        self.answers
            .in_flight
            .fetch_add(bytes.into(), Ordering::Relaxed);
        self.unanswered.push_back(pn);
        self.count();
        self.controller.on_packet_sent(now, bytes, pn);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        pn: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.answers.on_answer(now, sent);
        self.answers.left(bytes);
        self.answered(pn);
        self.known.follow(rtt.get());
        self.controller
            .on_ack(now, sent, bytes, pn, app_limited, rtt);
    }

    fn on_sent(&mut self, now: Instant, bytes: u64, largest_pn: u64) {
        self.controller.on_sent(now, bytes, largest_pn);
    }

    fn on_cwnd_limited(&mut self) {
        self.controller.on_cwnd_limited();
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.controller
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        is_ecn: bool,
        lost_bytes: u64,
        largest_lost_pn: u64,
    ) {
        self.answers.jump.store(0, Ordering::Relaxed);
        self.controller.on_congestion_event(
            now,
            sent,
            is_persistent_congestion,
            is_ecn,
            lost_bytes,
            largest_lost_pn,
        );
    }

    fn on_packet_lost(&mut self, lost_bytes: u16, pn: u64, now: Instant) {
        self.answers.left(lost_bytes.into());
        self.controller.on_packet_lost(lost_bytes, pn, now);
    }

    fn on_spurious_congestion_event(&mut self) {
        self.controller.on_spurious_congestion_event();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.controller.on_mtu_update(new_mtu);
    }

    fn on_ack_frequency_update(
        &mut self,
        ack_eliciting_threshold: u64,
        requested_max_ack_delay: Duration,
    ) {
        self.controller
            .on_ack_frequency_update(ack_eliciting_threshold, requested_max_ack_delay);
    }

    fn window(&self) -> u64 {
        self.allowed(self.controller.window())
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.controller.metrics();
        metrics.congestion_window = self.allowed(metrics.congestion_window);
        // noq paces a window over its round trip, which is most of a minute for a while after a peer was stopped.
        if let Some(rtt) = self
            .answers
            .rtt()
            .filter(|rtt| self.known.smoothed > FAR * *rtt)
        {
            let window = metrics.congestion_window as f64;
            let rate = window * 1.25 / rtt.as_secs_f64();
            metrics.pacing_rate.get_or_insert(rate as u64);
        }
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            controller: self.controller.clone_box(),
            unanswered: self.unanswered.clone(),
            answers: self.answers.clone(),
            known: self.known,
        })
    }

    fn initial_window(&self) -> u64 {
        self.controller.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
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
        answers.on_sent(at(0));
        answers.on_sent(at(10));
        assert_eq!(answers.waiting_since(), Some(at(0)));
        // There is more to be answered, but something was.
        answers.on_answer(at(50), at(0));
        assert_eq!(answers.waiting_since(), Some(at(50)));
        answers.on_answer(at(60), at(10));
        assert_eq!(answers.waiting_since(), None);
        answers.on_sent(at(900));
        assert_eq!(answers.waiting_since(), Some(at(900)));
        // An answer to what had been answered before.
        answers.on_answer(at(910), at(0));
        assert_eq!(answers.waiting_since(), Some(at(910)));
        assert_eq!(answers.last(), Some(at(910)));
    }

    #[test]
    fn what_is_answered_late_once_is_no_round_trip() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let answers = Answers::new(start);
        let rtt = || answers.rtt().unwrap().as_millis();
        answers.on_answer(at(100), at(0));
        // All that was sent in a minute is answered in the end, be it in one packet or many.
        for sent in (0..60_000).step_by(250) {
            answers.on_answer(at(60_100), at(sent));
            assert!(rtt() <= 200, "{}", rtt());
        }
        let before = rtt();
        answers.on_answer(at(60_200), at(60_100));
        assert!(rtt() <= before);
        // It has become that far.
        for sent in (61_000..121_000).step_by(1_000) {
            answers.on_answer(at(sent + 900), at(sent));
        }
        assert!(rtt() > 800, "{}", rtt());
    }

    #[test]
    fn an_estimate_follows_that_of_rfc_9002() {
        // §5.3, from the second sample on; before the first there is a guess.
        let mut known = Estimate::default();
        let (mut smoothed, mut variation) = (Duration::ZERO, Duration::ZERO);
        known.follow(Duration::from_millis(333));
        for (count, sample) in [120, 100, 90, 60_000, 101, 99].into_iter().enumerate() {
            let sample = Duration::from_millis(sample);
            (smoothed, variation) = match count {
                0 => (sample, sample / 2),
                _ => (
                    (7 * smoothed + sample) / 8,
                    (3 * variation + smoothed.abs_diff(sample)) / 4,
                ),
            };
            known.follow(smoothed);
            assert_eq!(known.smoothed, smoothed);
            assert!(known.variation.abs_diff(variation) < Duration::from_micros(1));
        }
    }

    #[test]
    fn a_reprieve_lasts_until_something_sent_in_it_is_answered() {
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let mut listening = Listening::new(Arc::new(Bursts::default()).build(now, 1200), now);
        let window = listening.window();
        for number in 0..window / 1200 {
            listening.on_packet_sent(now, 1200, number);
        }
        listening.answers.reprieve(at(500), 1500);
        assert_eq!(listening.window(), window + 1500);
        listening.answers.on_answer(at(600), at(0));
        assert_eq!(listening.window(), window + 1500);
        listening.answers.on_answer(at(700), at(600));
        assert_eq!(listening.window(), window);
    }

    #[test]
    fn a_jump_lasts_until_packets_are_lost() {
        let now = Instant::now();
        let mut listening = Listening::new(Arc::new(Bursts::default()).build(now, 1200), now);
        let window = listening.window();
        listening.answers.jump(100_000);
        listening.answers.jump(50_000);
        listening.on_packet_sent(now, 1200, 0);
        listening.answers.on_answer(now, now);
        assert_eq!(listening.window(), window + 100_000);
        listening.on_congestion_event(now, now, false, false, 1200, 0);
        assert!(listening.window() <= window);
    }

    #[test]
    fn a_path_on_which_things_went_on_being_sent_was_silent_though_an_older_one_is_answered() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let answers = Answers::new(start);
        for millis in [0, 300, 900] {
            answers.on_sent(at(millis));
        }
        assert_eq!(answers.went_on(), Duration::from_millis(900));
        answers.on_answer(at(5000), at(300));
        assert_eq!(answers.went_on(), Duration::from_millis(600));
        answers.on_answer(at(5000), at(900));
        assert_eq!(answers.went_on(), Duration::ZERO);
    }

    #[test]
    fn what_was_sent_before_the_last_that_is_answered_is_not_counted_as_unanswered() {
        let now = Instant::now();
        let mut listening = Listening::new(Arc::new(Bursts::default()).build(now, 1200), now);
        // The numbers between are those of acknowledgements.
        for number in [3, 7, 8, 20] {
            listening.on_packet_sent(now, 1200, number);
        }
        assert_eq!(listening.answers.unanswered(), 4);
        listening.answered(7);
        assert_eq!(listening.answers.unanswered(), 2);
        listening.answered(20);
        listening.answered(8);
        assert_eq!(listening.answers.unanswered(), 0);
    }
}
