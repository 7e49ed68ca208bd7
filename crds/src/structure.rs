//! Checks a resource against the schema of its definition, as the API server does, and against
//! one rule more: a field that the schema does not know is an error, with the nearest known name.
//!
//! It understands what our schemas use and no more; a test compares its verdict with a complete
//! JSON-schema validator. What a schema cannot say comes after, in `validate`.

use std::fmt::Write as _;

use policy::{ByteSize, Span};
use regex_lite::Regex;
use serde_json::{Map, Value};

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Path of the field, `spec.rules[0].ttl`.
    pub path: String,
    /// What is wrong, with the value and the remedy.
    pub message: String,
}

/// All that is wrong with the form of a resource, by a schema that `envelope` completed.
pub fn check(schema: &Value, resource: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    walk(schema, resource, "", &mut findings);
    findings
}

/// Adds what the API server adds to every definition itself.
pub fn envelope(schema: &mut Value) {
    for (name, kind) in [
        ("apiVersion", "string"),
        ("kind", "string"),
        ("metadata", "object"),
    ] {
        schema["properties"][name] = serde_json::json!({ "type": kind });
    }
}

fn walk(schema: &Value, value: &Value, path: &str, findings: &mut Vec<Finding>) {
    let mut report = |message: String| {
        findings.push(Finding {
            path: path.to_owned(),
            message,
        });
    };
    let wanted = schema["type"].as_str().unwrap_or("object");
    if !has_type(value, wanted) {
        return report(wrong_type(schema, value, wanted));
    }
    match value {
        Value::String(text) => check_text(schema, text).into_iter().for_each(report),
        Value::Number(number) => check_range(schema, number).into_iter().for_each(report),
        Value::Array(items) => walk_list(schema, items, path, findings),
        Value::Object(fields) => walk_object(schema, fields, path, findings),
        Value::Null | Value::Bool(_) => {}
    }
}

// === texts and numbers ===

fn check_text(schema: &Value, text: &str) -> Option<String> {
    if let Some(words) = schema["enum"].as_array() {
        if words.iter().any(|word| word == text) {
            return None;
        }
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        return Some(format!("{text:?} is not one of {}", words.join(", ")));
    }
    let length = text.chars().count() as u64;
    if let Some(max) = schema["maxLength"].as_u64().filter(|max| length > *max) {
        return Some(format!(
            "has {length} characters, at most {max} are allowed"
        ));
    }
    if let Some(min) = schema["minLength"].as_u64().filter(|min| length < *min) {
        return Some(format!(
            "has {length} characters, at least {min} are needed"
        ));
    }
    let pattern = schema["pattern"].as_str()?;
    if Regex::new(pattern).is_ok_and(|regex| regex.is_match(text)) {
        // A number beyond all numbers, which no pattern can tell.
        return bad_number(text, pattern);
    }
    let problem = bad_number(text, pattern).or_else(|| bad_key_pattern(text, pattern));
    Some(problem.unwrap_or_else(|| format!("{text:?} does not fit{}", described(schema))))
}

/// Durations and sizes have parsers, with better words than a pattern.
fn bad_number(text: &str, pattern: &str) -> Option<String> {
    let error = match pattern {
        Span::PATTERN => text.parse::<Span>().err(),
        ByteSize::PATTERN => text.parse::<ByteSize>().err(),
        _ => None,
    };
    error.map(|error| error.to_string())
}

/// So have key patterns.
fn bad_key_pattern(text: &str, pattern: &str) -> Option<String> {
    if !pattern.contains(r"\*)$") {
        return None;
    }
    let error = policy::Pattern::parse(text).err();
    error.map(|error| error.to_string())
}

fn check_range(schema: &Value, number: &serde_json::Number) -> Option<String> {
    let value = number.as_f64()?;
    let low = schema["minimum"].as_f64().is_some_and(|min| value < min);
    let high = schema["maximum"].as_f64().is_some_and(|max| value > max);
    (low || high).then(|| {
        let mut message = format!("{number} is out of range");
        if let (Some(min), Some(max)) = (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
            let _ = write!(message, "; write a whole number from {min} to {max}");
        }
        message
    })
}

