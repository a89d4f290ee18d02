//! Requests and responses of the IM core's administration socket, and a client for it.
//!
//! The socket is a Unix socket that speaks HTTP/1.1 with JSON; who may open it is decided by the file's
//! permissions, so there is no token. Three layers, each usable alone:
//!
//! 1. [`types`]: what is asked and answered, with [`paths`] for where.
//! 2. [`Request`] and [`decode_response`]: bytes to send, and bytes received made sense of. They do no I/O: the
//!    installer sends the bytes through its agent.
//! 3. [`Client`]: both over any stream that can be read and written, with a deadline.
//!
//! Passwords are in [`Password`], which no debug output shows. They travel in bodies, never in paths.

mod client;
mod http;
pub mod paths;
mod types;

pub use client::{Client, ClientError};
pub use http::{DecodeError, HttpResponse, Request, decode_response, response_is_complete};
pub use types::{
    ApiError, CanaryAccount, CanaryCreated, CanarySwept, CreateUser, Drain, Empty, ErrorCode, ListUsers,
    NodeView, Password, Readiness, ReadinessCheck, Schema, SetPassword, Stats, SweepCanaries, User,
    UserAddress, UserList,
};
