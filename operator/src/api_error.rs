//! A call of the API server that failed: which call, and what kind of failure.
//!
//! `kube::Error` alone does not say what was attempted; a person who reads a condition wants to
//! know which right is missing for which object.

use std::{fmt, time::Duration};

/// A failed call.
#[derive(Debug, thiserror::Error)]
#[error(
    "failed to {verb} {kind} {}{name}: {}",
    Slash(namespace),
    Shown(source)
)]
pub struct ApiError {
    /// What was attempted, as RBAC calls it.
    pub verb: &'static str,
    /// On what kind of object.
    pub kind: String,
    /// In which namespace; empty for objects of the cluster.
    pub namespace: String,
    /// Its name; empty for a list.
    pub name: String,
    /// What the client says.
    pub source: kube::Error,
}

/// What to think of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// The operator lacks a right.
    Forbidden,
    /// Somebody else was faster.
    Conflict,
    /// The object or its namespace went away.
    Gone,
    /// The API server refuses the object itself.
    Refused,
    /// It has too much to do or fails; later it may work.
    Busy,
    /// It does not answer.
    Unreachable,
}

impl Category {
    /// A fixed word for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A server that has too much to do and does not say for how long is left alone for this long.
const BUSY: Duration = Duration::from_secs(1);
/// Nobody waits longer because a server says so.
const LONGEST: Duration = Duration::from_mins(2);

impl ApiError {
    /// How long the API server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        let kube::Error::Api(status) = &self.source else {
            return None;
        };
        let asked = status.details.as_ref();
        let asked = asked.map_or(0, |details| u64::from(details.retry_after_seconds));
        (status.code == 429).then(|| Duration::from_secs(asked).clamp(BUSY, LONGEST))
    }
    /// What to think of it.
    pub fn category(&self) -> Category {
        let kube::Error::Api(status) = &self.source else {
            return Category::Unreachable;
        };
        match status.code {
            401 | 403 => Category::Forbidden,
            404 | 410 => Category::Gone,
            409 => Category::Conflict,
            400 | 405 | 406 | 413 | 415 | 422 => Category::Refused,
            _ => Category::Busy,
        }
    }
}

struct Slash<'a>(&'a str);

impl fmt::Display for Slash<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, "{}/", self.0)
        }
    }
}

/// The API server's own sentence, without the client's wrapping.
struct Shown<'a>(&'a kube::Error);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            kube::Error::Api(status) if !status.message.is_empty() => f.write_str(&status.message),
            kube::Error::Api(status) => write!(f, "status {}", status.code),
            other => {
                // The causes say what the outermost words hide: refused, reset, timed out.
                write!(f, "{other}")?;
                let mut cause = std::error::Error::source(other);
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
        }
    }
}
