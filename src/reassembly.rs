//! A stream's received bytes, put in order for the application.
//!
//! noq ends the connection when a stream has more than about a thousand chunks that are not read (quinn issue
//! 2809): with a window of 16 MiB, one lost packet on a fast link is enough, and so is an application that reads
//! slowly. So chunks are taken out of noq in whatever order before they are too many, and put in order here.
//!
//! Memory stays within a small multiple of the bytes held, however the peer cuts them: short chunks that adjoin
//! are merged, and what keeps them apart, the gaps, is counted for `Connection` to bound.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes, BytesMut};

/// Below this a chunk is copied, so that a few bytes do not keep a datagram alive, nor those that share its memory.
const COPY_BELOW: usize = 1024;
/// Copied chunks that adjoin are merged up to this size.
const MERGED: usize = 4096;

/// Bytes that adjoin.
enum Piece {
    /// A part of a received datagram.
    Shared(Bytes),
    Copied(BytesMut),
}

impl Piece {
    fn new(chunk: Bytes) -> Self {
        if chunk.len() < COPY_BELOW {
            Self::Copied(BytesMut::from(&chunk[..]))
        } else {
            Self::Shared(chunk)
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Shared(bytes) => bytes.len(),
            Self::Copied(bytes) => bytes.len(),
        }
    }

    /// Take in what adjoins at the end, or give it back.
    fn merge(&mut self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::Copied(bytes), Self::Copied(next)) if bytes.len() + next.len() <= MERGED => {
                bytes.extend_from_slice(&next);
                None
            }
            (_, next) => Some(next),
        }
    }

    fn copy_to(&mut self, out: &mut [u8]) {
        match self {
            Self::Shared(bytes) => bytes.copy_to_slice(out),
            Self::Copied(bytes) => bytes.copy_to_slice(out),
        }
    }
}

/// The bytes of one stream that were received and not yet read.
#[derive(Default)]
pub struct Reassembly {
    /// In order, from the application's read position on.
    ready: VecDeque<Piece>,
    ready_bytes: usize,
    /// The stream offset just after `ready`.
    ready_end: u64,
    /// After a gap, by offset. noq has removed duplicates and overlaps.
    waiting: BTreeMap<u64, Piece>,
    gaps: usize,
}

