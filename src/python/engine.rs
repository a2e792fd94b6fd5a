//! `quice._native.Engine`: an endpoint's QUIC, on sockets or in memory.

use std::ops::RangeInclusive;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use noq_proto::{ConnectionId, FourTuple};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::address::{HostPort, host_ip, parse, text};
use super::buffer::Buffer;
use super::config::{PyCredentials, Settings};
use super::connection::{PyConnection, RaceWon};
use super::error::os_error;
use super::event::Event;
use crate::admission::Tag;
use crate::clock::Clock;
use crate::driver::{Driver, State};
use crate::engine::{Attempt, ConnectError, Engine};
use crate::guardian;
use crate::route::RouteError;
use crate::seeded::Seeded;
use crate::tls::Credentials;

/// RFC 9000 §7.2, §17.2: how long the destination connection id of a first packet may be.
const INITIAL_ID: RangeInclusive<usize> = 8..=20;

#[pyclass(frozen, name = "Engine", module = "quice._native")]
pub struct PyEngine {
    driver: Arc<Driver>,
}

#[pymethods]
impl PyEngine {
    #[new]
    #[pyo3(signature = (credentials, alpns, settings, *, sockets, seed=None, reserved_streams=0))]
    fn new(
        credentials: &PyCredentials,
        alpns: Vec<Vec<u8>>,
        settings: Settings,
        sockets: bool,
        seed: Option<[u8; 32]>,
        reserved_streams: u32,
    ) -> PyResult<Self> {
        let credentials = credentials.get();
        // Who guesses the seed has every key: on a network, randomness is the system's.
        if seed.is_some() && sockets {
            return Err(PyValueError::new_err("a seed is for engines in memory"));
        }
        if seed.is_some() && !matches!(*credentials, Credentials::RawKey(_)) {
            // ECDSA and RSA-PSS signatures are random, and ring takes that from the system.
            return Err(PyValueError::new_err("a seed needs raw keys"));
        }
        let clock = (!sockets).then(|| Arc::new(Clock::new(Instant::now())));
        let engine = Engine::new(
            credentials,
            alpns,
            settings.transport(0)?,
            settings.transport(reserved_streams)?,
            settings.receive_window(),
            settings.timeouts()?,
            clock.clone(),
            seed.map(Seeded::new),
        )
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let driver = Arc::new(Driver::new(engine, clock)?);
        if sockets {
            guardian::start(&driver)?;
        }
        Ok(Self { driver })
    }

    fn bind(&self, host: String, port: u16) -> PyResult<(i32, HostPort)> {
        let local = parse(&(host, port))?;
        let (descriptor, bound) = self.driver.lock().bind(local).map_err(os_error)?;
        // The guardian is to watch this socket too.
        self.driver.alarm.set();
        Ok((descriptor, text(bound)))
    }

    /// The descriptor that becomes readable when the guardian has events for the event loop.
    #[getter]
    fn news_fd(&self) -> i32 {
        self.driver.news.fd()
    }

    /// Move packets, timers and events; in memory, at the time `now` (seconds).
    #[pyo3(signature = (now=None, *, receive=true, hold=false))]
    fn pump(
        &self,
        py: Python<'_>,
        now: Option<f64>,
        receive: bool,
        hold: bool,
    ) -> PyResult<(Vec<Event>, Option<f64>, bool, bool)> {
        let time = now.map(|now| self.time(now)).transpose()?;
        let driver = &self.driver;
        let (progress, events, current) = py.detach(|| {
            driver.news.clear();
            let mut state = driver.lock();
            if let Some(time) = time {
                state.set_now(time);
            }
            let progress = driver.pump(&mut state, receive, hold);
            let packets = state.engine.take_packets();
            let mut events: Vec<Event> = packets
                .iter()
                .map(|packet| {
                    let port = state.local_port(packet.path.local_ip(), packet.path.remote());
                    Event::packet(packet, port)
                })
                .collect();
            let engine = &mut state.engine;
            for (id, event) in engine.take_events() {
                events.push(Event::new(engine, id, event));
            }
            let output = engine.routes.take_output().into_iter();
            events.extend(output.map(|(host, data)| Event::relay_output(host, data)));
            (progress, events, state.clock())
        });
        let base = if now.is_some() { driver.epoch } else { current };
        let timeout = progress
            .next_timeout
            .map(|time| seconds_not_before(time.saturating_duration_since(base)));
        Ok((events, timeout, progress.more, progress.blocked))
    }

