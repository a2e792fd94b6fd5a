//! A stream's received bytes, put in order for the application.
//!
//! noq ends the connection when a stream has more than about a thousand chunks that are not read (quinn issue
//! 2809): with a window of 16 MiB, one lost packet on a fast link is enough, and so is an application that reads
//! slowly. So chunks are taken out of noq in whatever order before they are too many, and put in order here.
//! Memory stays bounded by the connection's receive window, which `Connection` shrinks by what is held here.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

/// Below this a chunk is copied, so that a few bytes do not keep a whole receive buffer alive.
const COPY_BELOW: usize = 512;

/// The bytes of one stream that were received and not yet read.
#[derive(Default)]
pub struct Reassembly {
    /// In order, from the application's read position on.
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
    /// The stream offset just after `ready`.
    ready_end: u64,
    /// After a gap, by offset. noq has removed duplicates and overlaps.
    waiting: BTreeMap<u64, Bytes>,
}

impl Reassembly {
    /// Take in a chunk that has not been received before. Returns whether it adjoins what can be read.
    pub fn insert(&mut self, offset: u64, chunk: Bytes) -> bool {
        let chunk = if chunk.len() < COPY_BELOW {
            Bytes::copy_from_slice(&chunk)
        } else {
            chunk
        };
        if offset != self.ready_end {
            self.waiting.insert(offset, chunk);
            return false;
        }
        self.append(chunk);
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() != self.ready_end {
                break;
            }
            let chunk = entry.remove();
            self.append(chunk);
        }
        true
    }

    fn append(&mut self, chunk: Bytes) {
        self.ready_bytes += chunk.len();
        self.ready_end += chunk.len() as u64;
        self.ready.push_back(chunk);
    }

    /// Drop everything; returns how many bytes that were.
    pub fn discard(&mut self) -> u64 {
        let waiting: usize = self.waiting.values().map(Bytes::len).sum();
        let dropped = self.ready_bytes + waiting;
        self.ready.clear();
        self.ready_bytes = 0;
        self.waiting.clear();
        dropped as u64
    }

    /// How many bytes can be read now.
    pub fn available(&self) -> usize {
        self.ready_bytes
    }

    /// Fill `out` as far as there is data in order; returns how many bytes were written to it.
    pub fn read(&mut self, mut out: &mut [u8]) -> usize {
        let wanted = out.len();
        while let Some(front) = self.ready.front_mut() {
            let count = front.len().min(out.len());
            let (head, tail) = out.split_at_mut(count);
            head.copy_from_slice(&front.split_to(count));
            out = tail;
            if !front.is_empty() {
                break;
            }
            self.ready.pop_front();
        }
        let read = wanted - out.len();
        self.ready_bytes -= read;
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(reassembly: &mut Reassembly) -> Vec<u8> {
        let mut out = vec![0; reassembly.available()];
        assert_eq!(reassembly.read(&mut out), out.len());
        out
    }

    #[test]
    fn chunks_in_any_order_come_out_in_order() {
        let content: Vec<u8> = (0..60_000u32).map(|i| (i * 31 % 251) as u8).collect();
        let chunks: Vec<(usize, &[u8])> = content
            .chunks(700)
            .enumerate()
            .map(|(i, c)| (i * 700, c))
            .collect();
        for step in [1, 7, 11, 13, 83] {
            let mut reassembly = Reassembly::default();
            let mut out = Vec::new();
            for i in 0..chunks.len() {
                let (offset, chunk) = chunks[i * step % chunks.len()];
                reassembly.insert(offset as u64, Bytes::copy_from_slice(chunk));
                if i % 5 == 0 {
                    out.extend(read_all(&mut reassembly));
                }
            }
            out.extend(read_all(&mut reassembly));
            assert!(out == content, "step {step}");
        }
    }

    #[test]
    fn a_gap_holds_back_what_follows() {
        let mut reassembly = Reassembly::default();
        reassembly.insert(3, Bytes::from_static(b"def"));
        assert_eq!(reassembly.available(), 0);
        reassembly.insert(0, Bytes::from_static(b"abc"));
        let mut out = [0; 4];
        assert_eq!(reassembly.read(&mut out), 4);
        assert_eq!(&out, b"abcd");
        assert_eq!(read_all(&mut reassembly), b"ef");
    }
}
