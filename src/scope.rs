//! Where a peer may have us send probes. It names addresses in NAT traversal; some of them lead to what is ours, or
//! our host's, and nobody else's, and a packet from us may do something there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use noq_proto::FourTuple;

use crate::route::is_synthetic;

/// Where a cloud's virtual machines ask for their secrets: AWS and many more, Alibaba, Oracle, Azure's host.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
/// Likewise: AWS, Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254),
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254),
];

/// The address to send a probe to when the peer has named `wanted`, or `None` if none may be sent. `paths`: those of
/// the connection, which show what it may reach on links of its own. `ours`: the addresses that we have named.
pub fn probe_destination(
    wanted: SocketAddr,
    paths: &[FourTuple],
    ours: &[SocketAddr],
) -> Option<SocketAddr> {
    let allowed = wanted.port() != 0
        && match wanted.ip() {
            IpAddr::V4(ip) => is_probed_v4(ip, paths, ours),
            IpAddr::V6(ip) => is_probed_v6(ip, paths, ours),
        };
    allowed.then(|| on_link_of(wanted, paths))
}

fn is_probed_v4(ip: Ipv4Addr, paths: &[FourTuple], ours: &[SocketAddr]) -> bool {
    if METADATA_V4.contains(&ip) || (is_private_v4(ip) && !shares_private(paths, ours, false)) {
        return false;
    }
    if ip.is_loopback() {
        return runs_over_loopback(paths);
    }
    if ip.is_link_local() {
        return remotes(paths).any(|remote| matches!(remote, IpAddr::V4(v4) if v4.is_link_local()));
    }
    // 0/8 is this host, 240/4 holds the broadcast address and what nobody uses (RFC 6890 §2.2.2).
    !(ip.octets()[0] == 0 || ip.is_multicast() || ip.octets()[0] >= 240)
}

fn is_probed_v6(ip: Ipv6Addr, paths: &[FourTuple], ours: &[SocketAddr]) -> bool {
    if METADATA_V6.contains(&ip) || is_synthetic(ip.into()) {
        return false;
    }
    if ip.is_unique_local() && !shares_private(paths, ours, true) {
        return false;
    }
    if ip.is_loopback() {
        return runs_over_loopback(paths);
    }
    if ip.is_unicast_link_local() {
        return link(paths).is_some();
    }
    if ip.is_unspecified() || ip.is_multicast() {
        return false;
    }
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match [a, b, c, d, e, f] {
        // Mapped and compatible addresses are another name for IPv4, which has sockets of its own.
        [0, 0, 0, 0, 0, _] => false,
        // RFC 6052 §2.1: what a NAT64 makes of it must be allowed too.
        [0x64, 0xff9b, 0, 0, 0, 0] => is_probed_v4(v4(g, h), &[], &[]),
        // RFC 3056 §2: likewise for 6to4.
        [0x2002, high, low, ..] => is_probed_v4(v4(high, low), &[], &[]),
        _ => true,
    }
}

/// RFC 1918 §3, and RFC 6598 §7: within carriers. Networks of these blocks are routed to each other, as by a VPN.
fn is_private_v4(ip: Ipv4Addr) -> bool {
    ip.is_private() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
}

/// Whether we may be in a private network with the peer: this side has such an address, or has reached one of the peer's.
fn shares_private(paths: &[FourTuple], ours: &[SocketAddr], v6: bool) -> bool {
    let locals = paths.iter().filter_map(FourTuple::local_ip);
    let own = ours.iter().map(SocketAddr::ip);
    let mut known = own.chain(locals).chain(remotes(paths));
    known.any(|ip| match ip {
        IpAddr::V4(ip) => !v6 && is_private_v4(ip),
        IpAddr::V6(ip) => v6 && ip.is_unique_local() && !is_synthetic(ip.into()),
    })
}

fn remotes(paths: &[FourTuple]) -> impl Iterator<Item = IpAddr> {
    paths.iter().map(|path| path.remote().ip())
}

fn runs_over_loopback(paths: &[FourTuple]) -> bool {
    remotes(paths).any(|remote| remote.is_loopback())
}

/// The link on which the connection already speaks with a link-local IPv6 address.
fn link(paths: &[FourTuple]) -> Option<u32> {
    paths.iter().find_map(|path| match path.remote() {
        SocketAddr::V6(remote) if remote.ip().is_unicast_link_local() => Some(remote.scope_id()),
        _ => None,
    })
}

