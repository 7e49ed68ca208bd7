//! The Redis serialization protocol: requests in, replies out, replies of Redis in.
//!
//! `request` splits what an app sent into arguments, `reply` measures and reads what Redis
//! answered, `downgrade` turns RESP3 into RESP2, `write` builds replies of our own. Specification:
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

pub mod downgrade;
pub mod reply;
pub mod request;
pub mod write;

/// The protocol version that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Proto {
    /// RESP2, what a connection speaks before `HELLO 3`.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}
