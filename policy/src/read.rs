//! Reads the text of a configuration file, YAML or JSON, and says exactly what is wrong with it.
//!
//! What the values mean together is checked later, by `compile`.

use schemars::Schema;
use serde_json::Value as Json;
use serde_yaml::Value as Yaml;

use crate::config::SidecarConfig;

/// Largest configuration file in bytes: four times what a `ConfigMap` holds.
pub const MAX_CONFIG_LEN: usize = 4 << 20;
/// Deepest nesting of `[` and `{`; a configuration needs four levels.
const MAX_DEPTH: usize = 32;
/// Most unknown fields that are named in one error.
const MAX_UNKNOWN: usize = 20;
const MAX_SHOWN_NAME: usize = 64;

/// Why a configuration file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// More than [`MAX_CONFIG_LEN`] bytes.
    #[error(
        "the configuration has {0} bytes, at most {MAX_CONFIG_LEN} are read; remove rules, or join them by captures"
    )]
    TooLarge(usize),
    /// YAML anchors let a small file unfold to gigabytes, so they are not read at all.
    #[error(
        "line {line}: YAML anchors and aliases are not read in a configuration file; write the value out, or write `&` in a text as \"\\x26\""
    )]
    Anchor {
        /// Line of the `&`, counted from 1.
        line: usize,
    },
    /// Fields that do not exist.
    #[error("{}", join(.0))]
    UnknownFields(Vec<UnknownField>),
    /// `[` and `{` nested deeper than any configuration; the time to read them grows with the
    /// square of the depth.
    #[error("line {line}: more than {MAX_DEPTH} levels of `[` and `{{`; close them")]
    TooDeep {
        /// Line where the depth is exceeded, counted from 1.
        line: usize,
    },
    /// No content at all: more likely a file that was not written to its end than a wish.
    #[error("the configuration is empty; write `{{}}` to have all defaults and no rule")]
    Empty,
    /// Not YAML, or a value of the wrong type: what was expected, line and column.
    #[error("{path}{}{message}", if .path.is_empty() { "" } else { ": " })]
    Invalid {
        /// The value in the file, such as `rules[2].ttl`; empty when it is the file itself.
        path: String,
        /// The value, what was expected, line and column.
        message: String,
    },
}

/// A field that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown field `{name}` in {}; {}", place(path), suggestion(nearest.as_deref(), known))]
pub struct UnknownField {
    /// Its name, shortened when it is long.
    pub name: String,
    /// The object it stands in, such as `rules[2]`; empty for the top level.
    pub path: String,
    /// The known field whose name is most like it, unless none is.
    pub nearest: Option<String>,
    /// All fields known there.
    pub known: Vec<String>,
}

// === impl SidecarConfig ===

impl SidecarConfig {
    /// Reads YAML or JSON. Fields that are left out get their defaults, fields that do not exist
    /// are an error.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_CONFIG_LEN {
            return Err(ConfigError::TooLarge(text.len()));
        }
        if let Some(at) = find_anchor(text.as_bytes()) {
            let line = line_of(text, at);
            return Err(ConfigError::Anchor { line });
        }
        if let Some(line) = too_deep(text) {
            return Err(ConfigError::TooDeep { line });
        }
        if text.lines().all(is_blank) {
            return Err(ConfigError::Empty);
        }
        let document = serde_yaml::Deserializer::from_str(text);
        serde_path_to_error::deserialize(document).map_err(|error| {
            let unknown = unknown_fields(text);
            if unknown.is_empty() {
                ConfigError::invalid(&error)
            } else {
                ConfigError::UnknownFields(unknown)
            }
        })
    }

    /// The JSON schema of the file, as published in `docs/reference/sidecar-config.schema.json`.
    pub fn schema() -> Schema {
        let mut schema = schemars::schema_for!(Self);
        schema.insert("title".to_owned(), "Pannier sidecar configuration".into());
        schema
    }
}

/// The line where `[` and `{` are nested too deeply for YAML to be read in reasonable time, if
/// there is one; for whoever reads YAML of others.
pub fn too_deep(text: &str) -> Option<usize> {
    find_deep(text.as_bytes()).map(|at| line_of(text, at))
}

/// Where brackets are nested too deeply. Brackets in texts count as well: patterns close theirs.
fn find_deep(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    text.iter().position(|byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MAX_DEPTH
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].split(|byte| *byte == b'\n').count()
}

