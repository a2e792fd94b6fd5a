//! UDP sockets in batches: recvmmsg with GRO in, GSO out (noq-udp).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use bytes::BytesMut;
use noq_proto::{EcnCodepoint, FourTuple};
use noq_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};

/// What the kernel is asked to hold for us in each direction; it may grant less.
const SOCKET_BUFFER: usize = 4 << 20;
/// One sendmsg carries so many datagrams: half of what the kernel would take, and a quarter faster than ten. A
/// batch may not exceed 65,507 bytes.
const SEGMENTS: NonZeroUsize = NonZeroUsize::new(20).expect("not zero");
/// A GRO buffer holds at most one maximal UDP payload.
const RECEIVE_SIZE: usize = 65_536;
/// So many datagrams share an allocation: as long as a part of one waits to be read, it keeps the others alive.
/// Fewer cost time, more let a peer take memory with one packet in fifty that counts.
const SHARED: usize = 4;

pub struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
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
        Ok(Self { io, state, local })
    }

    #[cfg(unix)]
    pub fn fd(&self) -> RawFd {
        self.io.as_raw_fd()
    }

    /// How many datagrams of one size may go out in one transmit.
    pub fn segments(&self) -> NonZeroUsize {
        self.state.max_gso_segments().min(SEGMENTS)
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

    /// Send what `poll_transmit` gave. Only `WouldBlock` comes back as an error: anything else is the loss of
    /// a datagram, with which QUIC and STUN deal themselves.
    pub fn send(&self, transmit: &noq_proto::Transmit, contents: &[u8]) -> io::Result<()> {
        // Without GSO, what comes as several datagrams all the same goes out one by one.
        let apart = self.state.max_gso_segments() == NonZeroUsize::MIN;
        let step = transmit.segment_size.filter(|_| apart);
        for contents in contents[..transmit.size].chunks(step.unwrap_or(transmit.size)) {
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

    fn try_send(&self, transmit: &noq_udp::Transmit<'_>) -> io::Result<()> {
        match self.state.try_send((&self.io).into(), transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
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
}

#[cfg(unix)]
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
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