/// NAT traversal frames name no link; what the peer calls link-local is on the one that we share.
fn on_link_of(mut wanted: SocketAddr, paths: &[FourTuple]) -> SocketAddr {
    if let SocketAddr::V6(v6) = &mut wanted
        && v6.ip().is_unicast_link_local()
        && let Some(scope) = link(paths)
    {
        v6.set_scope_id(scope);
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(remote: &str) -> FourTuple {
        FourTuple::new(remote.parse().unwrap(), None)
    }

    fn goes(wanted: &str, paths: &[&str]) -> Option<String> {
        goes_from(&[], wanted, paths)
    }

    fn goes_from(ours: &[&str], wanted: &str, paths: &[&str]) -> Option<String> {
        let paths: Vec<FourTuple> = paths.iter().map(|remote| path(remote)).collect();
        let ours: Vec<SocketAddr> = ours.iter().map(|own| own.parse().unwrap()).collect();
        probe_destination(wanted.parse().unwrap(), &paths, &ours).map(|address| address.to_string())
    }

    #[test]
    fn public_addresses_are_probed() {
        for wanted in [
            "203.0.113.5:1",
            "[2001:db8::5]:443",
            "[64:ff9b::203.0.113.5]:443",
        ] {
            assert!(goes(wanted, &["192.0.2.1:1"]).is_some(), "{wanted}");
        }
    }

    #[test]
    fn private_addresses_are_probed_by_who_may_share_a_network_with_the_peer() {
        let (v4, v6) = ("192.168.7.1:5000", "[fd77::1]:5000");
        for (wanted, own, other) in [
            ("10.0.0.1:5000", v4, v6),
            ("192.168.1.20:4433", v4, v6),
            ("100.64.0.1:9", v4, v6),
            ("[fd12:3456::1]:443", v6, v4),
        ] {
            let public = &["192.0.2.1:1", "[2001:db8::1]:1"];
            assert!(goes(wanted, public).is_none(), "{wanted}");
            assert!(goes_from(&[other], wanted, public).is_none(), "{wanted}");
            assert!(goes_from(&[own], wanted, public).is_some(), "{wanted}");
            assert!(goes(wanted, &[own]).is_some(), "{wanted}");
        }
    }

    #[test]
    fn what_is_not_a_peers_is_not_probed() {
        for wanted in [
            "203.0.113.5:0",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "127.0.0.1:1",
            "127.255.255.254:1",
            "169.254.1.1:1",
            "169.254.169.254:80",
            "100.100.100.200:80",
            "192.0.0.192:80",
            "168.63.129.16:80",
            "224.0.0.251:5353",
            "239.255.255.250:1900",
            "255.255.255.255:1",
            "240.0.0.1:1",
            "[::]:1",
            "[::1]:1",
            "[fe80::1]:1",
            "[ff02::fb]:5353",
            "[fd00:ec2::254]:80",
            "[fd20:ce::254]:80",
            "[fd71:7569:6365::1]:4433",
            "[::ffff:127.0.0.1]:1",
            "[::ffff:203.0.113.5]:1",
            "[::127.0.0.1]:1",
            "[64:ff9b::169.254.169.254]:80",
            "[64:ff9b::127.0.0.1]:80",
            "[64:ff9b::10.0.0.1]:80",
            "[2002:c0a8:101::1]:80",
            "[2002:7f00:1::1]:80",
            "[2002:a9fe:a9fe::1]:80",
        ] {
            assert_eq!(
                goes(wanted, &["192.0.2.1:1", "[2001:db8::1]:1"]),
                None,
                "{wanted}"
            );
        }
    }

    #[test]
    fn loopback_is_probed_by_a_connection_that_runs_over_it() {
        assert!(goes("127.0.0.1:1", &["127.0.0.1:5"]).is_some());
        assert!(goes("[::1]:1", &["127.0.0.1:5"]).is_some());
        assert!(goes("[64:ff9b::127.0.0.1]:80", &["127.0.0.1:5"]).is_none());
    }

    #[test]
    fn link_local_is_probed_on_the_link_that_the_peer_is_on() {
        let wanted = "[fe80::9]:7";
        assert_eq!(
            goes(wanted, &["[fe80::1%3]:5"]).as_deref(),
            Some("[fe80::9%3]:7")
        );
        assert_eq!(goes(wanted, &["169.254.1.1:5"]), None);
        assert!(goes("169.254.7.7:1", &["169.254.1.1:5"]).is_some());
        assert_eq!(goes("169.254.169.254:80", &["169.254.1.1:5"]), None);
    }
}
