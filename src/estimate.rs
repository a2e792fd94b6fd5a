//! A path's round trip and how much it varies, as noq estimates them (RFC 9002 §5.3).

use std::time::Duration;

/// noq shows but the round trip, from which the other follows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimate {
    pub smoothed: Duration,
    variation: Duration,
    has_sample: bool,
}

impl Estimate {
    /// The round trip may have been estimated anew, once at most.
    pub fn follow(&mut self, smoothed: Duration) {
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

    /// The probe timeout, but for how long a peer may keep an acknowledgement (RFC 9002 §6.2.1).
    pub fn probe_timeout(&self) -> Duration {
        self.smoothed + 4 * self.variation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
