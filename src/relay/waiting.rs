//! Data that came right behind a request for what it needs: it waits until the control plane has decided.
//!
//! A client need not wait for an answer before it sends (RFC 8656 §12.2 only warns that the network may turn two
//! datagrams round). The control plane is slower than the data path, and would do so each time.

use noq_proto::EcnCodepoint;
use rustc_hash::FxHashMap;

use super::allocation::Client;

/// What all that waits may have together; more is dropped, as it would be if nothing waited.
const MAX_BYTES: usize = 1 << 20;

/// A datagram that waits.
pub struct Held {
    pub client: Client,
    pub ecn: Option<EcnCodepoint>,
    pub datagram: Vec<u8>,
}

#[derive(Default)]
pub struct Waiting {
    /// The number of each client's last request, while it is not decided.
    asked: FxHashMap<Client, u64>,
    held: Vec<Held>,
    bytes: usize,
}

impl Waiting {
    /// A client's request, with this number, went to the control plane.
    pub fn ask(&mut self, client: Client, number: u64) {
        self.asked.insert(client, number);
    }

    /// The control plane has decided on all requests up to this one.
    pub fn decide(&mut self, number: u64) {
        self.asked.retain(|_, last| *last > number);
    }

    /// Keep a datagram for later, if there is a request before it that is not decided, and room.
    pub fn hold(&mut self, client: Client, ecn: Option<EcnCodepoint>, datagram: &[u8]) -> bool {
        let bytes = self.bytes + datagram.len();
        let holds = self.asked.contains_key(&client) && bytes <= MAX_BYTES;
        if holds {
            self.bytes = bytes;
            self.held.push(Held {
                client,
                ecn,
                datagram: datagram.to_vec(),
            });
        }
        holds
    }

    /// What waits, in order.
    pub fn take(&mut self) -> Vec<Held> {
        self.bytes = 0;
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(waiting: &mut Waiting, number: u64) -> bool {
        waiting.hold(Client::Tcp(number), None, &[0; 1200])
    }

    #[test]
    fn data_waits_only_behind_a_request_of_its_client_that_is_not_decided() {
        let mut waiting = Waiting::default();
        assert!(!hold(&mut waiting, 1));
        waiting.ask(Client::Tcp(1), 7);
        waiting.decide(6);
        assert!(hold(&mut waiting, 1));
        assert!(!hold(&mut waiting, 2));
        waiting.decide(7);
        assert!(!hold(&mut waiting, 1));
        assert_eq!(waiting.take().len(), 1);
    }

    #[test]
    fn no_more_waits_than_there_is_room_for() {
        let mut waiting = Waiting::default();
        waiting.ask(Client::Tcp(1), 1);
        let kept = (0..4096).filter(|_| hold(&mut waiting, 1)).count();
        assert_eq!(kept, MAX_BYTES / 1200);
        waiting.take();
        assert!(hold(&mut waiting, 1));
    }
}
