//! `quice._native.Connection`: a handle to one connection of an engine. It owns nothing: dropping it closes
//! nothing, and using it after the connection is gone says so.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use noq_proto::{Dir, PathId, PathStatus, SendDatagramError, StreamId, VarInt, WriteError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use pyo3::{create_exception, exceptions::PyException};

use super::address::{HostPort, host_ip, local_text, parse, text};
use super::buffer::Buffer;
use crate::connection::{Connection, Read};
use crate::driver::{Driver, State};
use crate::route::is_synthetic;

create_exception!(
    quice._native,
    StreamReset,
    PyException,
    "The peer reset the stream: (code,)."
);
create_exception!(
    quice._native,
    StreamStopped,
    PyException,
    "The peer reads no more: (code,)."
);
create_exception!(
    quice._native,
    StreamClosed,
    PyException,
    "This half of the stream is over."
);
create_exception!(
    quice._native,
    ConnectionGone,
    PyException,
    "The connection is no more."
);
create_exception!(
    quice._native,
    DatagramRefused,
    PyException,
    "Too large, or not supported."
);

create_exception!(
    quice._native,
    RaceWon,
    PyException,
    "Another attempt of the race is a connection already."
);

create_exception!(
    quice._native,
    PathRefused,
    PyException,
    "What was asked of a path can't be."
);

create_exception!(
    quice._native,
    NatTraversalRefused,
    PyException,
    "What was asked of NAT traversal can't be."
);

#[pyclass(frozen, name = "Connection", module = "quice._native")]
pub struct PyConnection {
    driver: Arc<Driver>,
    id: u64,
}

impl PyConnection {
    pub fn new(driver: Arc<Driver>, id: u64) -> Self {
        Self { driver, id }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Connection) -> PyResult<T>) -> PyResult<T> {
        self.with_state(|state| act(found(state, self.id)?))
    }

    /// As `with`, for what has no effect any more once the connection is closed, and nothing to wait for.
    fn with_open<T>(&self, act: impl FnOnce(&mut Connection) -> PyResult<T>) -> PyResult<T> {
        self.with(|connection| {
            if connection.quic.is_closed() {
                return Err(gone());
            }
            act(connection)
        })
    }

    fn with_state<T>(&self, act: impl FnOnce(&mut State) -> PyResult<T>) -> PyResult<T> {
        act(&mut self.driver.lock())
    }
}

fn found(state: &mut State, id: u64) -> PyResult<&mut Connection> {
    state.engine.connection(id).ok_or_else(gone)
}

fn gone() -> PyErr {
    ConnectionGone::new_err("this connection is no more")
}

fn stream(id: u64) -> PyResult<StreamId> {
    // Every value below 2^62 names a stream (RFC 9000 §2.1); one that was never opened is closed.
    VarInt::from_u64(id)
        .map(StreamId::from)
        .map_err(|_| PyValueError::new_err("not a stream id"))
}

fn code(value: u64) -> PyResult<VarInt> {
    VarInt::from_u64(value).map_err(|_| PyValueError::new_err("a code must be below 2**62"))
}

fn closed<E>(_: E) -> PyErr {
    StreamClosed::new_err("this half of the stream is over")
}

fn write_error(error: WriteError) -> PyErr {
    match error {
        WriteError::Stopped(code) => StreamStopped::new_err(u64::from(code)),
        WriteError::Blocked | WriteError::ClosedStream => closed(error),
    }
}

#[pymethods]
impl PyConnection {
    #[getter]
    fn id(&self) -> u64 {
        self.id
    }

    /// Open a stream, or `None` while the peer allows no more.
    #[pyo3(signature = (*, unidirectional))]
    fn open(&self, unidirectional: bool) -> PyResult<Option<u64>> {
        let dir = if unidirectional { Dir::Uni } else { Dir::Bi };
        self.with_open(|connection| Ok(connection.open(dir).map(u64::from)))
    }

