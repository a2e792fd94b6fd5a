//! Which first packets begin a handshake at once, and which have to show first that they come from where they say.
//!
//! Anybody can send first packets under any number of source addresses, and each handshake costs memory and signatures
//! until it is given up. A Retry (RFC 9000 §8.1.2) costs neither, but each peer a round trip. So it is asked for only
//! once many handshakes are under way, and never of a peer that is expected.

use noq_proto::ConnectionId;
use rustc_hash::FxHashMap;

/// From this many handshakes under way that others have begun, a client must prove its address.
pub const RETRY_FROM: usize = 64;
/// Beyond this many, nobody is let in who is not expected. It takes as many real addresses, or one that is busy.
pub const MOST: usize = 1024;
/// Handshakes under way that may begin alike and are expected: a session has no more attempts.
pub const MOST_ALIKE: usize = 16;
/// The bytes of a first destination connection id by which it is known what it belongs to.
pub const TAG: usize = 8;

pub type Tag = [u8; TAG];

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Retry,
    Ignore,
}

/// The handshakes under way that others have begun, and those that are expected.
#[derive(Default)]
pub struct Admission {
    under_way: usize,
    /// By tag, how many of them are under way.
    expected: FxHashMap<Tag, usize>,
}

impl Admission {
    /// First packets whose connection id begins so are expected from now on.
    pub fn expect(&mut self, tag: Tag) {
        self.expected.entry(tag).or_default();
    }

    pub fn expect_no_more(&mut self, tag: Tag) {
        self.expected.remove(&tag);
    }

    /// What to do with a first packet. `proven`: whether its source is known to be its own.
    pub fn judge(&self, id: ConnectionId, proven: bool) -> Verdict {
        let alike = tag_of(id).and_then(|tag| self.expected.get(&tag));
        if alike.is_some_and(|count| *count < MOST_ALIKE) || self.under_way < RETRY_FROM {
            Verdict::Accept
        } else if !proven {
            Verdict::Retry
        } else if self.under_way < MOST {
            Verdict::Accept
        } else {
            Verdict::Ignore
        }
    }

    pub fn begun(&mut self, id: ConnectionId) {
        self.under_way += 1;
        if let Some(count) = tag_of(id).and_then(|tag| self.expected.get_mut(&tag)) {
            *count += 1;
        }
    }

    pub fn over(&mut self, id: ConnectionId) {
        self.under_way -= 1;
        if let Some(count) = tag_of(id).and_then(|tag| self.expected.get_mut(&tag)) {
            // It may have begun before it was expected.
            *count = count.saturating_sub(1);
        }
    }
}

fn tag_of(id: ConnectionId) -> Option<Tag> {
    id.get(..TAG)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(tag: u8, rest: u8) -> ConnectionId {
        let mut bytes = [tag; 17];
        bytes[TAG..].fill(rest);
        ConnectionId::new(&bytes)
    }

    fn under_load(count: usize) -> Admission {
        let mut admission = Admission::default();
        (0..count).for_each(|_| admission.begun(id(0, 0)));
        admission
    }

    #[test]
    fn a_few_handshakes_begin_at_once() {
        let admission = under_load(RETRY_FROM - 1);
        assert_eq!(admission.judge(id(1, 1), false), Verdict::Accept);
    }

    #[test]
    fn under_load_who_has_proven_its_address_goes_on_and_others_have_to() {
        let admission = under_load(RETRY_FROM);
        assert_eq!(admission.judge(id(1, 1), false), Verdict::Retry);
        assert_eq!(admission.judge(id(1, 1), true), Verdict::Accept);
    }

    #[test]
    fn handshakes_have_an_end() {
        let mut admission = under_load(MOST);
        assert_eq!(admission.judge(id(1, 1), true), Verdict::Ignore);
        admission.over(id(0, 0));
        assert_eq!(admission.judge(id(1, 1), true), Verdict::Accept);
    }

    #[test]
    fn who_is_expected_goes_on_whatever_the_load_but_not_any_number_of_times() {
        let mut admission = under_load(MOST);
        admission.expect([7; TAG]);
        for number in 0..MOST_ALIKE {
            let alike = id(7, u8::try_from(number).unwrap());
            assert_eq!(admission.judge(alike, false), Verdict::Accept);
            admission.begun(alike);
        }
        assert_eq!(admission.judge(id(7, 99), false), Verdict::Retry);
        admission.over(id(7, 0));
        assert_eq!(admission.judge(id(7, 99), false), Verdict::Accept);
        admission.expect_no_more([7; TAG]);
        assert_eq!(admission.judge(id(7, 99), false), Verdict::Retry);
    }
}