/// A line without content: empty, a comment, or the mark of a document.
fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line == "---" || line == "..."
}

/// Offset of an `&` that may define an anchor. An alias works only after its anchor, so without
/// anchors nothing unfolds. After a letter or digit `&` is part of a text in all contexts of YAML;
/// elsewhere it may be one too, which is refused rather than analysed.
fn find_anchor(text: &[u8]) -> Option<usize> {
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (0..text.len()).find(|&at| {
        text[at] == b'&'
            && text.get(at + 1).is_some_and(named)
            && !(at > 0 && text[at - 1].is_ascii_alphanumeric())
    })
}

/// All unknown fields of a document that could not be read, by comparing it with the schema.
fn unknown_fields(text: &str) -> Vec<UnknownField> {
    let Ok(document) = serde_yaml::from_str::<Yaml>(text) else {
        return Vec::new();
    };
    let schema = SidecarConfig::schema();
    let mut unknown = Vec::new();
    compare(
        &document,
        schema.as_value(),
        schema.as_value(),
        "",
        &mut unknown,
    );
    unknown
}

fn compare(value: &Yaml, schema: &Json, root: &Json, path: &str, unknown: &mut Vec<UnknownField>) {
    let schema = resolve(schema, root);
    match value {
        Yaml::Mapping(fields) => {
            let Some(known) = schema["properties"].as_object() else {
                return;
            };
            for (name, value) in fields {
                let Some(name) = name.as_str() else { continue };
                if unknown.len() >= MAX_UNKNOWN {
                    return;
                }
                match known.get(name) {
                    Some(schema) => {
                        let dot = if path.is_empty() { "" } else { "." };
                        compare(value, schema, root, &format!("{path}{dot}{name}"), unknown);
                    }
                    None => unknown.push(UnknownField::new(name, path, known.keys())),
                }
            }
        }
        Yaml::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                if unknown.len() >= MAX_UNKNOWN {
                    return;
                }
                compare(
                    item,
                    &schema["items"],
                    root,
                    &format!("{path}[{index}]"),
                    unknown,
                );
            }
        }
        _ => {}
    }
}

/// Follows `$ref`, and the object in `anyOf: [object, null]`, which is how schemars writes
/// optional objects.
fn resolve<'a>(schema: &'a Json, root: &'a Json) -> &'a Json {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.trim_start_matches('#');
        return root.pointer(pointer).unwrap_or(&Json::Null);
    }
    match schema["anyOf"].as_array() {
        Some(choices) => choices
            .iter()
            .find(|choice| choice["$ref"].is_string())
            .map_or(schema, |choice| resolve(choice, root)),
        None => schema,
    }
}

// === impl ConfigError ===

impl ConfigError {
    fn invalid(error: &serde_path_to_error::Error<serde_yaml::Error>) -> Self {
        let path = match error.path().to_string() {
            root if root == "." => String::new(),
            path => path,
        };
        let message = error.inner().to_string();
        // The library names a path as well, but not always to its end.
        let message = match message.split_once(": ") {
            Some((known, rest)) if path.starts_with(known) => rest.to_owned(),
            _ => message,
        };
        Self::Invalid { path, message }
    }
}

// === impl UnknownField ===

impl UnknownField {
    fn new<'a>(name: &str, path: &str, known: impl Iterator<Item = &'a String>) -> Self {
        let shown: String = name.chars().take(MAX_SHOWN_NAME).collect();
        // `max_staleness` and `MaxStaleness` are near `maxStaleness`.
        let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
        let asked = plain(&shown);
        let known: Vec<String> = known.cloned().collect();
        let nearest = known
            .iter()
            .map(|name| (strsim::osa_distance(&plain(name), &asked), name))
            .min()
            .filter(|(distance, _)| *distance <= asked.chars().count().div_ceil(2))
            .map(|(_, name)| name.clone());
        Self {
            name: shown,
            path: path.to_owned(),
            nearest,
            known,
        }
    }
}

fn place(path: &str) -> &str {
    if path.is_empty() {
        "the top level"
    } else {
        path
    }
}

fn suggestion(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known there: `{}`", known.join("`, `")),
    }
}

fn join(unknown: &[UnknownField]) -> String {
    let sentences: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    sentences.join("\n")
}

#[cfg(test)]
mod tests;
