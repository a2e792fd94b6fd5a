//! System errors as Python has them: with their number, which PyO3 leaves out.

use std::io;

use pyo3::PyErr;
use pyo3::exceptions::PyOSError;

pub fn os_error(error: io::Error) -> PyErr {
    let Some(number) = error.raw_os_error() else {
        return error.into();
    };
    let text = error.to_string();
    let reason = text.split(" (os error").next().unwrap_or(&text);
    PyOSError::new_err((number, reason.to_owned()))
}
