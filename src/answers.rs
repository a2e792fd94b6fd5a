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
}

impl Answers {
    fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            last_sent: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            answered_sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            unanswered: AtomicUsize::new(0),
        }
    }

    /// Those of a path; others once it has migrated.
    pub fn of(quic: &Connection, path: PathId) -> Option<Arc<Self>> {
        let controller = quic.congestion_state(path)?.clone_box().into_any();
        let listening = controller.downcast::<Listening>().ok()?;
        Some(listening.answers.clone())
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
        let sent = self.since_epoch(sent);
        self.answered_sent.fetch_max(sent, Ordering::Relaxed);
        self.answered
            .store(self.since_epoch(now), Ordering::Relaxed);
    }

    fn is_waiting(&self) -> bool {
        self.last_sent.load(Ordering::Relaxed) > self.answered_sent.load(Ordering::Relaxed)
    }

    /// Since when something waits for an answer and none has come.
    pub fn waiting_since(&self) -> Option<Instant> {
        let asked = self.asked.load(Ordering::Relaxed);
        let since = asked.max(self.answered.load(Ordering::Relaxed));
        self.is_waiting().then(|| self.instant(since))?
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
}

impl Listening {
    fn new(controller: Box<dyn Controller>, now: Instant) -> Self {
        Self {
            controller,
            unanswered: VecDeque::new(),
            answers: Arc::new(Answers::new(now)),
        }
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
        self.answered(pn);
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
        self.controller.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.controller.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            controller: self.controller.clone_box(),
            unanswered: self.unanswered.clone(),
            answers: self.answers.clone(),
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
