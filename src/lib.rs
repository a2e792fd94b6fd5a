//! The QUIC engine of quice.
use pyo3::prelude::*;

#[pymodule]
mod _native {}
