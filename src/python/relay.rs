//! `quice._native.Relay`: the data path of a TURN server.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::address::{HostPort, host_ip, parse, text};
use super::buffer::Buffer;
use super::error::os_error;
use crate::relay::counts::Counts;
use crate::relay::forwarder::start;
use crate::relay::shared::{Command, FiveTuple, News, Shared};
use crate::relay::switch::Network;
use crate::udp::Socket;

/// Connections that the system may hold for us until we accept them.
const BACKLOG: i32 = 256;

/// (client, server, whether over TCP).
type PyFiveTuple = (HostPort, HostPort, bool);

#[pyclass(frozen, name = "Relay", module = "quice._native")]
pub struct PyRelay {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[pymethods]
impl PyRelay {
    #[new]
    fn new(rate: Option<f64>, allowed: Vec<(String, u8)>) -> PyResult<Self> {
        if rate.is_some_and(|rate| rate.is_nan() || rate <= 0.0) {
            return Err(PyValueError::new_err(
                "the rate is a number of bytes a second",
            ));
        }
        let allowed = allowed
            .iter()
            .map(|(host, prefix)| {
                let address = host_ip(host)?;
                let prefix = *prefix;
                Ok(Network { address, prefix })
            })
            .collect::<PyResult<Vec<_>>>()?;
        let (shared, thread) = start(rate, allowed)?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The descriptor that becomes readable when `take` has something.
    #[getter]
    fn news_fd(&self) -> i32 {
        self.shared.bell.fd()
    }

    fn listen(&self, host: String, port: u16, tcp: bool) -> PyResult<HostPort> {
        let local = parse(&(host, port))?;
        let (command, bound) = if tcp {
            let listener = listen(local).map_err(os_error)?;
            let bound = listener.local_addr()?;
            (Command::Accept(listener), bound)
        } else {
            let socket = Socket::bind(local).map_err(os_error)?;
            let bound = socket.local;
            (Command::Listen(socket), bound)
        };
        self.shared.command(command);
        Ok(text(bound))
    }

    /// Name addresses and ports of the server itself, which no client is to reach through it.
    fn protect(&self, hosts: Vec<String>, ports: Vec<u16>) -> PyResult<()> {
        let hosts = hosts.iter().map(|host| host_ip(host));
        self.shared
            .command(Command::Own(hosts.collect::<PyResult<_>>()?));
        self.shared.command(Command::Close(ports));
        Ok(())
    }

    fn open(&self, allocation: u64, client: PyFiveTuple, owner: String) -> PyResult<()> {
        self.shared.command(Command::Open {
            allocation,
            client: five_tuple(&client)?,
            owner,
        });
        Ok(())
    }

    /// Bind a relayed address, which its peers see as `public`; returns it as they do.
    fn relay(
        &self,
        allocation: u64,
        host: String,
        port: u16,
        public: String,
    ) -> PyResult<HostPort> {
        let local = parse(&(host, port))?;
        let public = host_ip(&public)?;
        if public.is_ipv4() != local.is_ipv4() {
            return Err(PyValueError::new_err("addresses of two families"));
        }
        let socket = Socket::bind(local).map_err(os_error)?;
        let public = SocketAddr::new(public, socket.local.port());
        self.shared.command(Command::Relay {
            allocation,
            socket,
            public,
        });
        Ok(text(public))
    }

    fn unrelay(&self, allocation: u64, ipv6: bool) {
        self.shared.command(Command::Unrelay(allocation, ipv6));
    }

    fn delete(&self, allocation: u64) {
        self.shared.command(Command::Delete(allocation));
    }

    fn permit(&self, allocation: u64, host: &str) -> PyResult<()> {
        self.shared
            .command(Command::Permit(allocation, host_ip(host)?));
        Ok(())
    }

    fn forbid(&self, allocation: u64, host: &str) -> PyResult<()> {
        self.shared
            .command(Command::Forbid(allocation, host_ip(host)?));
        Ok(())
    }

    fn bind_channel(&self, allocation: u64, number: u16, peer: HostPort) -> PyResult<()> {
        self.shared
            .command(Command::Bind(allocation, number, parse(&peer)?));
        Ok(())
    }

    fn unbind_channel(&self, allocation: u64, number: u16) {
        self.shared.command(Command::Unbind(allocation, number));
    }

    /// Answer a client.
    fn send(&self, data: &Bound<'_, PyAny>, client: PyFiveTuple) -> PyResult<()> {
        let client = five_tuple(&client)?;
        let data = Buffer::readable(data)?;
        self.shared
            .command(Command::Send(client, data.bytes().to_vec()));
        Ok(())
    }

    /// What came since the last call: requests, and `None` for a connection that is gone with its allocation. What the
    /// call before gave has been dealt with.
    fn take<'py>(&self, py: Python<'py>) -> Vec<(Option<Bound<'py, PyBytes>>, PyFiveTuple)> {
        let news = self.shared.take_news();
        news.into_iter()
            .map(|News { client, request }| {
                let request = request.map(|data| PyBytes::new(py, &data));
                let tuple = (text(client.client), text(client.server), client.tcp);
                (request, tuple)
            })
            .collect()
    }

    /// Packets and bytes of data carried to peers and to clients, and packets dropped by reason.
    #[allow(clippy::type_complexity, reason = "it is a plain tuple in Python")]
    fn counts(&self) -> ((u64, u64), (u64, u64), HashMap<&'static str, u64>) {
        let counts = self.shared.counts();
        let drops = Counts::REASONS.map(|(name, reason)| (name, counts.dropped(reason)));
        (counts.to_peers, counts.to_clients, drops.into())
    }

    /// Free all ports.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.stop());
    }
}

impl PyRelay {
    fn stop(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            self.shared.command(Command::Stop);
            // It fails if the thread panicked, which has been reported.
            let _ = thread.join();
        }
    }
}

impl Drop for PyRelay {
    fn drop(&mut self) {
        self.stop();
    }
}

fn five_tuple((client, server, tcp): &PyFiveTuple) -> PyResult<FiveTuple> {
    Ok(FiveTuple {
        client: parse(client)?,
        server: parse(server)?,
        tcp: *tcp,
    })
}

/// A listening TCP socket; on an IPv6 address it takes IPv6 alone.
fn listen(local: SocketAddr) -> std::io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(local);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A server that is started again finds its port, though connections of before are not forgotten yet.
    socket.set_reuse_address(true)?;
    socket.bind(&local.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