    /// Start a connection; the handshake goes out with the next pump.
    #[pyo3(signature = (remote, alpns, *, peer=None, name="", local=None, race=None, initial_id=None))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn connect(
        &self,
        remote: HostPort,
        alpns: Vec<Vec<u8>>,
        peer: Option<[u8; 32]>,
        name: &str,
        local: Option<&str>,
        race: Option<u64>,
        initial_id: Option<Vec<u8>>,
    ) -> PyResult<PyConnection> {
        if let Some(id) = &initial_id
            && !INITIAL_ID.contains(&id.len())
        {
            return Err(PyValueError::new_err("initial_id has 8 to 20 bytes"));
        }
        let attempt = Attempt {
            remote: parse(&remote)?,
            local: local.map(host_ip).transpose()?,
            peer: peer.as_ref(),
            name,
            alpns,
            race,
            initial_id: initial_id.map(|id| ConnectionId::new(&id)),
        };
        let mut state = self.driver.lock();
        let now = state.now();
        let id = state
            .engine
            .connect(now, attempt)
            .map_err(|error| match error {
                ConnectError::RaceWon => RaceWon::new_err("another attempt has won this race"),
                ConnectError::Tls(error) => PyOSError::new_err(error.to_string()),
                ConnectError::Quic(error) => PyOSError::new_err(error.to_string()),
            })?;
        drop(state);
        Ok(PyConnection::new(self.driver.clone(), id))
    }

    /// Handshakes whose first destination connection id begins with this tag are expected: they begin at once, whatever
    /// the load.
    fn expect(&self, tag: Tag) {
        self.driver.lock().engine.admission.expect(tag);
    }

    fn expect_no_more(&self, tag: Tag) {
        self.driver.lock().engine.admission.expect_no_more(tag);
    }

    /// The connection that an event names.
    fn connection(&self, id: u64) -> PyConnection {
        PyConnection::new(self.driver.clone(), id)
    }

    /// Send one datagram that is not QUIC.
    #[pyo3(signature = (data, destination, source=None))]
    fn send(
        &self,
        data: &Bound<'_, PyAny>,
        destination: HostPort,
        source: Option<&str>,
    ) -> PyResult<()> {
        let destination = parse(&destination)?;
        let source = source.map(host_ip).transpose()?;
        let data = Buffer::readable(data)?;
        self.driver.lock().send(data.bytes(), source, destination);
        Ok(())
    }

    /// Have a relay behind `server`; returns the host by which packets go and come through it.
    #[pyo3(signature = (server, *, local=None, stream=false))]
    fn add_relay(&self, server: HostPort, local: Option<&str>, stream: bool) -> PyResult<String> {
        let server = parse(&server)?;
        let local = local.map(host_ip).transpose()?;
        let mut state = self.driver.lock();
        let host = state.engine.routes.add(server, local, stream);
        Ok(host.to_string())
    }

    fn remove_relay(&self, host: &str) -> PyResult<()> {
        let host = host_ip(host)?;
        self.driver.lock().engine.routes.remove(host);
        Ok(())
    }

    /// Exchange packets with `peer` in ChannelData of this number.
    fn bind_channel(&self, host: &str, peer: HostPort, channel: u16) -> PyResult<()> {
        let (host, peer) = (host_ip(host)?, parse(&peer)?);
        let mut state = self.driver.lock();
        let bound = state.engine.routes.bind(host, peer, channel);
        bound.map_err(route_error)
    }

    fn unbind_channel(&self, host: &str, peer: HostPort) -> PyResult<()> {
        let (host, peer) = (host_ip(host)?, parse(&peer)?);
        self.driver.lock().engine.routes.unbind(host, peer);
        Ok(())
    }

    /// Take in what `peer` sent through a relay other than in ChannelData; in memory, at the time `now`.
    #[pyo3(signature = (host, peer, data, now=None))]
    fn receive_relayed(
        &self,
        host: &str,
        peer: HostPort,
        data: &Bound<'_, PyAny>,
        now: Option<f64>,
    ) -> PyResult<()> {
        let (host, peer) = (host_ip(host)?, parse(&peer)?);
        let data = Buffer::readable(data)?;
        let mut state = self.at(now)?;
        state.receive_relayed(host, peer, data.bytes());
        Ok(())
    }

    /// Take in bytes of the stream from a relay's server; in memory, at the time `now`.
    #[pyo3(signature = (host, data, now=None))]
    fn receive_stream(
        &self,
        host: &str,
        data: &Bound<'_, PyAny>,
        now: Option<f64>,
    ) -> PyResult<()> {
        let host = host_ip(host)?;
        let data = Buffer::readable(data)?;
        self.at(now)?.read_stream(host, data.bytes());
        Ok(())
    }

    /// Drop what QUIC sends over a relay's stream, or no longer.
    fn set_relay_congested(&self, host: &str, congested: bool) -> PyResult<()> {
        let host = host_ip(host)?;
        let mut state = self.driver.lock();
        let set = state.engine.routes.set_congested(host, congested);
        set.map_err(route_error)
    }

    /// Datagrams dropped at relays so far: (received, without a channel, congested).
    fn relay_drops(&self) -> (u64, u64, u64) {
        let drops = self.driver.lock().engine.routes.drops;
        (drops.received, drops.unbound, drops.congested)
    }

    /// In memory: take in a datagram that came to `destination`, at the time `now`.
    fn receive(
        &self,
        data: &Bound<'_, PyAny>,
        source: HostPort,
        destination: &str,
        now: f64,
    ) -> PyResult<()> {
        let source = parse(&source)?;
        let destination = host_ip(destination)?;
        let data = Buffer::readable(data)?;
        let mut state = self.at(Some(now))?;
        state.receive_one(data.bytes(), FourTuple::new(source, Some(destination)));
        Ok(())
    }

    /// In memory: the datagrams sent since the last call, as (data, source host or None, destination).
    fn transmits<'py>(
        &self,
        py: Python<'py>,
    ) -> Vec<(Bound<'py, PyBytes>, Option<String>, HostPort)> {
        self.driver
            .lock()
            .take_outgoing()
            .into_iter()
            .map(|(data, source, destination)| {
                let source = source.map(|ip| ip.to_string());
                (PyBytes::new(py, &data), source, text(destination))
            })
            .collect()
    }

    /// Datagrams dropped so far: (of no protocol of ours or too large, STUN beyond what was fetched in time).
    fn drops(&self) -> (u64, u64) {
        let drops = self.driver.lock().engine.drops;
        (drops.other, drops.overflow)
    }

    /// Close the sockets at once. Connections that are still open are abandoned.
    fn close(&self) {
        self.driver.shut();
    }
}

