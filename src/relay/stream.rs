//! A client's TCP connection: frames in, frames out, and never more than a little waiting (RFC 8656 §12.5).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::shared::FiveTuple;

/// What may wait for a slow reader. Beyond that, data for it is dropped as on a full link: to buffer more would
/// only make it late.
const MAX_WAITING: usize = 512 << 10;
/// What answers to requests may take beyond that: a client that does not read still learns why.
const RESERVE: usize = 16 << 10;
const READ_SIZE: usize = 64 << 10;

pub struct Connection {
    pub stream: TcpStream,
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub accepted: Instant,
    /// The allocation that was made on it.
    pub allocation: Option<u64>,
    /// What was read and is no whole frame yet.
    pub input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
}

impl Connection {
    pub fn new(stream: TcpStream, remote: SocketAddr, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // What is written here are whole batches.
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        Ok(Self {
            stream,
            remote,
            local,
            accepted: now,
            allocation: None,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
        })
    }

    pub fn five_tuple(&self) -> FiveTuple {
        FiveTuple {
            tcp: true,
            client: self.remote,
            server: self.local,
        }
    }

    /// Read once, behind what an earlier read left over. Returns whether there may be more. An error means that the
    /// connection is over.
    pub fn read(&mut self) -> io::Result<bool> {
        let before = self.input.len();
        self.input.resize(before + READ_SIZE, 0);
        let result = self.stream.read(&mut self.input[before..]);
        self.input.truncate(before + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if is_temporary(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where to append a frame of `size` bytes with a peer's data; `None` while too much waits.
    pub fn room(&mut self, size: usize) -> Option<&mut Vec<u8>> {
        (self.waiting() + size <= MAX_WAITING).then_some(&mut self.output)
    }

    /// As `room`, for an answer.
    pub fn room_for_answer(&mut self, size: usize) -> Option<&mut Vec<u8>> {
        (self.waiting() + size <= MAX_WAITING + RESERVE).then_some(&mut self.output)
    }

    /// Write what waits, as far as there is room.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if is_temporary(&error) => {
                    // What was written makes room before the vector grows without end.
                    self.output.drain(..self.written);
                    self.written = 0;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.output.len() - self.written
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
