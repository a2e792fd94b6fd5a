//! What travels between a TURN client and its server besides requests: ChannelData (RFC 8656 §12.4), and Send and
//! Data indications (§11).

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

/// Number and length, before the data.
pub const CHANNEL_HEADER: usize = 4;
/// A channel number's first octet. RFC 8656 §12 ends at 79; clients of RFC 5766 go up to here.
const CHANNELS: RangeInclusive<u8> = 64..=127;
const STUN_HEADER: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const SEND_INDICATION: u16 = 0x0016;
const DATA_INDICATION: u16 = 0x0017;
/// The two bits of a STUN message's class; both are zero in a request (RFC 8489 §5).
const CLASS: u16 = 0x0110;

const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;
const DONT_FRAGMENT: u16 = 0x001a;
/// RFC 8489 §14: types from here on may be ignored by who does not know them.
const COMPREHENSION_OPTIONAL: u16 = 0x8000;
const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// A datagram of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    Channel {
        number: u16,
        data: &'a [u8],
    },
    Send {
        peer: SocketAddr,
        data: &'a [u8],
    },
    /// Not for the data path.
    Request,
    Malformed,
}

/// Read what a client sent.
pub fn parse(datagram: &[u8]) -> Frame<'_> {
    match datagram.first() {
        Some(0..=3) if is_stun(datagram) => parse_stun(datagram),
        Some(first) if CHANNELS.contains(first) => {
            parse_channel(datagram).unwrap_or(Frame::Malformed)
        }
        _ => Frame::Malformed,
    }
}

/// How many bytes the frame at the start of a TCP stream has (RFC 8656 §12.5: there, ChannelData is padded to a
/// multiple of four). `None` when more bytes must come to tell, an error for what is neither.
pub fn length_on_stream(bytes: &[u8]) -> Result<Option<usize>, NotTurn> {
    let Some(&[first, _, high, low]) = bytes.first_chunk() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    match first {
        0..=3 => Ok(Some(STUN_HEADER + length)),
        first if CHANNELS.contains(&first) => Ok(Some(CHANNEL_HEADER + length.next_multiple_of(4))),
        _ => Err(NotTurn),
    }
}

/// The stream carries another protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct NotTurn;

/// Append ChannelData.
pub fn put_channel(out: &mut Vec<u8>, number: u16, data: &[u8]) {
    out.extend(number.to_be_bytes());
    out.extend(length_of(data).to_be_bytes());
    out.extend(data);
}

/// How long a Data indication with so many bytes from `peer` is.
pub fn indication_size(peer: SocketAddr, length: usize) -> usize {
    STUN_HEADER + 4 + address_size(peer) + 4 + length.next_multiple_of(4)
}

/// Append a Data indication.
pub fn put_indication(out: &mut Vec<u8>, transaction: [u8; 12], peer: SocketAddr, data: &[u8]) {
    let size = indication_size(peer, data.len()) - STUN_HEADER;
    out.extend(DATA_INDICATION.to_be_bytes());
    out.extend((size as u16).to_be_bytes());
    out.extend(MAGIC_COOKIE);
    out.extend(transaction);
    out.extend(XOR_PEER_ADDRESS.to_be_bytes());
    out.extend((address_size(peer) as u16).to_be_bytes());
    put_address(out, &transaction, peer);
    out.extend(DATA.to_be_bytes());
    out.extend(length_of(data).to_be_bytes());
    out.extend(data);
    out.resize(out.len() + data.len().next_multiple_of(4) - data.len(), 0);
}

/// What a UDP datagram carries is shorter than 2^16 bytes.
fn length_of(data: &[u8]) -> u16 {
    data.len() as u16
}

fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= STUN_HEADER
        && datagram[4..8] == MAGIC_COOKIE
        && datagram.len().is_multiple_of(4)
        && usize::from(u16::from_be_bytes([datagram[2], datagram[3]])) + STUN_HEADER
            == datagram.len()
}

fn parse_channel(datagram: &[u8]) -> Option<Frame<'_>> {
    let (&[a, b, high, low], rest) = datagram.split_first_chunk()?;
    // RFC 8656 §12.5: over UDP padding is allowed, so that there may be more than the length says.
    let data = rest.get(..u16::from_be_bytes([high, low]).into())?;
    Some(Frame::Channel {
        number: u16::from_be_bytes([a, b]),
        data,
    })
}

fn parse_stun(message: &[u8]) -> Frame<'_> {
    let kind = u16::from_be_bytes([message[0], message[1]]);
    if kind & CLASS == 0 {
        return Frame::Request;
    }
    if kind != SEND_INDICATION {
        return Frame::Malformed;
    }
    parse_send(message).unwrap_or(Frame::Malformed)
}

