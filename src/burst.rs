//! Bursts as RFC 9002 §7.7 has them: an initial window may leave at once.
//!
//! noq's pacer lets 10 ms' worth of the window go at a time, which is one packet while the window is the initial one
//! and the round trip 100 ms: a request that follows the handshake would wait 8 ms for each packet before it, though
//! nothing else is on the way. What an application has to say in a while is less than that window; more is paced.

/// Bytes that may leave unpaced. They come back with acknowledgements, unless the window is what limits sending: a
/// transfer is paced throughout.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    most: u64,
    left: u64,
}

impl Burst {
    pub fn new(initial_window: u64) -> Self {
        Self {
            most: initial_window,
            left: initial_window,
        }
    }

    pub fn sent(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// `app_limited`: more could have been sent.
    pub fn acknowledged(&mut self, bytes: u64, app_limited: bool) {
        if app_limited {
            self.left = (self.left + bytes).min(self.most);
        }
    }

    /// After congestion all is paced.
    pub fn end(&mut self) {
        self.left = 0;
    }

    pub fn goes_on(&self) -> bool {
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 12_000;

    fn spent() -> Burst {
        let mut burst = Burst::new(WINDOW);
        burst.sent(WINDOW);
        burst
    }

    #[test]
    fn an_initial_window_leaves_at_once_and_what_follows_is_paced() {
        let mut burst = Burst::new(WINDOW);
        burst.sent(WINDOW - 1);
        assert!(burst.goes_on());
        burst.sent(1200);
        assert!(!burst.goes_on());
    }

    #[test]
    fn acknowledgements_allow_as_much_again_unless_the_window_is_full() {
        let mut burst = spent();
        burst.acknowledged(1200, false);
        assert!(!burst.goes_on());
        burst.acknowledged(1200, true);
        assert!(burst.goes_on());
        burst.sent(1200);
        assert!(!burst.goes_on());
    }

    #[test]
    fn never_more_than_an_initial_window_leaves_at_once() {
        let mut burst = spent();
        burst.acknowledged(1 << 20, true);
        burst.sent(WINDOW);
        assert!(!burst.goes_on());
    }

    #[test]
    fn after_congestion_all_is_paced() {
        let mut burst = Burst::new(WINDOW);
        burst.end();
        assert!(!burst.goes_on());
    }
}
