//! What can be wrong with flags, environment and files. Every message names where, which value
//! (never a secret) and what to do.

use std::{fmt, io, path::PathBuf};

/// Everything that is wrong, at least one thing.
#[derive(Debug)]
pub struct ConfigError(Vec<Problem>);

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A flag, a variable or a field with a value that cannot work.
    #[error("{place}{}: {reason}; {remedy}", shown(value.as_deref()))]
    Setting {
        /// Flag and variable, or field.
        place: String,
        /// The value; absent where it may hold a secret.
        value: Option<String>,
        /// Why it cannot work.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// A file that cannot be read.
    #[error("{place} names {}, which cannot be read: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// Flag or field.
        place: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A configuration file whose text is wrong.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Field and line.
        source: policy::ConfigError,
    },
    /// Manifests that cannot be served.
    #[error("{}: {message}", path.display())]
    Manifests {
        /// The file or folder.
        path: PathBuf,
        /// Resource, field and remedy.
        message: String,
    },
    /// Values that contradict each other or the limits.
    #[error("{0}")]
    Policy(policy::PolicyErrors),
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| {
        let value: String = value.chars().take(80).collect();
        format!(" is {value:?}")
    })
}

// === impl ConfigError ===

impl ConfigError {
    /// The problems in the order in which they were found.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let before = if index == 0 { "" } else { "\n" };
            write!(f, "{before}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Collects problems.
#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    pub(super) fn setting(
        &mut self,
        place: impl Into<String>,
        value: Option<&str>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(Problem::Setting {
            place: place.into(),
            value: value.map(str::to_owned),
            reason: reason.into(),
            remedy: remedy.into(),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_error(self) -> ConfigError {
        debug_assert!(!self.0.is_empty(), "an error says what is wrong");
        ConfigError(self.0)
    }
}
