//! The thread that pumps while the event loop does not.
//!
//! It sleeps until a datagram arrives or a timer is due, then gives the loop `GRACE` to deal with it. A loop
//! at work costs it one wake-up in `GRACE`, an idle endpoint none.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::driver::Driver;
use crate::udp::Socket;

/// How late the event loop may be before the guardian takes over.
const GRACE: Duration = Duration::from_millis(10);

/// A flag that a `poll` can wait for.
pub struct Signal {
    is_set: AtomicBool,
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Signal {
    pub fn new() -> io::Result<Self> {
        let mut fds = [0; 2];
        // SAFETY: `fds` has room for the two descriptors that pipe writes.
        if unsafe { libc::pipe(fds.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        for fd in fds {
            // SAFETY: both descriptors were just made and are open.
            unsafe {
                libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        // SAFETY: nobody else owns the two descriptors.
        let [reader, writer] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self {
            is_set: AtomicBool::new(false),
            reader,
            writer,
        })
    }

    pub fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    pub fn set(&self) {
        // Sequentially consistent, as in `clear`: what was changed before is seen by who clears this next.
        if self.is_set.swap(true, Ordering::SeqCst) {
            return;
        }
        // SAFETY: writes one byte from a valid buffer. A full pipe is a flag that is set already.
        unsafe { libc::write(self.writer.as_raw_fd(), [1u8].as_ptr().cast(), 1) };
    }

    pub fn clear(&self) {
        if !self.is_set.load(Ordering::Acquire) {
            return;
        }
        let mut sink = [0u8; 64];
        // SAFETY: reads at most `sink.len()` bytes into it.
        while unsafe { libc::read(self.fd(), sink.as_mut_ptr().cast(), sink.len()) } > 0 {}
        // Last: what is set from here on writes again.
        self.is_set.store(false, Ordering::SeqCst);
    }
}

/// Start the guardian of a driver; it ends when the driver is stopped or dropped.
pub fn start(driver: &Arc<Driver>) -> io::Result<()> {
    let weak = Arc::downgrade(driver);
    // A descriptor of its own, so that waiting does not keep the driver alive.
    let alarm = driver.alarm.reader.try_clone()?;
    thread::Builder::new()
        .name("quice-guardian".into())
        .spawn(move || run(&weak, &alarm))
        .map(drop)
}

fn run(driver: &Weak<Driver>, alarm: &OwnedFd) {
    let alarm = alarm.as_raw_fd();
    let mut fds = Vec::new();
    loop {
        let Some(until) = driver.upgrade().and_then(|driver| watch(&driver, &mut fds)) else {
            return;
        };
        fds.push(alarm);
        wait(&fds, until);
        let Some(driver) = driver.upgrade() else {
            return;
        };
        // Awake: nobody needs to sound the alarm for an earlier timer.
        driver.guardian_until.store(0, Ordering::Relaxed);
        guard(&driver);
    }
}

/// Note what to wait for. Returns until when, or `None` when it is time to end.
fn watch(driver: &Driver, fds: &mut Vec<RawFd>) -> Option<Option<Instant>> {
    driver.alarm.clear();
    if driver.stop.load(Ordering::SeqCst) {
        return None;
    }
    let state = driver.lock();
    fds.clear();
    fds.extend(state.sockets().iter().map(Socket::fd));
    // What the loop holds back until the application answers is due at once, once the application does not.
    let until = if state.engine.has_work() {
        Some(Instant::now())
    } else {
        state.next_timeout()
    };
    let nanos = until.map_or(u64::MAX, |time| driver.nanos(time));
    driver.guardian_until.store(nanos, Ordering::Relaxed);
    Some(until)
}

/// Look in on the event loop until it has nothing to do, and stand in for it when it does not do it.
///
/// While it is at work this reads one number in `GRACE`, and takes no lock.
fn guard(driver: &Driver) {
    let mut patience = GRACE;
    while !driver.stop.load(Ordering::Relaxed) {
        let before = driver.last_pumped();
        thread::sleep(patience);
        let pumped = driver.last_pumped();
        if pumped != before {
            let age = driver.nanos(Instant::now()).saturating_sub(pumped);
            patience = GRACE.saturating_sub(Duration::from_nanos(age));
            continue;
        }
        if !driver.overdue() {
            return;
        }
        stand_in(driver, pumped);
        patience = GRACE;
    }
}

/// Pump for as long as the event loop does not.
fn stand_in(driver: &Driver, pumped: u64) {
    while driver.last_pumped() == pumped && !driver.stop.load(Ordering::Relaxed) {
        let mut state = driver.lock();
        let progress = state.pump(true, false);
        let news = state.engine.has_news();
        let fds: Vec<RawFd> = state.sockets().iter().map(Socket::fd).collect();
        drop(state);
        if news {
            driver.news.set();
        }
        if !progress.more {
            // Bounded, to notice when the loop is back or the driver is stopped.
            let bound = Instant::now() + GRACE;
            wait(
                &fds,
                Some(progress.next_timeout.map_or(bound, |time| time.min(bound))),
            );
        }
    }
}

/// Wait until one of `fds` is readable, or until the time given.
fn wait(fds: &[RawFd], until: Option<Instant>) {
    let timeout = until.map_or(-1, |time| {
        let left = time.saturating_duration_since(Instant::now());
        // Rounded up: waking before the time would only mean to come back.
        i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    });
    poll(fds, timeout);
}

/// Whether a datagram waits on one of the sockets.
pub fn readable(sockets: &[Socket]) -> bool {
    let fds: Vec<RawFd> = sockets.iter().map(Socket::fd).collect();
    !fds.is_empty() && poll(&fds, 0) > 0
}

fn poll(fds: &[RawFd], timeout_ms: i32) -> i32 {
    let mut polled: Vec<libc::pollfd> = fds
        .iter()
        .map(|&fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: `polled` is valid for its length during the call.
    unsafe {
        libc::poll(
            polled.as_mut_ptr(),
            polled.len() as libc::nfds_t,
            timeout_ms,
        )
    }
}
