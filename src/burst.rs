//! Bursts as RFC 9002 §7.7 has them: an initial window may leave at once.
//!
//! noq's pacer lets 10 ms' worth of the window go at a time, which is one packet while the window is the initial one
//! and the round trip 100 ms: a request that follows the handshake would wait 8 ms for each packet before it, though
//! nothing else is on the way. What an application has to say in a while is less than that window; more is paced.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use noq_proto::RttEstimator;
use noq_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

/// A window for which noq does not pace at all. It takes it from the metrics, and so does its qlog; how much may be on
/// the way it asks `Controller::window`. (A high `pacing_rate` would not do: with no time gone by since the path was
/// made, there is a delay all the same.)
const UNPACED: u64 = 1 << 32;

/// Makes controllers that are Cubic in all but bursts.
#[derive(Default)]
pub struct Bursts(Arc<CubicConfig>);

impl ControllerFactory for Bursts {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Bursting::new(self.0.clone().build(now, current_mtu)))
    }
}

#[derive(Debug)]
struct Bursting {
    inner: Box<dyn Controller>,
    /// Bytes that may leave unpaced. They come back with acknowledgements, unless the window is what limits sending: a
    /// transfer is paced throughout.
    credit: u64,
}

impl Bursting {
    fn new(inner: Box<dyn Controller>) -> Self {
        let credit = inner.initial_window();
        Self { inner, credit }
    }

    fn acknowledged(&mut self, bytes: u64, app_limited: bool) {
        if app_limited {
            self.credit = (self.credit + bytes).min(self.inner.initial_window());
        }
    }
}

impl Controller for Bursting {
    fn on_sent(&mut self, now: Instant, bytes: u64, largest_pn: u64) {
        self.inner.on_sent(now, bytes, largest_pn);
    }

    fn on_packet_sent(&mut self, now: Instant, bytes: u16, pn: u64) {
        self.credit = self.credit.saturating_sub(bytes.into());
        self.inner.on_packet_sent(now, bytes, pn);
    }

    fn on_cwnd_limited(&mut self) {
        self.inner.on_cwnd_limited();
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
        self.acknowledged(bytes, app_limited);
        self.inner.on_ack(now, sent, bytes, pn, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.inner
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
        self.credit = 0;
        self.inner.on_congestion_event(
            now,
            sent,
            is_persistent_congestion,
            is_ecn,
            lost_bytes,
            largest_lost_pn,
        );
    }

    fn on_packet_lost(&mut self, lost_bytes: u16, pn: u64, now: Instant) {
        self.inner.on_packet_lost(lost_bytes, pn, now);
    }

    fn on_spurious_congestion_event(&mut self) {
        self.inner.on_spurious_congestion_event();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn on_ack_frequency_update(
        &mut self,
        ack_eliciting_threshold: u64,
        requested_max_ack_delay: Duration,
    ) {
        self.inner
            .on_ack_frequency_update(ack_eliciting_threshold, requested_max_ack_delay);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.inner.metrics();
        if self.credit > 0 {
            metrics.congestion_window = UNPACED;
        }
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            credit: self.credit,
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1200;

    fn bursting(now: Instant) -> Bursting {
        Bursting::new(Arc::new(CubicConfig::default()).build(now, MTU))
    }

    fn send_initial_window(controller: &mut Bursting, now: Instant) {
        for number in 0..controller.initial_window() / u64::from(MTU) {
            assert!(is_unpaced(controller));
            controller.on_packet_sent(now, MTU, number);
        }
    }

    fn is_unpaced(controller: &Bursting) -> bool {
        controller.metrics().congestion_window > controller.window()
    }

    #[test]
    fn an_initial_window_leaves_at_once_and_what_follows_is_paced() {
        let now = Instant::now();
        let mut controller = bursting(now);
        send_initial_window(&mut controller, now);
        assert!(!is_unpaced(&controller));
    }

    #[test]
    fn acknowledgements_allow_as_much_again_unless_the_window_is_full() {
        let now = Instant::now();
        let mut controller = bursting(now);
        send_initial_window(&mut controller, now);
        controller.acknowledged(MTU.into(), false);
        assert!(!is_unpaced(&controller));
        controller.acknowledged(MTU.into(), true);
        assert!(is_unpaced(&controller));
        controller.on_packet_sent(now, MTU, 100);
        assert!(!is_unpaced(&controller));
    }

    #[test]
    fn never_more_than_an_initial_window_leaves_at_once() {
        let now = Instant::now();
        let mut controller = bursting(now);
        controller.acknowledged(1 << 20, true);
        send_initial_window(&mut controller, now);
        assert!(!is_unpaced(&controller));
    }

    #[test]
    fn after_congestion_all_is_paced() {
        let now = Instant::now();
        let mut controller = bursting(now);
        controller.on_congestion_event(now, now, false, false, MTU.into(), 0);
        assert!(!is_unpaced(&controller));
        assert!(controller.window() < controller.initial_window());
    }
}
