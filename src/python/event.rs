//! What happened, as Python sees it.

use std::net::IpAddr;

use noq_proto::{ConnectionError, Dir, PathStatus};
use pyo3::prelude::*;

use super::address::{HostPort, local_text, text};
use super::connection::path_number;
use crate::connection;
use crate::engine::{Engine, Packet};
use crate::path;

/// Why a connection was lost.
#[pyclass(frozen, eq, eq_int, hash, from_py_object, module = "quice._native")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The peer's application closed it, with its code and reason.
    ClosedByApplication,
    /// The peer's QUIC closed it, with a transport error code.
    ClosedByPeer,
    /// This side's QUIC closed it, with a transport error code.
    Failed,
    /// Nothing was heard for the idle timeout.
    TimedOut,
    /// The peer does not know the connection any more (RFC 9000 §10.3).
    Reset,
    /// The peer has no QUIC version of ours.
    NoCommonVersion,
    /// Another attempt of the same race was faster.
    Outraced,
}

/// Why a path was given up.
#[pyclass(frozen, eq, eq_int, hash, from_py_object, module = "quice._native")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathLoss {
    /// By a call of `close_path`.
    Closed,
    ClosedByPeer,
    /// One side heard nothing on it for too long, while there was another that worked.
    TimedOut,
    /// The addresses it was between are gone.
    NetworkChanged,
}

impl From<path::PathLoss> for PathLoss {
    fn from(loss: path::PathLoss) -> Self {
        match loss {
            path::PathLoss::Closed => Self::Closed,
            path::PathLoss::ClosedByPeer => Self::ClosedByPeer,
            path::PathLoss::TimedOut => Self::TimedOut,
            path::PathLoss::NetworkChanged => Self::NetworkChanged,
        }
    }
}

#[pyclass(frozen, module = "quice._native")]
pub enum Event {
    Connected {
        connection: u64,
        accepted: bool,
        initial_id: Option<Vec<u8>>,
        peer: Option<Vec<u8>>,
        alpn: Vec<u8>,
    },
    Lost {
        connection: u64,
        loss: Loss,
        code: u64,
        reason: String,
    },
    Opened {
        connection: u64,
        stream: u64,
    },
    Readable {
        connection: u64,
        stream: u64,
    },
    Writable {
        connection: u64,
        stream: u64,
    },
    Stopped {
        connection: u64,
        stream: u64,
        code: u64,
    },
    StreamsAvailable {
        connection: u64,
        unidirectional: bool,
    },
    DatagramReceived {
        connection: u64,
    },
    DatagramsUnblocked {
        connection: u64,
    },
    PathOpened {
        connection: u64,
        path: u32,
        remote: HostPort,
    },
    PathLost {
        connection: u64,
        path: u32,
        reason: PathLoss,
    },
    PathStatus {
        connection: u64,
        path: u32,
        backup: bool,
    },
    AddressAdded {
        connection: u64,
        address: HostPort,
    },
    AddressRemoved {
        connection: u64,
        address: HostPort,
    },
    Drained {
        connection: u64,
    },
    Packet {
        data: Vec<u8>,
        source: HostPort,
        destination: HostPort,
    },
    RelayOutput {
        host: String,
        data: Vec<u8>,
    },
}

impl Event {
    pub fn relay_output(host: IpAddr, data: Vec<u8>) -> Self {
        Self::RelayOutput {
            host: host.to_string(),
            data,
        }
    }

    pub fn new(engine: &mut Engine, id: u64, event: connection::Event) -> Self {
        use connection::Event as E;
        match event {
            E::Connected => {
                let found = engine.connection(id);
                let (initial_id, peer, alpn) = found.map_or((None, None, None), |connection| {
                    (connection.initial_id, connection.peer(), connection.alpn())
                });
                Self::Connected {
                    connection: id,
                    accepted: initial_id.is_some(),
                    initial_id: initial_id.map(|id| id.to_vec()),
                    peer: peer.map(Vec::from),
                    alpn: alpn.unwrap_or_default(),
                }
            }
            E::Lost(error) => lost(id, error),
            E::Outraced => Self::Lost {
                connection: id,
                loss: Loss::Outraced,
                code: 0,
                reason: String::new(),
            },
            E::Opened(stream) => Self::Opened {
                connection: id,
                stream: stream.into(),
            },
            E::Readable(stream) => Self::Readable {
                connection: id,
                stream: stream.into(),
            },
            E::Writable(stream) => Self::Writable {
                connection: id,
                stream: stream.into(),
            },
            E::Stopped(stream, code) => Self::Stopped {
                connection: id,
                stream: stream.into(),
                code: code.into(),
            },
            E::StreamsAvailable(dir) => Self::StreamsAvailable {
                connection: id,
                unidirectional: dir == Dir::Uni,
            },
            E::DatagramReceived => Self::DatagramReceived { connection: id },
            E::DatagramsUnblocked => Self::DatagramsUnblocked { connection: id },
            E::PathOpened(path, remote) => Self::PathOpened {
                connection: id,
                path: path_number(path),
                remote: text(remote),
            },
            E::PathLost(path, reason) => Self::PathLost {
                connection: id,
                path: path_number(path),
                reason: reason.into(),
            },
            E::PathStatus(path, status) => Self::PathStatus {
                connection: id,
                path: path_number(path),
                backup: status == PathStatus::Backup,
            },
            E::AddressAdded(address) => Self::AddressAdded {
                connection: id,
                address: text(address),
            },
            E::AddressRemoved(address) => Self::AddressRemoved {
                connection: id,
                address: text(address),
            },
            E::Drained => Self::Drained { connection: id },
        }
    }

    /// `port`: the local port of the socket it came through.
    pub fn packet(packet: &Packet, port: u16) -> Self {
        let remote = packet.path.remote();
        let unknown = || if remote.is_ipv4() { "0.0.0.0" } else { "::" }.to_owned();
        let destination = packet.path.local_ip().map_or_else(
            || (unknown(), port),
            |local| local_text(local, port, remote),
        );
        Self::Packet {
            data: packet.data.to_vec(),
            source: text(remote),
            destination,
        }
    }
}

fn lost(connection: u64, error: ConnectionError) -> Event {
    let (loss, code, reason) = match error {
        ConnectionError::ApplicationClosed(close) => (
            Loss::ClosedByApplication,
            close.error_code.into(),
            String::from_utf8_lossy(&close.reason).into_owned(),
        ),
        ConnectionError::ConnectionClosed(close) => (
            Loss::ClosedByPeer,
            close.error_code.into(),
            close.to_string(),
        ),
        ConnectionError::TransportError(error) => {
            (Loss::Failed, error.code.into(), error.to_string())
        }
        ConnectionError::TimedOut => (Loss::TimedOut, 0, String::new()),
        ConnectionError::Reset => (Loss::Reset, 0, String::new()),
        ConnectionError::VersionMismatch => (Loss::NoCommonVersion, 0, String::new()),
        ConnectionError::LocallyClosed => (Loss::Failed, 0, "closed".to_owned()),
        ConnectionError::CidsExhausted => (Loss::Failed, 0, "no connection ids left".to_owned()),
    };
    Event::Lost {
        connection,
        loss,
        code,
        reason,
    }
}
