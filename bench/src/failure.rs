//! What can go wrong in a measurement. A target that fails is reported with the reason; the
//! others go on.

use std::io;

/// A measurement or a target that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file or a socket.
    #[error("failed to {action}: {source}")]
    Io {
        /// What was attempted, as in "read /proc/1/status".
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program that we ran.
    #[error("{program} failed: {detail}")]
    Program {
        /// Its name.
        program: String,
        /// The end of what it printed.
        detail: String,
    },
    /// An answer that is not what the protocol allows here.
    #[error("unexpected answer to {request}: {answer}")]
    Answer {
        /// What was asked.
        request: String,
        /// What came back.
        answer: String,
    },
    /// Anything missing that the user can provide.
    #[error("{0}")]
    Missing(String),
}

impl Failure {
    /// For `map_err`: names the action that an I/O error belongs to.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// Shorthand for everything here.
pub type Outcome<T> = Result<T, Failure>;
