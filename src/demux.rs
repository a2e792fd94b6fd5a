//! What a datagram is, by its first octet (RFC 9443 §3).

/// What to do with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Quic,
    Stun,
    /// What a TURN server of ours passes on.
    ChannelData,
    /// ZRTP, DTLS, RTP and what is not assigned: dropped and counted.
    Other,
}

pub const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
pub const STUN_HEADER: usize = 20;

/// Classify a datagram. One that starts like STUN but has no STUN header is `Other`, so that a flood of
/// noise costs nothing above this line. `is_relayed`: whether it came from a TURN server of ours.
pub fn classify(datagram: &[u8], is_relayed: impl FnOnce() -> bool) -> Protocol {
    match datagram.first() {
        Some(0..=3) if is_stun(datagram) => Protocol::Stun,
        Some(64..=79) if is_relayed() => Protocol::ChannelData,
        Some(64..=127 | 192..=255) => Protocol::Quic,
        _ => Protocol::Other,
    }
}

/// RFC 8489 §5 and §6.3: the magic cookie in place, and a length that is a multiple of four and fits.
fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= STUN_HEADER
        && datagram[4..8] == MAGIC_COOKIE
        && datagram[3].is_multiple_of(4)
        && usize::from(u16::from_be_bytes([datagram[2], datagram[3]])) + STUN_HEADER
            == datagram.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stun(first: u8) -> [u8; 20] {
        let mut datagram = [0; 20];
        datagram[0] = first;
        datagram[4..8].copy_from_slice(&MAGIC_COOKIE);
        datagram
    }

    #[test]
    fn every_first_octet_has_its_protocol() {
        for octet in 0..=255u8 {
            let (direct, relayed) = match octet {
                0..=3 => (Protocol::Stun, Protocol::Stun),
                64..=79 => (Protocol::Quic, Protocol::ChannelData),
                80..=127 | 192..=255 => (Protocol::Quic, Protocol::Quic),
                _ => (Protocol::Other, Protocol::Other),
            };
            assert_eq!(classify(&stun(octet), || false), direct, "octet {octet}");
            assert_eq!(classify(&stun(octet), || true), relayed, "octet {octet}");
        }
    }

    #[test]
    fn what_only_starts_like_stun_is_dropped() {
        assert_eq!(classify(&[], || false), Protocol::Other);
        assert_eq!(classify(&[0; 20], || false), Protocol::Other);
        assert_eq!(classify(&stun(0)[..19], || false), Protocol::Other);
        let mut longer = stun(0).to_vec();
        longer.extend([0; 4]);
        assert_eq!(classify(&longer, || false), Protocol::Other);
        longer[3] = 4;
        assert_eq!(classify(&longer, || false), Protocol::Stun);
    }
}