fn route_error(error: RouteError) -> PyErr {
    PyValueError::new_err(match error {
        RouteError::NoSuchRelay => "there is no such relay",
        RouteError::NotAChannel => "a channel number is from 0x4000 to 0x4FFF",
    })
}

/// As a float, rounded up where it can't be exact: a pump at the time that was asked for must find its timer due.
fn seconds_not_before(duration: Duration) -> f64 {
    let seconds = duration.as_secs_f64();
    match Duration::try_from_secs_f64(seconds) {
        Ok(rounded) if rounded < duration => seconds.next_up(),
        _ => seconds,
    }
}

impl PyEngine {
    /// The state, in memory at this time if one is given.
    fn at(&self, now: Option<f64>) -> PyResult<MutexGuard<'_, State>> {
        let time = now.map(|now| self.time(now)).transpose()?;
        let mut state = self.driver.lock();
        if let Some(time) = time {
            state.set_now(time);
        }
        Ok(state)
    }

    fn time(&self, now: f64) -> PyResult<Instant> {
        Duration::try_from_secs_f64(now)
            .ok()
            .and_then(|since| self.driver.epoch.checked_add(since))
            .ok_or_else(|| {
                PyValueError::new_err("the time must be a small positive number of seconds")
            })
    }
}

impl Drop for PyEngine {
    fn drop(&mut self) {
        self.driver.shut();
    }
}
