//! The data path of a TURN server (RFC 8656): a thread that owns the listening sockets, the clients' TCP connections
//! and the relayed addresses, and forwards between them.
//!
//! Who may have an allocation, a permission or a channel is not decided here: requests go up to the control plane,
//! which answers with `Command`s. What no command has allowed is dropped.

mod allocation;
pub mod counts;
pub mod forwarder;
mod frame;
mod outbox;
pub mod shared;
mod stream;
pub mod switch;
mod waiting;
