//! Any object's bytes by the buffer protocol, without a copy.
//!
//! The protocol joined the stable ABI with Python 3.11, so PyO3 leaves it out of an abi3 build for 3.10. Its
//! functions and the layout of `Py_buffer` are the same there (PEP 3118, unchanged since 3.0): declared here.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;

use pyo3::ffi::{Py_ssize_t, PyObject};
use pyo3::prelude::*;

#[repr(C)]
struct RawBuffer {
    buf: *mut c_void,
    obj: *mut PyObject,
    len: Py_ssize_t,
    itemsize: Py_ssize_t,
    readonly: c_int,
    ndim: c_int,
    format: *mut c_char,
    shape: *mut Py_ssize_t,
    strides: *mut Py_ssize_t,
    suboffsets: *mut Py_ssize_t,
    internal: *mut c_void,
}

const PYBUF_SIMPLE: c_int = 0;
const PYBUF_WRITABLE: c_int = 1;

unsafe extern "C" {
    fn PyObject_GetBuffer(object: *mut PyObject, view: *mut RawBuffer, flags: c_int) -> c_int;
    fn PyBuffer_Release(view: *mut RawBuffer);
}

/// Contiguous bytes borrowed from a Python object, for as long as the GIL is held.
pub struct Buffer<'py> {
    raw: RawBuffer,
    _py: Python<'py>,
}

impl<'py> Buffer<'py> {
    /// Raises `TypeError` or `BufferError` for an object without contiguous bytes.
    pub fn readable(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        Self::get(object, PYBUF_SIMPLE)
    }

    /// Raises `TypeError` or `BufferError` for an object without contiguous writable bytes.
    pub fn writable(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        Self::get(object, PYBUF_WRITABLE)
    }

    fn get(object: &Bound<'py, PyAny>, flags: c_int) -> PyResult<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: a live object and room for the view, with the GIL held.
        if unsafe { PyObject_GetBuffer(object.as_ptr(), raw.as_mut_ptr(), flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        // SAFETY: the call succeeded and filled the view.
        let raw = unsafe { raw.assume_init() };
        Ok(Self {
            raw,
            _py: object.py(),
        })
    }

    pub fn bytes(&self) -> &[u8] {
        if self.raw.len <= 0 {
            return &[];
        }
        // SAFETY: the view is contiguous, and its exporter keeps it in place until it is released. The GIL
        // keeps Python code from writing to it meanwhile.
        unsafe { std::slice::from_raw_parts(self.raw.buf.cast(), self.raw.len as usize) }
    }

    /// Only for a view made by `writable`.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        debug_assert!(self.raw.readonly == 0);
        if self.raw.len <= 0 {
            return &mut [];
        }
        // SAFETY: as in `bytes`, and the exporter granted writing.
        unsafe { std::slice::from_raw_parts_mut(self.raw.buf.cast(), self.raw.len as usize) }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // SAFETY: the view was filled by a successful PyObject_GetBuffer and is released once.
        unsafe { PyBuffer_Release(&raw mut self.raw) };
    }
}
