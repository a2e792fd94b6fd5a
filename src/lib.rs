//! The QUIC engine of quice: noq-proto and noq-udp behind one lock and one pump.
//!
//! `engine` is QUIC without socket or clock; `driver` gives it both and shares it between the event loop and
//! the `guardian`; `python` is what Python sees of it.

mod connection;
mod demux;
mod driver;
mod engine;
mod guardian;
mod python;
mod reassembly;
mod tls;
mod udp;
