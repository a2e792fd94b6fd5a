//! The QUIC engine of quice: noq-proto and noq-udp behind one lock and one pump.
//!
//! `engine` is QUIC without socket or clock; `driver` gives it both and shares it between the event loop and
//! the `guardian`; `python` is what Python sees of it.

// What only Python calls is unused when the engine is tested alone.
#![cfg_attr(not(feature = "python"), allow(dead_code))]

mod admission;
mod answers;
mod budget;
mod burst;
mod clock;
mod connection;
mod controller;
mod demux;
mod driver;
mod engine;
mod estimate;
mod guardian;
mod migration;
mod moves;
mod nat;
mod path;
#[cfg(feature = "python")]
mod python;
mod race;
mod reassembly;
mod recovery;
mod relay;
mod route;
mod scope;
mod seeded;
mod tls;
mod udp;
mod watch;
mod whereabouts;