impl Reassembly {
    /// Take in a chunk that has not been received before. Returns whether it adjoins what can be read.
    pub fn insert(&mut self, offset: u64, chunk: Bytes) -> bool {
        if offset != self.ready_end {
            self.wait(offset, Piece::new(chunk));
            return false;
        }
        self.append(Piece::new(chunk));
        let end = self.ready_end;
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() != self.ready_end {
                break;
            }
            let piece = entry.remove();
            self.append(piece);
        }
        self.gaps -= usize::from(self.ready_end > end);
        true
    }

    fn wait(&mut self, offset: u64, mut piece: Piece) {
        let end = offset + piece.len() as u64;
        self.gaps += 1;
        if let Some(next) = self.waiting.remove(&end) {
            self.gaps -= 1;
            if let Some(next) = piece.merge(next) {
                self.waiting.insert(end, next);
            }
        }
        if let Some((&start, previous)) = self.waiting.range_mut(..offset).next_back()
            && start + previous.len() as u64 == offset
        {
            self.gaps -= 1;
            match previous.merge(piece) {
                Some(unmerged) => piece = unmerged,
                None => return,
            }
        }
        self.waiting.insert(offset, piece);
    }

    fn append(&mut self, piece: Piece) {
        self.ready_bytes += piece.len();
        self.ready_end += piece.len() as u64;
        let unmerged = match self.ready.back_mut() {
            Some(last) => last.merge(piece),
            None => Some(piece),
        };
        self.ready.extend(unmerged);
    }

    /// Drop everything; returns how many bytes that were.
    pub fn discard(&mut self) -> u64 {
        let waiting: usize = self.waiting.values().map(Piece::len).sum();
        let dropped = self.ready_bytes + waiting;
        self.ready.clear();
        self.ready_bytes = 0;
        self.waiting.clear();
        self.gaps = 0;
        dropped as u64
    }

    /// How many bytes can be read now.
    pub fn available(&self) -> usize {
        self.ready_bytes
    }

    /// How many runs of bytes have one missing before them. Each costs memory, here and in noq, beside its bytes.
    pub fn gaps(&self) -> usize {
        self.gaps
    }

    /// Fill `out` as far as there is data in order; returns how many bytes were written to it.
    pub fn read(&mut self, mut out: &mut [u8]) -> usize {
        let wanted = out.len();
        while let Some(front) = self.ready.front_mut() {
            let count = front.len().min(out.len());
            let (head, tail) = out.split_at_mut(count);
            front.copy_to(head);
            out = tail;
            if front.len() > 0 {
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

    /// What an entry of a map or a queue takes, and an allocation beside its bytes: generously.
    const ENTRY: usize = 160;

    impl Reassembly {
        /// An upper bound of the memory held.
        fn footprint(&self) -> usize {
            self.ready
                .iter()
                .chain(self.waiting.values())
                .map(|piece| {
                    ENTRY
                        + match piece {
                            // Four datagrams of up to 1472 bytes share their memory.
                            Piece::Shared(_) => 4 * 1472,
                            Piece::Copied(bytes) => bytes.capacity(),
                        }
                })
                .sum()
        }
    }

    fn read_all(reassembly: &mut Reassembly) -> Vec<u8> {
        let mut out = vec![0; reassembly.available()];
        assert_eq!(reassembly.read(&mut out), out.len());
        out
    }

    /// The offsets below `count` that `step` visits, which has no factor in common with it.
    fn strided(count: usize, step: usize) -> impl Iterator<Item = usize> {
        (0..count).map(move |i| i * step % count)
    }

    #[test]
    fn chunks_in_any_order_come_out_in_order() {
        let content: Vec<u8> = (0..60_000u32).map(|i| (i * 31 % 251) as u8).collect();
        // Copied and merged, copied, and kept as they are.
        for size in [7, 1000, 1030] {
            let chunks: Vec<&[u8]> = content.chunks(size).collect();
            for step in [1, 11, 13, 83] {
                let mut reassembly = Reassembly::default();
                let mut out = Vec::new();
                for i in strided(chunks.len(), step) {
                    let chunk = Bytes::copy_from_slice(chunks[i]);
                    reassembly.insert((i * size) as u64, chunk);
                    if i % 5 == 0 {
                        out.extend(read_all(&mut reassembly));
                    }
                }
                out.extend(read_all(&mut reassembly));
                assert!(out == content, "size {size}, step {step}");
                assert_eq!(reassembly.gaps(), 0);
            }
        }
    }

    #[test]
    fn a_gap_holds_back_what_follows() {
        let mut reassembly = Reassembly::default();
        assert!(!reassembly.insert(3, Bytes::from_static(b"def")));
        assert_eq!(reassembly.available(), 0);
        assert!(reassembly.insert(0, Bytes::from_static(b"abc")));
        let mut out = [0; 4];
        assert_eq!(reassembly.read(&mut out), 4);
        assert_eq!(&out, b"abcd");
        assert_eq!(read_all(&mut reassembly), b"ef");
    }

    #[test]
    fn gaps_are_counted_until_they_are_filled_or_dropped() {
        let mut reassembly = Reassembly::default();
        for (offset, gaps) in [
            (2, 1),
            (4, 2),
            (8, 3),
            (5, 3),
            (7, 3),
            (3, 2),
            (6, 1),
            (0, 1),
            (1, 0),
        ] {
            reassembly.insert(offset, Bytes::from_static(b"x"));
            assert_eq!(reassembly.gaps(), gaps, "after {offset}");
        }
        assert_eq!(reassembly.available(), 9);
        reassembly.insert(20, Bytes::from_static(b"x"));
        assert_eq!(reassembly.discard(), 10);
        assert_eq!(reassembly.gaps(), 0);
    }

    #[test]
    fn single_bytes_take_little_more_memory_than_large_chunks_once_they_adjoin() {
        const COUNT: usize = 100_000;
        let orders: [(&str, Vec<usize>); 4] = [
            ("ascending", (0..COUNT).collect()),
            ("descending", (0..COUNT).rev().collect()),
            ("strided", strided(COUNT, 7).collect()),
            ("scattered", strided(COUNT, 61_803).collect()),
        ];
        for (name, order) in orders {
            let mut reassembly = Reassembly::default();
            for i in order {
                // From 1 on: nothing can be read, and all has to wait.
                reassembly.insert(1 + i as u64, Bytes::from_static(b"x"));
            }
            assert_eq!(reassembly.gaps(), 1);
            assert!(
                reassembly.footprint() <= 3 * COUNT,
                "{name}: {}",
                reassembly.footprint()
            );
            reassembly.insert(0, Bytes::from_static(b"x"));
            assert_eq!(reassembly.available(), COUNT + 1);
            assert!(
                reassembly.footprint() <= 3 * COUNT,
                "{name}: {}",
                reassembly.footprint()
            );
        }
    }

    #[test]
    fn whatever_the_chunks_memory_is_bounded_by_bytes_and_gaps() {
        let large = Bytes::from(vec![0; COPY_BELOW]);
        let mut reassembly = Reassembly::default();
        let (mut offset, mut held) = (1, 0);
        for i in 0..20_000u64 {
            let chunk = if i % 2 == 0 {
                large.clone()
            } else {
                Bytes::from_static(b"x")
            };
            let length = chunk.len();
            reassembly.insert(offset, chunk);
            held += length;
            offset += length as u64 + u64::from(i % 3 == 0);
            if i % 500 == 0 {
                let bound = 6 * held + 2 * ENTRY * reassembly.gaps();
                assert!(reassembly.footprint() <= bound);
            }
        }
    }
}
