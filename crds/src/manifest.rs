//! Reads manifests from a file or a folder and checks each of them.
//!
//! All problems are reported together, each with file, document, field, value and remedy.
//! Resources of other kinds are noted and left alone. `compile` follows.

mod read;
mod secret;

use std::{
    cell::OnceCell,
    fmt,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::secret::Secret;
use crate::{
    CacheTier, SessionPolicy,
    structure::{Finding, unknown},
    validate::Validator,
};

/// What a file or a folder holds.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// The cache tiers, each valid.
    pub tiers: Vec<Located<CacheTier>>,
    /// The session policies, each valid.
    pub sessions: Vec<Located<SessionPolicy>>,
    /// The Secrets.
    pub secrets: Vec<Located<Secret>>,
    /// What was left alone and why, in sentences for the log.
    pub notes: Vec<String>,
}

/// A resource and where it stands.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The resource.
    pub resource: T,
    /// Where it stands.
    pub place: Place,
}

/// A document in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Number of the document in the file, from 1.
    pub document: usize,
}

/// One thing that is wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the document is.
    pub place: Place,
    /// The field, `spec.rules[0].ttl`; empty when it is the document as a whole.
    pub path: String,
    /// What is wrong, with the value and the remedy.
    pub message: String,
}

/// Why manifests could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file or folder cannot be read.
    #[error("failed to read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is too large to be a manifest.
    #[error("{} has {size} bytes, at most {max} are read; is it a manifest?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// The folder holds no YAML.
    #[error("{} holds no file that ends in .yaml, .yml or .json; give a manifest or a folder with some", .0.display())]
    Empty(PathBuf),
    /// Manifests are wrong; all problems, one per line.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

/// Loads and checks the manifests of a file, or of the YAML files of a folder (not of folders
/// in it).
pub fn load_manifests(path: &Path) -> Result<Manifests, LoadError> {
    let mut loader = Loader::new();
    for file in read::files(path)? {
        let text = read::text(&file)?;
        loader.add_file(&file, &text);
    }
    loader.finish()
}

/// Checks manifests that are in memory already; `name` stands for the file in messages.
pub fn parse_manifests(name: &str, text: &str) -> Result<Manifests, LoadError> {
    let mut loader = Loader::new();
    loader.add_file(Path::new(name), text);
    loader.finish()
}

struct Loader {
    // Made when the first resource of the kind comes: it costs a few milliseconds, and a sidecar
    // should be up at once.
    tier: OnceCell<Validator>,
    session: OnceCell<Validator>,
    found: Manifests,
    problems: Vec<Problem>,
}

impl Loader {
    fn new() -> Self {
        Self {
            tier: OnceCell::new(),
            session: OnceCell::new(),
            found: Manifests::default(),
            problems: Vec::new(),
        }
    }

    fn add_file(&mut self, file: &Path, text: &str) {
        for (index, document) in read::documents(text).into_iter().enumerate() {
            let place = Place {
                file: file.to_owned(),
                document: index + 1,
            };
            match document {
                // An empty document is what a stray `---` leaves.
                Ok(Value::Null) => {}
                Ok(value) => self.add(&value, &place),
                Err(message) => self.problem(&place, "", message),
            }
        }
    }

    fn add(&mut self, value: &Value, place: &Place) {
        let text = |name: &str| value[name].as_str().unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if version.is_empty() || kind.is_empty() {
            let message = "is not a Kubernetes resource; begin it with apiVersion: pannier.dev/v1alpha1 and kind: CacheTier";
            return self.problem(place, "", message.to_owned());
        }
        match (version, kind) {
            (API_VERSION, "CacheTier") => {
                if let Some(resource) = checked(
                    self.tier.get_or_init(Validator::cache_tier),
                    value,
                    place,
                    &mut self.problems,
                ) {
                    self.found.tiers.push(resource);
                }
            }
            (API_VERSION, "SessionPolicy") => {
                if let Some(resource) = checked(
                    self.session.get_or_init(Validator::session_policy),
                    value,
                    place,
                    &mut self.problems,
                ) {
                    self.found.sessions.push(resource);
                }
            }
            ("v1", "Secret") => match Secret::read(value) {
                Ok(resource) => self.found.secrets.push(Located {
                    resource,
                    place: place.clone(),
                }),
                Err(Finding { path, message }) => self.problem(place, &path, message),
            },
            (API_VERSION, kind) => {
                let hint = unknown(kind, ["CacheTier", "SessionPolicy"].into_iter());
                let hint = hint.replace("field", "kind");
                self.problem(place, "kind", format!("{kind:?}: {hint}"));
            }
            (version, _) if version.starts_with("pannier.dev/") => {
                let message = format!("{version:?} is not known; write {API_VERSION}");
                self.problem(place, "apiVersion", message);
            }
            _ => self
                .found
                .notes
                .push(format!("{place}: {kind} is not used by a local run")),
        }
    }

    fn problem(&mut self, place: &Place, path: &str, message: String) {
        self.problems.push(Problem {
            place: place.clone(),
            path: path.to_owned(),
            message,
        });
    }

    fn finish(self) -> Result<Manifests, LoadError> {
        if self.problems.is_empty() {
            Ok(self.found)
        } else {
            Err(LoadError::Invalid(self.problems))
        }
    }
}

const API_VERSION: &str = "pannier.dev/v1alpha1";

fn checked<T: DeserializeOwned>(
    validator: &Validator,
    value: &Value,
    place: &Place,
    problems: &mut Vec<Problem>,
) -> Option<Located<T>> {
    let mut findings = validator.check(value, None);
    if value["metadata"]["name"].as_str().is_none_or(str::is_empty) {
        findings.push(Finding {
            path: "metadata.name".to_owned(),
            message: "is missing; give the resource a name".to_owned(),
        });
    }
    if findings.is_empty() {
        match T::deserialize(value) {
            Ok(resource) => {
                return Some(Located {
                    resource,
                    place: place.clone(),
                });
            }
            // Numbers that fit the pattern of a size and no machine word, for example.
            Err(error) => findings.push(Finding {
                path: String::new(),
                message: error.to_string(),
            }),
        }
    }
    problems.extend(findings.into_iter().map(|finding| Problem {
        place: place.clone(),
        path: finding.path,
        message: finding.message,
    }));
    None
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}", self.file.display(), self.document)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            path,
            message,
        } = self;
        if path.is_empty() {
            write!(f, "{place}: {message}")
        } else {
            write!(f, "{place}: {path}: {message}")
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