    /// Up to `limit` bytes; b"" at the end; `None` for nothing yet, and an `Event.Readable` will follow.
    fn read<'py>(
        &self,
        py: Python<'py>,
        stream_id: u64,
        limit: usize,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let id = stream(stream_id)?;
        self.with(|connection| {
            let count = connection.available(id, limit);
            if count == 0 {
                return match read_into(connection, id, &mut [])? {
                    Some(_) => Ok(Some(PyBytes::new(py, b""))),
                    None => Ok(None),
                };
            }
            let bytes = PyBytes::new_with(py, count, |out| {
                connection.read(id, out);
                Ok(())
            })?;
            Ok(Some(bytes))
        })
    }

    /// Fill `buffer` as far as there is data; 0 at the end; `None` as for `read`.
    fn readinto(&self, stream_id: u64, buffer: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let id = stream(stream_id)?;
        let mut buffer = Buffer::writable(buffer)?;
        self.with(|connection| read_into(connection, id, buffer.bytes_mut()))
    }

    /// How many bytes of `buffer`, from `offset` on, were taken. Fewer than there are: an `Event.Writable`
    /// will follow.
    fn write(&self, stream_id: u64, buffer: &Bound<'_, PyAny>, offset: usize) -> PyResult<usize> {
        let id = stream(stream_id)?;
        let buffer = Buffer::readable(buffer)?;
        let data = buffer.bytes().get(offset..).unwrap_or_default();
        self.with_open(|connection| connection.write(id, data).map_err(write_error))
    }

    fn finish(&self, stream_id: u64) -> PyResult<()> {
        let id = stream(stream_id)?;
        self.with_open(|connection| {
            connection.finish(id).map_err(|error| match error {
                noq_proto::FinishError::Stopped(code) => StreamStopped::new_err(u64::from(code)),
                noq_proto::FinishError::ClosedStream => closed(error),
            })
        })
    }

    fn reset(&self, stream_id: u64, error_code: u64) -> PyResult<()> {
        let (id, error_code) = (stream(stream_id)?, code(error_code)?);
        self.with_open(|connection| connection.reset(id, error_code).map_err(closed))
    }

    fn stop(&self, stream_id: u64, error_code: u64) -> PyResult<()> {
        let (id, error_code) = (stream(stream_id)?, code(error_code)?);
        self.with_open(|connection| connection.stop(id, error_code).map_err(closed))
    }

    /// Give up a stream that nobody can use any more. Returns whether there is something to tell the peer.
    fn release(&self, stream_id: u64) -> PyResult<bool> {
        let id = stream(stream_id)?;
        Ok(self.driver.lock().engine.release(self.id, id))
    }

    fn priority(&self, stream_id: u64) -> PyResult<i32> {
        let id = stream(stream_id)?;
        self.with_open(|connection| connection.priority(id).map_err(closed))
    }

    fn set_priority(&self, stream_id: u64, priority: i32) -> PyResult<()> {
        let id = stream(stream_id)?;
        self.with_open(|connection| connection.set_priority(id, priority).map_err(closed))
    }

    /// Queue a datagram. False while the buffer is full: an `Event.DatagramsUnblocked` will follow.
    fn send_datagram(&self, data: &Bound<'_, PyAny>) -> PyResult<bool> {
        let data = Buffer::readable(data)?;
        self.with_open(|connection| match connection.send_datagram(data.bytes()) {
            Ok(()) => Ok(true),
            Err(SendDatagramError::Blocked(_)) => Ok(false),
            Err(error) => Err(DatagramRefused::new_err(error.to_string())),
        })
    }

    /// The next datagram, or `None` and an `Event.DatagramReceived` will follow.
    fn receive_datagram<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.with(|connection| {
            let datagram = connection.receive_datagram();
            if datagram.is_none() && connection.quic.is_closed() {
                return Err(gone());
            }
            Ok(datagram.map(|datagram| PyBytes::new(py, &datagram)))
        })
    }

    /// The largest datagram that fits now, or `None` if the peer takes none.
    fn max_datagram_size(&self) -> PyResult<Option<usize>> {
        self.with_open(|connection| Ok(connection.max_datagram_size()))
    }

    /// Say goodbye with an application code and reason.
    fn close(&self, error_code: u64, reason: Vec<u8>) -> PyResult<()> {
        let error_code = code(error_code)?;
        self.with_state(|state| {
            let now = state.now();
            found(state, self.id)?
                .quic
                .close(now, error_code, Bytes::from(reason));
            Ok(())
        })
    }

    /// Whether both sides speak multipath; known once the connection is established.
    fn multipath(&self) -> PyResult<bool> {
        self.with(|connection| Ok(connection.quic.is_multipath_negotiated()))
    }

    /// Open a path, which is validated before it carries data. `None` while the peer allows no more.
    #[pyo3(signature = (remote, local=None, *, backup))]
    fn open_path(
        &self,
        remote: HostPort,
        local: Option<&str>,
        backup: bool,
    ) -> PyResult<Option<u32>> {
        let remote = parse(&remote)?;
        let local = local.map(host_ip).transpose()?;
        if remote.port() == 0 || remote.ip().is_unspecified() {
            return Err(PyValueError::new_err("a path needs an address to go to"));
        }
        let is_of_other_family =
            |local: IpAddr| local.is_ipv4() != remote.is_ipv4() && !is_synthetic(local);
        if local.is_some_and(is_of_other_family) {
            return Err(PyValueError::new_err("a path is IPv4 or IPv6, not both"));
        }
        self.with_state(|state| {
            let now = state.now();
            let path = found(state, self.id)?
                .open_path(now, remote, local, status(backup))
                .map_err(|error| PathRefused::new_err(error.to_string()))?;
            if let (Some(_), Some(local)) = (path, local) {
                state.engine.vacate(self.id, (remote, local));
            }
            Ok(path.map(path_number))
        })
    }

    /// The path that the engine takes for the one between these ends, and that is elsewhere.
    fn moved_from(&self, remote: HostPort, local: &str) -> PyResult<Option<u32>> {
        let ends = (parse(&remote)?, host_ip(local)?);
        self.with(|connection| Ok(connection.moved_from(ends).map(path_number)))
    }

    /// Let a path go on between other ends, and close all others.
    fn move_path(&self, path: u32, remote: HostPort, local: &str) -> PyResult<()> {
        let actual = (parse(&remote)?, host_ip(local)?);
        self.with_state(|state| {
            let now = state.now();
            found(state, self.id)?;
            if state.engine.move_path(now, self.id, path.into(), actual) {
                Ok(())
            } else {
                Err(PathRefused::new_err("there is no such path"))
            }
        })
    }

    /// For how many seconds something has waited for an answer while none has come.
    fn silence(&self) -> PyResult<f64> {
        self.with_state(|state| {
            let now = state.now();
            Ok(found(state, self.id)?.silence(now).as_secs_f64())
        })
    }

    /// As the server: let the client go on between these ends, where its paths' ends here are gone.
    fn relocate(&self, remote: HostPort, local: &str) -> PyResult<()> {
        let actual = (parse(&remote)?, host_ip(local)?);
        self.with_state(|state| {
            let now = state.now();
            found(state, self.id)?;
            state.engine.relocate(now, self.id, actual);
            Ok(())
        })
    }

    /// In a silence: ask for an answer on every path, whatever else was lost.
    fn nudge(&self) -> PyResult<()> {
        self.with_state(|state| {
            let now = state.now();
            found(state, self.id)?.nudge(now);
            Ok(())
        })
    }

    /// Prefer other paths to this one, or not.
    #[pyo3(signature = (path, *, backup))]
    fn set_path_status(&self, path: u32, backup: bool) -> PyResult<()> {
        self.with(|connection| {
            connection
                .set_path_status(path.into(), status(backup))
                .map_err(|error| PathRefused::new_err(error.to_string()))
        })
    }

    /// Give up a path that is not the last one.
    fn close_path(&self, path: u32) -> PyResult<()> {
        self.with_state(|state| {
            let now = state.now();
            found(state, self.id)?
                .close_path(now, path.into())
                .map_err(|error| PathRefused::new_err(error.to_string()))
        })
    }

    /// Have the peer acknowledge something on this path.
    fn ping_path(&self, path: u32) -> PyResult<()> {
        self.with(|connection| {
            if connection.ping_path(path.into()) {
                Ok(())
            } else {
                Err(PathRefused::new_err("closed path"))
            }
        })
    }

    /// Name one of our addresses to the peer, for NAT traversal.
    fn add_nat_traversal_address(&self, address: HostPort) -> PyResult<()> {
        let address = parse(&address)?;
        if is_synthetic(address.ip()) {
            return Err(NatTraversalRefused::new_err(
                "a relay's host is no address that a peer can reach",
            ));
        }
        self.with(|connection| {
            connection
                .add_nat_traversal_address(address)
                .map_err(|error| NatTraversalRefused::new_err(error.to_string()))
        })
    }

    /// Take an address back.
    fn remove_nat_traversal_address(&self, address: HostPort) -> PyResult<()> {
        let address = parse(&address)?;
        self.with(|connection| {
            connection
                .remove_nat_traversal_address(address)
                .map_err(|error| NatTraversalRefused::new_err(error.to_string()))
        })
    }

    /// Have both sides probe each other's addresses; returns those of the peer that are probed.
    fn initiate_nat_traversal_round(&self) -> PyResult<Vec<HostPort>> {
        self.with_state(|state| {
            let now = state.now();
            let probed = found(state, self.id)?
                .initiate_nat_traversal_round(now)
                .map_err(|error| NatTraversalRefused::new_err(error.to_string()))?;
            Ok(probed.into_iter().map(text).collect())
        })
    }

    /// Each path with its addresses, round-trip time (seconds), MTU and counts.
    fn paths<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.with_state(|state| {
            let mut paths = Vec::new();
            for path in found(state, self.id)?.open_paths() {
                let connection = found(state, self.id)?;
                let Ok(tuple) = connection.quic.network_path(path) else {
                    continue;
                };
                let Some(stats) = connection.quic.path_stats(path) else {
                    continue;
                };
                let remote = tuple.remote();
                let local_ip = tuple.local_ip().or_else(|| connection.first_local(remote));
                let (remote, local_ip) = connection.seen(remote, local_ip);
                let is_backup = connection.quic.path_status(path) == Ok(PathStatus::Backup);
                let is_validated = connection.is_path_validated(path);
                let rtt = connection.round_trip(path);
                let port = state.local_port(local_ip, remote);
                let local: Option<HostPort> = local_ip.map(|ip| local_text(ip, port, remote));
                let dict = PyDict::new(py);
                dict.set_item("id", path_number(path))?;
                dict.set_item("status", if is_backup { "backup" } else { "available" })?;
                dict.set_item("validated", is_validated)?;
                dict.set_item("local", local)?;
                dict.set_item("remote", text(remote))?;
                dict.set_item("rtt", rtt.as_secs_f64())?;
                dict.set_item("mtu", stats.current_mtu)?;
                dict.set_item("congestion_window", stats.cwnd)?;
                dict.set_item("sent_packets", stats.sent_packets)?;
                dict.set_item("lost_packets", stats.lost_packets)?;
                dict.set_item("sent_bytes", stats.udp_tx.bytes)?;
                dict.set_item("received_bytes", stats.udp_rx.bytes)?;
                paths.push(dict);
            }
            Ok(paths)
        })
    }

    /// Counts over the connection's life.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.with(|connection| {
            let stats = connection.quic.stats();
            let dict = PyDict::new(py);
            dict.set_item("refused_probes", connection.probes.refused)?;
            dict.set_item("sent_datagrams", stats.udp_tx.datagrams)?;
            dict.set_item("sent_bytes", stats.udp_tx.bytes)?;
            dict.set_item("received_datagrams", stats.udp_rx.datagrams)?;
            dict.set_item("received_bytes", stats.udp_rx.bytes)?;
            dict.set_item("sent_packets", stats.sent_packets)?;
            dict.set_item("lost_packets", stats.lost_packets)?;
            dict.set_item("lost_bytes", stats.lost_bytes)?;
            dict.set_item(
                "acks_received",
                stats.frame_rx.acks + stats.frame_rx.path_acks,
            )?;
            Ok(dict)
        })
    }
}

fn status(backup: bool) -> PathStatus {
    if backup {
        PathStatus::Backup
    } else {
        PathStatus::Available
    }
}

/// A path's id, of which noq shows nothing but the digits.
pub fn path_number(path: PathId) -> u32 {
    path.to_string().parse().unwrap_or(u32::MAX)
}

fn read_into(connection: &mut Connection, id: StreamId, out: &mut [u8]) -> PyResult<Option<usize>> {
    match connection.read(id, out) {
        Read::Bytes(count) => Ok(Some(count)),
        Read::Finished => Ok(Some(0)),
        Read::Blocked if connection.quic.is_closed() => Err(gone()),
        Read::Blocked => Ok(None),
        Read::Reset(code) => Err(StreamReset::new_err(u64::from(code))),
        Read::Closed => Err(closed(())),
    }
}
