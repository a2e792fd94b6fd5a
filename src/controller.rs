//! The congestion controller of a path: Cubic, but that an initial window may leave at once, and more where another path
//! has failed. It hears what is sent and answered, which noq tells to nobody else.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use noq_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig};
use noq_proto::{Connection, PathId, RttEstimator};

use crate::answers::Answers;
use crate::burst::Burst;
use crate::estimate::Estimate;

/// A window for which noq does not pace at all. It takes it from the metrics, and so does its qlog; how much may be on
/// the way it asks `Controller::window`. (A high `pacing_rate` would not do: with no time gone by since the path was
/// made, there is a delay all the same.)
const UNPACED: u64 = 1 << 32;

/// By how many times noq's round trip may exceed ours.
const FAR: u32 = 2;

#[derive(Clone, Debug)]
struct PathController {
    cubic: Cubic,
    burst: Burst,
    /// The numbers of the packets sent after the last one that is answered. Others than those that must be acknowledged
    /// have numbers, too.
    unanswered: VecDeque<u64>,
    answers: Arc<Answers>,
    /// The round trip as noq has it.
    known: Estimate,
}

impl Answers {
    /// Those of a path; others once it has migrated.
    pub fn of(quic: &Connection, path: PathId) -> Option<Arc<Self>> {
        Some(PathController::of(quic, path)?.answers)
    }
}

impl Estimate {
    /// That of a path.
    pub fn of(quic: &Connection, path: PathId) -> Option<Self> {
        let mut known = PathController::of(quic, path)?.known;
        known.follow(quic.rtt(path)?);
        Some(known)
    }
}

impl PathController {
    fn new(config: Arc<CubicConfig>, now: Instant, mtu: u16) -> Self {
        let cubic = Cubic::new(config, now, mtu);
        Self {
            burst: Burst::new(cubic.initial_window()),
            cubic,
            unanswered: VecDeque::new(),
            answers: Arc::new(Answers::new(now)),
            known: Estimate::default(),
        }
    }

    /// A copy of a path's.
    fn of(quic: &Connection, path: PathId) -> Option<Box<Self>> {
        let controller = quic.congestion_state(path)?.clone_box();
        controller.into_any().downcast().ok()
    }

    fn answered(&mut self, number: u64) {
        while self
            .unanswered
            .front()
            .is_some_and(|first| *first <= number)
        {
            self.unanswered.pop_front();
        }
        self.answers.set_unanswered(self.unanswered.len());
    }
}

/// Makes the congestion controllers of all paths.
#[derive(Default)]
pub struct PathControllers(Arc<CubicConfig>);

impl ControllerFactory for PathControllers {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(PathController::new(self.0.clone(), now, current_mtu))
    }
}

/// What Cubic does not listen to is not passed on.
impl Controller for PathController {
    fn on_packet_sent(&mut self, now: Instant, bytes: u16, pn: u64) {
        self.answers.on_sent(now, bytes.into());
        self.unanswered.push_back(pn);
        self.answers.set_unanswered(self.unanswered.len());
        self.burst.sent(bytes.into());
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
        self.answers.on_answer(now, sent, bytes);
        self.answered(pn);
        self.known.follow(rtt.get());
        self.burst.acknowledged(bytes, app_limited);
        self.cubic.on_ack(now, sent, bytes, pn, app_limited, rtt);
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
        self.answers.on_congestion();
        self.burst.end();
        self.cubic.on_congestion_event(
            now,
            sent,
            is_persistent_congestion,
            is_ecn,
            lost_bytes,
            largest_lost_pn,
        );
    }

    fn on_packet_lost(&mut self, lost_bytes: u16, _pn: u64, _now: Instant) {
        self.answers.left(lost_bytes.into());
    }

    fn window(&self) -> u64 {
        self.answers.allowed(self.cubic.window())
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.cubic.metrics();
        if self.burst.goes_on() {
            metrics.congestion_window = UNPACED;
        }
        metrics.congestion_window = self.answers.allowed(metrics.congestion_window);
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
        Box::new(self.clone())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn on_spurious_congestion_event(&mut self) {
        self.cubic.on_spurious_congestion_event();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MTU: u16 = 1200;

    fn controller(now: Instant) -> PathController {
        PathController::new(Arc::default(), now, MTU)
    }

    fn is_unpaced(controller: &PathController) -> bool {
        controller.metrics().congestion_window > controller.window()
    }

    #[test]
    fn an_initial_window_is_not_paced_and_what_follows_is() {
        let now = Instant::now();
        let mut controller = controller(now);
        for number in 0..controller.initial_window() / u64::from(MTU) {
            assert!(is_unpaced(&controller));
            controller.on_packet_sent(now, MTU, number);
        }
        assert!(!is_unpaced(&controller));
    }

    #[test]
    fn after_congestion_all_is_paced_and_less_may_be_on_the_way() {
        let now = Instant::now();
        let mut controller = controller(now);
        controller.on_congestion_event(now, now, false, false, MTU.into(), 0);
        assert!(!is_unpaced(&controller));
        assert!(controller.window() < controller.initial_window());
    }

    #[test]
    fn a_reprieve_lasts_until_something_sent_in_it_is_answered() {
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let mut controller = controller(now);
        let window = controller.window();
        for number in 0..window / u64::from(MTU) {
            controller.on_packet_sent(now, MTU, number);
        }
        controller.answers.reprieve(at(500), 1500);
        assert_eq!(controller.window(), window + 1500);
        controller.answers.on_answer(at(600), at(0), MTU.into());
        assert_eq!(controller.window(), window + 1500);
        controller.answers.on_answer(at(700), at(600), MTU.into());
        assert_eq!(controller.window(), window);
    }

    #[test]
    fn a_jump_lasts_until_packets_are_lost() {
        let now = Instant::now();
        let mut controller = controller(now);
        let window = controller.window();
        controller.answers.jump(100_000);
        controller.answers.jump(50_000);
        controller.on_packet_sent(now, MTU, 0);
        controller.answers.on_answer(now, now, MTU.into());
        assert_eq!(controller.window(), window + 100_000);
        controller.on_congestion_event(now, now, false, false, 1200, 0);
        assert!(controller.window() <= window);
    }

    #[test]
    fn what_was_sent_before_the_last_that_is_answered_is_not_counted_as_unanswered() {
        let now = Instant::now();
        let mut controller = controller(now);
        // The numbers between are those of acknowledgements.
        for number in [3, 7, 8, 20] {
            controller.on_packet_sent(now, MTU, number);
        }
        assert_eq!(controller.answers.unanswered(), 4);
        controller.answered(7);
        assert_eq!(controller.answers.unanswered(), 2);
        controller.answered(20);
        controller.answered(8);
        assert_eq!(controller.answers.unanswered(), 0);
    }
}