fn has_type(value: &Value, wanted: &str) -> bool {
    match wanted {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        _ => value.is_object(),
    }
}

fn wrong_type(schema: &Value, value: &Value, wanted: &str) -> String {
    if value.is_null() {
        return "is empty; give a value or remove the line".to_owned();
    }
    let wanted = match wanted {
        "string" => "a text",
        "integer" => "a whole number",
        "array" => "a list",
        "boolean" => "true or false",
        _ => "a block of fields",
    };
    let found = match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a block of fields".to_owned(),
        other => other.to_string(),
    };
    format!("must be {wanted}, not {found}{}", described(schema))
}

fn described(schema: &Value) -> String {
    match schema["description"].as_str() {
        Some(text) => format!(". {text}"),
        None => String::new(),
    }
}

// === lists and objects ===

fn walk_list(schema: &Value, items: &[Value], path: &str, findings: &mut Vec<Finding>) {
    let mut report = |path: String, message: String| findings.push(Finding { path, message });
    let count = items.len() as u64;
    if let Some(max) = schema["maxItems"].as_u64().filter(|max| count > *max) {
        report(
            path.to_owned(),
            format!("has {count} entries, at most {max} are allowed"),
        );
    }
    if let Some(min) = schema["minItems"].as_u64().filter(|min| count < *min) {
        report(
            path.to_owned(),
            format!("has {count} entries, at least {min} are needed"),
        );
    }
    let key = schema["x-kubernetes-list-map-keys"][0].as_str();
    let is_set = schema["x-kubernetes-list-type"] == "set";
    for (index, item) in items.iter().enumerate() {
        let identity = |item: &Value| match key {
            Some(key) => item.get(key).cloned(),
            None => is_set.then(|| item.clone()),
        };
        let first = items[..index]
            .iter()
            .position(|earlier| identity(item).is_some() && identity(earlier) == identity(item));
        if let Some(first) = first {
            let field = key.map(|key| format!(".{key}")).unwrap_or_default();
            let value = identity(item).unwrap_or_default();
            report(
                format!("{path}[{index}]{field}"),
                format!("{value} is there already, at {path}[{first}]; each must be different"),
            );
        }
    }
    for (index, item) in items.iter().enumerate() {
        walk(
            &schema["items"],
            item,
            &format!("{path}[{index}]"),
            findings,
        );
    }
}

fn walk_object(
    schema: &Value,
    fields: &Map<String, Value>,
    path: &str,
    findings: &mut Vec<Finding>,
) {
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    let mut report = |path: String, message: String| findings.push(Finding { path, message });
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        if !fields.contains_key(name) {
            let text = described(&schema["properties"][name]);
            report(below(name), format!("is missing{text}"));
        }
    }
    let count = fields.len() as u64;
    if let Some(max) = schema["maxProperties"].as_u64().filter(|max| count > *max) {
        report(
            path.to_owned(),
            format!("has {count} entries, at most {max} are allowed"),
        );
    }
    let known = schema["properties"].as_object();
    for (name, value) in fields {
        match (
            known.and_then(|known| known.get(name)),
            &schema["additionalProperties"],
        ) {
            (Some(field), _) => walk(field, value, &below(name), findings),
            (None, Value::Object(_)) => {
                walk(
                    &schema["additionalProperties"],
                    value,
                    &below(name),
                    findings,
                );
            }
            (None, _) if known.is_some() => {
                let names = known.into_iter().flat_map(Map::keys).map(String::as_str);
                findings.push(Finding {
                    path: below(name),
                    message: unknown(name, names),
                });
            }
            (None, _) => {}
        }
    }
}

/// "unknown field", with the nearest known name or all of them.
pub fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(name, known.iter().copied()) {
        Some(nearest) => format!("unknown field; did you mean {nearest}?"),
        None => format!("unknown field; known here: {}", known.join(", ")),
    }
}

/// The known name that was probably meant.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let (distance, nearest) = known
        .map(|one| (strsim::levenshtein(&name, &one.to_lowercase()), one))
        .min()?;
    (distance <= 1 + nearest.len() / 3).then_some(nearest)
}
