"""Where a peer may have us send checks. It names addresses freely; some of them lead to what is ours, or our network's,
and nobody else's, and a packet from us may do something there.

`src/scope.rs` holds the engine's own probes to the same rules.
"""

from __future__ import annotations

import ipaddress

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# Where a cloud's virtual machines ask for their secrets: AWS and many more, Alibaba, Oracle, Azure's host; AWS, Google.
_METADATA = {
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd20:ce::254",
    )
}
# RFC 1918 §3, and RFC 6598 §7: within carriers. Networks of these blocks are routed to each other, as by a VPN, so that
# a machine with an address of one may share a network with any.
_PRIVATE_V4 = tuple(ipaddress.ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
# RFC 4193 §3, and of it what the engine calls relays by.
_PRIVATE_V6 = ipaddress.IPv6Network("fc00::/7")
_ROUTES = ipaddress.IPv6Network("fd71:7569:6365::/48")
# RFC 6890 §2.2.2: this host; what nobody uses, and the broadcast address.
_NOBODY_V4 = tuple(ipaddress.ip_network(n) for n in ("0.0.0.0/8", "240.0.0.0/4"))
# RFC 6052 §2.1 and RFC 3056 §2: these have an IPv4 address in them, in the last four bytes and after the first two.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
# RFC 4291 §2.5.5: mapped and compatible addresses are another name for IPv4; loopback is among them.
_IPV4_IN_DISGUISE = tuple(ipaddress.IPv6Network(n) for n in ("::/96", "::ffff:0:0/96"))


def may_check(ours: IpAddress, theirs: IpAddress, *, heard: bool = False) -> bool:
    """Whether a check may go from this address of ours, without its zone, to that one.

    Both are of one family, loopback or not, link-local or not (RFC 8445 §6.1.2.2, RFC 3927 §2.6.2). Theirs is one
    machine's, is no cloud's metadata service, and is private only if ours is: who has no private address shares no
    private network with the peer, whatever it says. `heard`: unless an authentic check has come from there.
    """
    return (
        ours.version == theirs.version
        and ours.is_loopback == theirs.is_loopback
        and ours.is_link_local == theirs.is_link_local
        and _is_one_machine(theirs)
        and (heard or not _is_private(theirs) or _is_private(ours))
    )


def may_refer(from_: IpAddress, to: IpAddress) -> bool:
    """Whether a server at one address, without zones, may send us to another: to one machine, which is no closer to us
    than the server is itself. What is on the internet names nobody in our network, and only this machine itself names
    itself."""
    return _is_one_machine(to) and _closeness(to) <= _closeness(from_)


def _closeness(ip: IpAddress) -> int:
    return 3 if ip.is_loopback else 2 if ip.is_link_local else int(_is_private(ip))


def _is_one_machine(ip: IpAddress) -> bool:
    if ip in _METADATA or ip.is_multicast:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _NOBODY_V4)
    if ip in _ROUTES or (any(ip in network for network in _IPV4_IN_DISGUISE) and not ip.is_loopback):
        return False
    embedded = _embedded(ip)
    return embedded is None or (
        _is_one_machine(embedded) and not (_is_private(embedded) or embedded.is_loopback or embedded.is_link_local)
    )


def _embedded(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """What a translator or a tunnel would make of it, which must be allowed too."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip in _SIX_TO_FOUR:
        return ipaddress.IPv4Address(int(ip) >> 80 & 0xFFFFFFFF)
    return None


def _is_private(ip: IpAddress) -> bool:
    if isinstance(ip, ipaddress.IPv4Address):
        return any(ip in network for network in _PRIVATE_V4)
    return ip in _PRIVATE_V6
