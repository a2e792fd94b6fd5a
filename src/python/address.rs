//! Addresses as Python has them: `(host, port)`, with the zone in the host for IPv6 link-local (RFC 4007 §11).

use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

pub type HostPort = (String, u16);

pub fn parse((host, port): &HostPort) -> PyResult<SocketAddr> {
    let wrong = || PyValueError::new_err(format!("not an IP address: {host:?}"));
    let (ip, zone) = host
        .split_once('%')
        .map_or((host.as_str(), None), |(ip, zone)| (ip, Some(zone)));
    let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
    match (ip, zone) {
        (ip, None) => Ok(SocketAddr::new(ip, *port)),
        (IpAddr::V6(ip), Some(zone)) => {
            let scope = zone_index(zone).ok_or_else(wrong)?;
            Ok(SocketAddrV6::new(ip, *port, 0, scope).into())
        }
        (IpAddr::V4(_), Some(_)) => Err(wrong()),
    }
}

pub fn host_ip(host: &str) -> PyResult<IpAddr> {
    parse(&(host.to_owned(), 0)).map(|address| address.ip())
}

pub fn text(address: SocketAddr) -> HostPort {
    let host = match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => with_zone(*v6.ip(), v6.scope_id()),
        other => other.ip().to_string(),
    };
    (host, address.port())
}

/// A local address, whose zone can only be the one its remote counterpart came through.
pub fn local_text(local: IpAddr, port: u16, remote: SocketAddr) -> HostPort {
    match (local, remote) {
        (IpAddr::V6(ip), SocketAddr::V6(remote)) if ip.is_unicast_link_local() => {
            (with_zone(ip, remote.scope_id()), port)
        }
        (ip, _) => (ip.to_string(), port),
    }
}

fn zone_index(zone: &str) -> Option<u32> {
    let name = CString::new(zone).ok()?;
    // SAFETY: `name` is a valid C string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => zone.parse().ok(),
        index => Some(index),
    }
}

fn with_zone(ip: Ipv6Addr, index: u32) -> String {
    let mut name = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: `name` has the IF_NAMESIZE bytes that the call may write.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return format!("{ip}%{index}");
    }
    // SAFETY: the call succeeded, so `name` holds a C string.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    format!("{ip}%{}", name.to_string_lossy())
}
