//! `quice._native`: the engine as Python sees it. `_native.pyi` beside the package describes it.

mod address;
mod buffer;
mod config;
mod connection;
mod engine;
mod error;
mod event;
mod relay;

use pyo3::prelude::*;

#[pymodule]
pub mod _native {
    #[pymodule_export]
    use super::config::PyCredentials;
    #[pymodule_export]
    use super::connection::{
        ConnectionGone, DatagramRefused, NatTraversalRefused, PathRefused, PyConnection, RaceWon,
        StreamClosed, StreamReset, StreamStopped,
    };
    #[pymodule_export]
    use super::engine::PyEngine;
    #[pymodule_export]
    use super::event::{Event, Loss, PathLoss};
    #[pymodule_export]
    use super::relay::PyRelay;
}
