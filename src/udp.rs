//! UDP sockets in batches: recvmmsg with GRO in, GSO out (noq-udp).

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use bytes::BytesMut;
use noq_proto::{EcnCodepoint, FourTuple};
use noq_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};

use crate::engine::LARGEST;
use crate::route::HEADER;

/// What the kernel is asked to hold for us in each direction; it may grant less.
const SOCKET_BUFFER: usize = 4 << 20;
/// One sendmsg carries so many datagrams: half of what the kernel would take, and a quarter faster than ten. A
/// batch may not exceed 65,507 bytes, the frames of a relay included.
const SEGMENTS: NonZeroUsize = NonZeroUsize::new(20).expect("not zero");
const _: () = assert!(SEGMENTS.get() * (LARGEST + HEADER) <= 65_507);
/// A GRO buffer holds at most one maximal UDP payload.
const RECEIVE_SIZE: usize = 65_536;
/// So many datagrams share an allocation: as long as a part of one waits to be read, it keeps the others alive.
/// Fewer cost time, more let a peer take memory with one packet in fifty that counts.
const SHARED: usize = 4;

pub struct Socket {
    io: UdpSocket,
    /// Made anew when a source address has gone, see `recover`.
    state: RefCell<UdpSocketState>,
    pub local: SocketAddr,
}

/// Datagrams that came together on one path (GRO): each has `stride` bytes, the last maybe fewer.
pub struct Run<'a> {
    pub path: FourTuple,
    pub ecn: Option<EcnCodepoint>,
    pub stride: usize,
    pub data: &'a [u8],
}

/// Room for one batch of received datagrams, used again and again.
pub struct ReceiveBuffer(Vec<u8>);

impl ReceiveBuffer {
    pub fn new() -> Self {
        Self(vec![0; RECEIVE_SIZE * BATCH_SIZE])
    }
}

impl Socket {
    /// Bind a UDP socket; on an IPv6 address it carries IPv6 alone.
    pub fn bind(local: SocketAddr) -> io::Result<Self> {
        let io = bind(local)?;
        let state = UdpSocketState::new((&io).into())?;
        // Less is slower, not wrong.
        let _ = state.set_send_buffer_size((&io).into(), SOCKET_BUFFER);
        let _ = state.set_recv_buffer_size((&io).into(), SOCKET_BUFFER);
        let local = io.local_addr()?;
        let state = RefCell::new(state);
        Ok(Self { io, state, local })
    }

    #[cfg(unix)]
    pub fn fd(&self) -> RawFd {
        self.io.as_raw_fd()
    }

    /// How many datagrams of one size may go out in one transmit.
    pub fn segments(&self) -> NonZeroUsize {
        self.state.borrow().max_gso_segments().min(SEGMENTS)
    }

    /// Receive one batch and hand each datagram to `take`. Returns whether the batch was full, so that there is
    /// probably more.
    pub fn receive(
        &self,
        buffer: &mut ReceiveBuffer,
        mut take: impl FnMut(FourTuple, Option<EcnCodepoint>, BytesMut),
    ) -> io::Result<bool> {
        self.receive_runs(buffer, |run| {
            for group in run.data.chunks(run.stride * SHARED) {
                let mut datagrams = BytesMut::from(group);
                while !datagrams.is_empty() {
                    let one = datagrams.split_to(run.stride.min(datagrams.len()));
                    take(run.path, run.ecn, one);
                }
            }
        })
    }

