//! What was carried and what was dropped, and why.

/// Why data was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drop {
    /// It is of no protocol of ours, or cut off.
    Malformed,
    /// The client has no allocation, or none of the peer's address family.
    NoAllocation,
    NoPermission,
    NoChannel,
    /// The peer is this server itself, or has no port.
    Forbidden,
    /// The owner has had its bytes of this second.
    Rate,
    /// A socket, a slow client or the control plane did not take it.
    Full,
}

impl Drop {
    /// Whether a request may change it.
    pub fn can_be_asked_for(self) -> bool {
        matches!(
            self,
            Self::NoAllocation | Self::NoPermission | Self::NoChannel
        )
    }
}

#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Packets and bytes of data, from clients to peers.
    pub to_peers: (u64, u64),
    /// Packets and bytes of data, from peers to clients.
    pub to_clients: (u64, u64),
    drops: [u64; 7],
}

impl Counts {
    pub const REASONS: [(&'static str, Drop); 7] = [
        ("malformed", Drop::Malformed),
        ("no allocation", Drop::NoAllocation),
        ("no permission", Drop::NoPermission),
        ("no channel", Drop::NoChannel),
        ("forbidden", Drop::Forbidden),
        ("rate", Drop::Rate),
        ("full", Drop::Full),
    ];

    pub fn drop(&mut self, reason: Drop) {
        self.drops[reason as usize] += 1;
    }

    pub fn dropped(&self, reason: Drop) -> u64 {
        self.drops[reason as usize]
    }
}
