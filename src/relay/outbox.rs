//! Datagrams on their way out, gathered into batches that one system call each sends (GSO).

use std::net::{IpAddr, SocketAddr};

use noq_proto::EcnCodepoint;

/// What the kernel takes at once: 64 segments and 65,507 bytes (Linux's UDP_MAX_SEGMENTS). Half of it is fastest.
const MAX_SEGMENTS: usize = 32;
const MAX_BYTES: usize = 65_507;

/// The socket that a datagram leaves by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The listening socket with this number.
    Listener(usize),
    /// An allocation's relayed address, by the allocation and whether it is its IPv6 one.
    Relayed(u64, bool),
}

/// What the datagrams of one batch have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    pub exit: Exit,
    pub source: Option<IpAddr>,
    pub destination: SocketAddr,
    /// RFC 8656 §14: the ECN bits are passed on, both ways.
    pub ecn: Option<EcnCodepoint>,
}

/// Datagrams of one size for one destination; the last may be shorter.
pub struct Batch {
    pub way: Way,
    pub segment: usize,
    pub data: Vec<u8>,
    ended: bool,
}

#[derive(Default)]
pub struct Outbox {
    batches: Vec<Batch>,
    /// The batch that was added to last: mostly the next one, too.
    last: usize,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    /// Where to append the next datagram, of `size` bytes, that goes this way.
    pub fn add(&mut self, way: Way, size: usize) -> &mut Vec<u8> {
        let index = self.open(way, size).unwrap_or_else(|| {
            self.batches.push(Batch {
                way,
                segment: size,
                data: self.spare.pop().unwrap_or_default(),
                ended: false,
            });
            self.batches.len() - 1
        });
        self.last = index;
        let batch = &mut self.batches[index];
        let full = batch.data.len() + size;
        batch.ended =
            size < batch.segment || full + size > MAX_BYTES || full >= batch.segment * MAX_SEGMENTS;
        &mut batch.data
    }

    /// The batch that can take it. Only the latest of a way can, or datagrams would overtake each other.
    fn open(&self, way: Way, size: usize) -> Option<usize> {
        let is_latest = |index: &usize| self.batches[*index].way == way;
        let takes = |index: &usize| {
            let batch = &self.batches[*index];
            let room = batch.data.len() + size <= MAX_BYTES;
            // Behind others an empty datagram would be no segment at all.
            !batch.ended && room && (1..=batch.segment).contains(&size)
        };
        if self.last < self.batches.len() && is_latest(&self.last) && takes(&self.last) {
            return Some(self.last);
        }
        (0..self.batches.len()).rev().find(is_latest).filter(takes)
    }

    /// Hand all batches to `send`, in the order of their first datagrams.
    pub fn flush(&mut self, mut send: impl FnMut(&Batch)) {
        for mut batch in self.batches.drain(..) {
            send(&batch);
            batch.data.clear();
            self.spare.push(batch.data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(port: u16) -> Way {
        Way {
            exit: Exit::Listener(0),
            source: None,
            destination: SocketAddr::from(([192, 0, 2, 1], port)),
            ecn: None,
        }
    }

    fn put(outbox: &mut Outbox, port: u16, data: &[u8]) {
        outbox.add(way(port), data.len()).extend(data);
    }

    /// Each batch as its port and the datagrams that the kernel makes of it.
    fn sent(outbox: &mut Outbox) -> Vec<(u16, Vec<Vec<u8>>)> {
        let mut sent = Vec::new();
        outbox.flush(|batch| {
            let datagrams = if batch.data.is_empty() {
                vec![Vec::new()]
            } else {
                batch
                    .data
                    .chunks(batch.segment)
                    .map(<[u8]>::to_vec)
                    .collect()
            };
            sent.push((batch.way.destination.port(), datagrams));
        });
        sent
    }

    #[test]
    fn datagrams_of_one_size_for_one_destination_leave_together() {
        let mut outbox = Outbox::default();
        for (port, data) in [(1, b"aa"), (2, b"xx"), (1, b"bb"), (2, b"yy")] {
            put(&mut outbox, port, data);
        }
        let expected = [
            (1, vec![b"aa".to_vec(), b"bb".to_vec()]),
            (2, vec![b"xx".to_vec(), b"yy".to_vec()]),
        ];
        assert_eq!(sent(&mut outbox), expected);
        assert!(sent(&mut outbox).is_empty());
    }

    #[test]
    fn a_shorter_datagram_ends_its_batch_and_a_longer_one_begins_another() {
        let mut outbox = Outbox::default();
        for data in [&b"aa"[..], b"b", b"cc", b"ddd", b"", b"e"] {
            put(&mut outbox, 1, data);
        }
        let batches = sent(&mut outbox);
        let flat: Vec<Vec<u8>> = batches.iter().flat_map(|(_, all)| all.clone()).collect();
        assert_eq!(
            flat,
            [&b"aa"[..], b"b", b"cc", b"ddd", b"", b"e"].map(<[u8]>::to_vec)
        );
    }

    #[test]
    fn no_batch_is_more_than_the_kernel_takes() {
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            put(&mut outbox, 1, &[7; 1200]);
            put(&mut outbox, 2, &[7; 40_000]);
        }
        let mut count = 0;
        outbox.flush(|batch| {
            assert!(batch.data.len() <= MAX_BYTES);
            assert!(batch.data.len().div_ceil(batch.segment) <= MAX_SEGMENTS);
            count += batch.data.len() / batch.segment;
        });
        assert_eq!(count, 200);
    }
}
