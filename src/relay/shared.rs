//! What the forwarder's thread and the control plane share: commands down, requests up.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mio::Waker;

use super::counts::Counts;
use crate::guardian::Signal;
use crate::udp::Socket;

/// Requests that may wait for the control plane; a flood of them costs those that come after.
const MAX_NEWS: usize = 1024;

/// Who a client is (RFC 8656 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FiveTuple {
    pub tcp: bool,
    pub client: SocketAddr,
    pub server: SocketAddr,
}

/// What the control plane wants done, in this order.
pub enum Command {
    Listen(Socket),
    Accept(TcpListener),
    /// These addresses are ours: nothing is sent to them but what is for a relayed address.
    Own(Vec<IpAddr>),
    /// These ports are the server's own: nothing is ever sent to them.
    Close(Vec<u16>),
    Open {
        allocation: u64,
        client: FiveTuple,
        owner: String,
    },
    /// Add a relayed address to an allocation.
    Relay {
        allocation: u64,
        socket: Socket,
        public: SocketAddr,
    },
    /// Give up an allocation's relayed address, the IPv6 one if so said.
    Unrelay(u64, bool),
    Delete(u64),
    Permit(u64, IpAddr),
    Forbid(u64, IpAddr),
    Bind(u64, u16, SocketAddr),
    Unbind(u64, u16),
    Send(FiveTuple, Vec<u8>),
    /// All news up to this one have been dealt with.
    Decided(u64),
    Stop,
}

/// What the control plane is told.
#[derive(Debug)]
pub struct News {
    pub client: FiveTuple,
    /// A STUN request; `None` when the client's connection is gone, and what was allocated on it lost.
    pub request: Option<Vec<u8>>,
}

/// News on their way to the control plane, numbered from one.
#[derive(Default)]
struct Desk {
    waiting: Vec<News>,
    told: u64,
    taken: u64,
    decided: u64,
}

pub struct Shared {
    waker: Waker,
    /// Readable when there are news.
    pub bell: Signal,
    commands: Mutex<Vec<Command>>,
    news: Mutex<Desk>,
    counts: Mutex<Counts>,
}

impl Shared {
    /// `waker`: what the thread is woken by for commands.
    pub fn new(waker: Waker) -> io::Result<Self> {
        Ok(Self {
            waker,
            bell: Signal::new()?,
            commands: Mutex::default(),
            news: Mutex::default(),
            counts: Mutex::default(),
        })
    }

    pub fn command(&self, command: Command) {
        let mut commands = lock(&self.commands);
        let first = commands.is_empty();
        commands.push(command);
        drop(commands);
        if first {
            // It fails only for want of memory in the kernel: the next command, or packet, wakes as well.
            let _ = self.waker.wake();
        }
    }

    pub fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut *lock(&self.commands))
    }

    /// Returns the number of these news; `None` when there is no room for them.
    pub fn tell(&self, news: News) -> Option<u64> {
        let mut desk = lock(&self.news);
        // That a connection is gone is never said twice, and must not be lost.
        if desk.waiting.len() >= MAX_NEWS && news.request.is_some() {
            return None;
        }
        desk.waiting.push(news);
        desk.told += 1;
        self.bell.set();
        Some(desk.told)
    }

    /// What has been told since the last call. All that was taken before has been dealt with.
    pub fn take_news(&self) -> Vec<News> {
        self.bell.clear();
        let mut desk = lock(&self.news);
        if desk.decided < desk.taken {
            desk.decided = desk.taken;
            self.command(Command::Decided(desk.decided));
        }
        desk.taken = desk.told;
        std::mem::take(&mut desk.waiting)
    }

    pub fn publish(&self, counts: Counts) {
        *lock(&self.counts) = counts;
    }

    pub fn counts(&self) -> Counts {
        *lock(&self.counts)
    }
}

/// A panic under one of these locks is a bug that has been reported by then; closing must still work.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