/// RFC 8656 §11.2: an indication that lacks something, or has what we do not know and must, is dropped silently.
fn parse_send(message: &[u8]) -> Option<Frame<'_>> {
    let transaction: &[u8; 12] = message[8..STUN_HEADER].first_chunk()?;
    let mut rest = &message[STUN_HEADER..];
    let (mut peer, mut data) = (None, None);
    while let Some((&[a, b, high, low], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = behind.get(..length)?;
        rest = behind.get(length.next_multiple_of(4)..)?;
        match u16::from_be_bytes([a, b]) {
            XOR_PEER_ADDRESS if peer.is_none() => peer = Some(parse_address(value, transaction)?),
            DATA if data.is_none() => data = Some(value),
            // What we send is never fragmented.
            XOR_PEER_ADDRESS | DATA | DONT_FRAGMENT | COMPREHENSION_OPTIONAL.. => {}
            _ => return None,
        }
    }
    Some(Frame::Send {
        peer: peer?,
        data: data?,
    })
}

fn address_size(address: SocketAddr) -> usize {
    if address.is_ipv4() { 8 } else { 20 }
}

/// RFC 8489 §14.2: what an address is XORed with.
fn mask(transaction: &[u8; 12]) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE);
    mask[4..].copy_from_slice(transaction);
    mask
}

fn put_address(out: &mut Vec<u8>, transaction: &[u8; 12], address: SocketAddr) {
    let mask = mask(transaction);
    let port = address.port() ^ u16::from_be_bytes([mask[0], mask[1]]);
    out.extend([0, if address.is_ipv4() { IPV4 } else { IPV6 }]);
    out.extend(port.to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets().iter().zip(mask).map(|(a, b)| a ^ b)),
        IpAddr::V6(ip) => out.extend(ip.octets().iter().zip(mask).map(|(a, b)| a ^ b)),
    }
}

fn parse_address(value: &[u8], transaction: &[u8; 12]) -> Option<SocketAddr> {
    let (&[_, family, high, low], ip) = value.split_first_chunk()?;
    let mask = mask(transaction);
    let port = u16::from_be_bytes([high, low]) ^ u16::from_be_bytes([mask[0], mask[1]]);
    let plain: Vec<u8> = ip.iter().zip(mask).map(|(a, b)| a ^ b).collect();
    let ip = match (family, ip.len()) {
        (IPV4, 4) => IpAddr::from(<[u8; 4]>::try_from(plain).ok()?),
        (IPV6, 16) => IpAddr::from(<[u8; 16]>::try_from(plain).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> [SocketAddr; 2] {
        ["192.0.2.7:5000", "[2001:db8::7]:5000"].map(|text| text.parse().unwrap())
    }

    /// A Send indication is a Data indication of another type.
    fn send(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        put_indication(&mut message, *b"transaction!", peer, data);
        message[1] = SEND_INDICATION as u8;
        message
    }

    #[test]
    fn channel_data_is_read_as_it_is_written() {
        let mut frame = Vec::new();
        put_channel(&mut frame, 0x4001, b"hello");
        let expected = Frame::Channel {
            number: 0x4001,
            data: b"hello",
        };
        assert_eq!(parse(&frame), expected);
        frame.extend([0; 3]);
        assert_eq!(parse(&frame), expected, "padded");
        assert_eq!(length_on_stream(&frame), Ok(Some(12)));
        assert_eq!(parse(&frame[..8]), Frame::Malformed, "cut off");
    }

    #[test]
    fn an_indication_is_read_as_it_is_written_for_both_families() {
        for peer in peers() {
            for data in [&b""[..], b"x", b"1234", b"12345"] {
                let message = send(peer, data);
                assert_eq!(message.len(), indication_size(peer, data.len()));
                assert_eq!(parse(&message), Frame::Send { peer, data });
                assert_eq!(length_on_stream(&message), Ok(Some(message.len())));
            }
        }
    }

    #[test]
    fn no_cut_and_no_flipped_octet_is_more_than_malformed() {
        for peer in peers() {
            let whole = send(peer, b"12345");
            for end in 0..whole.len() {
                assert_eq!(parse(&whole[..end]), Frame::Malformed);
            }
            for at in 0..whole.len() {
                for bit in 0..8 {
                    let mut changed = whole.clone();
                    changed[at] ^= 1 << bit;
                    parse(&changed);
                }
            }
        }
    }

    #[test]
    fn an_attribute_that_must_be_understood_and_is_not_makes_an_indication_void() {
        let mut message = send(peers()[0], b"1234");
        let length = message.len();
        message.extend([0x7f, 0xff, 0, 0]);
        message[3] = (length + 4 - STUN_HEADER) as u8;
        assert_eq!(parse(&message), Frame::Malformed);
        message[length] = 0xff;
        assert!(matches!(parse(&message), Frame::Send { .. }));
        message[length..length + 2].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
        assert!(matches!(parse(&message), Frame::Send { .. }));
    }

    #[test]
    fn a_stream_of_another_protocol_is_known_by_its_first_octet() {
        assert_eq!(length_on_stream(b"\x16\x03\x01\x00"), Err(NotTurn));
        assert_eq!(length_on_stream(b"\x40"), Ok(None));
    }
}