    /// Receive one batch and hand it to `take` as the kernel gave it. Returns whether the batch was full.
    pub fn receive_runs(
        &self,
        buffer: &mut ReceiveBuffer,
        mut take: impl FnMut(Run<'_>),
    ) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let count = {
            let mut chunks = buffer.0.chunks_mut(RECEIVE_SIZE);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("one for each slot")));
            self.state
                .borrow()
                .recv((&self.io).into(), &mut slices, &mut metas)?
        };
        for (meta, received) in metas[..count].iter().zip(buffer.0.chunks(RECEIVE_SIZE)) {
            take(Run {
                path: FourTuple::new(meta.addr, meta.dst_ip),
                ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
                stride: meta.stride.max(1),
                data: &received[..meta.len],
            });
        }
        Ok(count == BATCH_SIZE)
    }

    /// Send a transmit. Only `WouldBlock` comes back as an error: anything else is the loss of a datagram, with
    /// which QUIC and STUN deal themselves.
    pub fn send(&self, transmit: &noq_proto::Transmit, contents: &[u8]) -> io::Result<()> {
        // Without GSO, what comes as several datagrams all the same goes out one by one.
        let apart = self.state.borrow().max_gso_segments() == NonZeroUsize::MIN;
        let step = transmit.segment_size.filter(|_| apart);
        for contents in contents[..transmit.size].chunks(step.unwrap_or(transmit.size).max(1)) {
            self.try_send(&noq_udp::Transmit {
                destination: transmit.destination,
                ecn: transmit
                    .ecn
                    .and_then(|ecn| noq_udp::EcnCodepoint::from_bits(ecn as u8)),
                contents,
                segment_size: transmit.segment_size.filter(|_| !apart),
                src_ip: transmit.src_ip,
            })?;
        }
        Ok(())
    }

    /// Send one datagram of another protocol than QUIC.
    pub fn send_packet(&self, data: &[u8], source: Option<IpAddr>, destination: SocketAddr) {
        // A full socket buffer is a lost datagram: STUN retransmits.
        let _ = self.try_send(&noq_udp::Transmit {
            destination,
            ecn: None,
            contents: data,
            segment_size: None,
            src_ip: source,
        });
    }

    fn try_send(&self, transmit: &noq_udp::Transmit<'_>) -> io::Result<()> {
        let sent = self.state.borrow().try_send((&self.io).into(), transmit);
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if transmit.src_ip.is_some_and(is_gone) => self.recover(),
            _ => {}
        }
        Ok(())
    }

    /// A source address that has gone is the same error to noq-udp as a kernel that knows no GSO and no ECN, and it
    /// never tries them again, on no path.
    fn recover(&self) {
        if let Ok(state) = UdpSocketState::new((&self.io).into()) {
            self.state.replace(state);
        }
    }
}

#[cfg(unix)]
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

/// Whether an address is no longer one of our host's.
fn is_gone(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

fn bind(local: SocketAddr) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(local);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if local.is_ipv6() {
        // IPv4 has a socket of its own: mapped addresses would be a second name for the same peer.
        socket.set_only_v6(true)?;
    }
    socket.bind(&local.into())?;
    Ok(socket.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn transmit(destination: SocketAddr, source: Option<IpAddr>) -> noq_proto::Transmit {
        noq_proto::Transmit {
            destination,
            ecn: None,
            size: 30,
            segment_size: Some(10),
            src_ip: source,
        }
    }

    fn received(socket: &Socket) -> usize {
        let mut count = 0;
        let _ = socket.receive(&mut ReceiveBuffer::new(), |_, _, data| {
            assert_eq!(data.len(), 10);
            count += 1;
        });
        count
    }

    #[test]
    fn a_source_address_that_has_gone_costs_its_own_datagrams_and_no_others_their_speed() {
        // RFC 5737, RFC 3849: nobody has these.
        for (host, gone) in [("127.0.0.1", "192.0.2.77"), ("::1", "2001:db8::77")] {
            let host: IpAddr = host.parse().unwrap();
            let sender = Socket::bind(SocketAddr::new(host, 0)).unwrap();
            let receiver = Socket::bind(SocketAddr::new(host, 0)).unwrap();
            let segments = sender.segments();
            for _ in 0..3 {
                let lost = transmit(receiver.local, gone.parse().ok());
                sender.send(&lost, &[7; 30]).unwrap();
                assert_eq!(received(&receiver), 0);
                assert_eq!(sender.segments(), segments);
                let other = transmit(receiver.local, None);
                sender.send(&other, &[7; 30]).unwrap();
                assert_eq!(received(&receiver), 3);
            }
        }
    }
}
