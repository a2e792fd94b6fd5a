//! The engine's settings, read from the attributes of any Python object (`quice.TransportConfig` is the one).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use noq_proto::{IdleTimeout, MtuDiscoveryConfig, QlogFileFactory, TransportConfig, VarInt};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::nat::MAX_ADDRESSES;
use crate::path::{MAX_PATHS, Timeouts};
use crate::tls::Credentials;
use crate::watch::MIN_IDLE_TIMEOUT;

/// The round-trip time assumed until it is measured. The first packet often dies at the peer's NAT, which opens
/// only once the peer sends; it is sent again after three times as long, which is a second with the 333 ms of
/// RFC 9002 §6.2.2. Most peers are nearer; one that is not gets the first packet twice.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// The largest payload of UDP that is tried: in IPv6 and a relay's ChannelData it is as large as a packet on Ethernet.
/// A path may move to where it needs both, after larger ones have passed without, and all of its packets would be lost.
const LARGEST_PAYLOAD: u16 = 1500 - 40 - 8 - 4;

#[derive(FromPyObject)]
pub struct Settings {
    idle_timeout: f64,
    keep_alive: Option<f64>,
    stream_window: u64,
    connection_window: u64,
    send_window: u64,
    max_streams: u32,
    datagram_buffer: usize,
    qlog_dir: Option<PathBuf>,
    path_idle_timeout: f64,
    path_keep_alive: f64,
    nat_traversal: bool,
}

impl Settings {
    pub fn receive_window(&self) -> u64 {
        self.connection_window
    }

    pub fn timeouts(&self) -> PyResult<Timeouts> {
        let of_paths = |name, value| {
            seconds(name, value)
                .ok()
                .filter(|time| *time >= MIN_IDLE_TIMEOUT)
                .ok_or_else(|| wrong(name))
        };
        Ok(Timeouts {
            idle: seconds("idle_timeout", self.idle_timeout)?,
            path_idle: of_paths("path_idle_timeout", self.path_idle_timeout)?,
            path_keep_alive: of_paths("path_keep_alive", self.path_keep_alive)?,
        })
    }

    /// `reserved_streams`: bidirectional streams that the peer may open beside `max_streams`.
    pub fn transport(&self, reserved_streams: u32) -> PyResult<TransportConfig> {
        let mut transport = TransportConfig::default();
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(LARGEST_PAYLOAD);
        let idle = IdleTimeout::try_from(seconds("idle_timeout", self.idle_timeout)?)
            .map_err(|_| wrong("idle_timeout"))?;
        let keep_alive = self
            .keep_alive
            .map(|interval| seconds("keep_alive", interval))
            .transpose()?;
        transport
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(keep_alive)
            .initial_rtt(INITIAL_RTT)
            .mtu_discovery_config(Some(discovery))
            .max_concurrent_multipath_paths(MAX_PATHS)
            .stream_receive_window(window("stream_window", self.stream_window)?)
            .receive_window(window("connection_window", self.connection_window)?)
            .send_window(self.send_window)
            .max_concurrent_bidi_streams(self.max_streams.saturating_add(reserved_streams).into())
            .max_concurrent_uni_streams(self.max_streams.into())
            .datagram_receive_buffer_size(
                (self.datagram_buffer > 0).then_some(self.datagram_buffer),
            )
            .datagram_send_buffer_size(self.datagram_buffer);
        if self.nat_traversal {
            transport.max_remote_nat_traversal_addresses(MAX_ADDRESSES);
        }
        if let Some(folder) = &self.qlog_dir {
            transport.qlog_factory(Arc::new(QlogFileFactory::new(folder.clone())));
        }
        Ok(transport)
    }
}

fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| wrong(name))
}

fn window(name: &str, value: u64) -> PyResult<VarInt> {
    VarInt::from_u64(value).map_err(|_| wrong(name))
}

fn wrong(name: &str) -> PyErr {
    PyValueError::new_err(format!("{name} is out of range"))
}

/// Who an endpoint is: an Ed25519 seed, or X.509 certificates for peers that know nothing of raw keys.
#[pyclass(frozen, name = "Credentials", module = "quice._native")]
pub struct PyCredentials(Arc<Credentials>);

#[pymethods]
impl PyCredentials {
    #[staticmethod]
    fn raw_key(seed: [u8; 32]) -> Self {
        Self(Arc::new(Credentials::RawKey(seed)))
    }

    #[staticmethod]
    fn x509(chain: Vec<Vec<u8>>, key: Vec<u8>, roots: Vec<Vec<u8>>) -> Self {
        Self(Arc::new(Credentials::X509 { chain, key, roots }))
    }
}

impl PyCredentials {
    pub fn get(&self) -> Arc<Credentials> {
        self.0.clone()
    }
}
