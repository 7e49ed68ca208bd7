//! What a schema cannot say about our kinds.
//!
//! Each invariant is written twice, side by side: as a CEL rule, which the API server runs, and
//! as a function, which the local run calls, because a CEL interpreter is too heavy for a
//! sidecar. The case table in `tests/` proves that the two agree on every case.

mod cache_tier;
mod session_policy;

use policy::{ByteSize, Span};
use serde_json::Value;

pub use self::{cache_tier::cache_tier, session_policy::session_policy};

/// One rule about the object at a place in the spec.
pub struct Invariant {
    /// Where the object is: empty for the spec, `redis`, `rules[]` for each rule.
    pub at: &'static str,
    /// The field that the message is about, below `at`; empty when it is the object itself.
    pub field: &'static str,
    /// The rule in CEL; `self` is the object, `oldSelf` the object before an update.
    pub cel: String,
    /// Names the field and the remedy.
    pub message: String,
    /// The rule again: the object and, on an update, the object before.
    pub holds: Holds,
}

/// Whether an object satisfies a rule: the object and, on an update, the object before.
pub type Holds = Box<dyn Fn(&Value, Option<&Value>) -> bool>;

/// A rule about one object.
fn rule(
    at: &'static str,
    field: &'static str,
    cel: impl Into<String>,
    message: impl Into<String>,
    holds: impl Fn(&Value) -> bool + 'static,
) -> Invariant {
    Invariant {
        at,
        field,
        cel: cel.into(),
        message: message.into(),
        holds: Box::new(move |object, _| holds(object)),
    }
}

/// A rule about a change; a new object always passes.
fn transition(
    at: &'static str,
    field: &'static str,
    cel: impl Into<String>,
    message: impl Into<String>,
    holds: impl Fn(&Value, &Value) -> bool + 'static,
) -> Invariant {
    Invariant {
        at,
        field,
        cel: cel.into(),
        message: message.into(),
        holds: Box::new(move |new, old| old.is_none_or(|old| holds(new, old))),
    }
}

/// A duration that must not be zero.
fn positive(at: &'static str, field: &'static str, remedy: &str) -> Invariant {
    let name = if at.is_empty() {
        field.to_owned()
    } else {
        format!("{at}.{field}")
    };
    rule(
        at,
        field,
        format!("!has(self.{field}) || !self.{field}.matches('^(0+(ms|s|m|h|d))+$')"),
        format!("{name} must be longer than 0; {remedy}"),
        move |object| span(object, field).is_none_or(|span| !span.0.is_zero()),
    )
}

/// A duration that must not exceed another one, where both are given.
fn ordered(at: &'static str, short: &'static str, long: &'static str, message: &str) -> Invariant {
    let present = |path: &str| {
        let mut steps = Vec::new();
        for (end, _) in path
            .match_indices('.')
            .chain(std::iter::once((path.len(), "")))
        {
            steps.push(format!("!has(self.{})", &path[..end]));
        }
        steps.join(" || ")
    };
    let absent = [short, long].map(present).join(" || ");
    let [a, b] = [short, long].map(|path| format!("self.{path}"));
    // Units in another order than d, h, m, s, ms are left to the local check: CEL knows no days.
    let usual = |text: &str| format!("!{text}.matches('{USUAL_ORDER}')");
    rule(
        at,
        "",
        format!(
            "{absent} || {} || {} || {}",
            usual(&a),
            usual(&b),
            at_most_in_cel(&a, &b)
        ),
        message,
        move |object| match (span(object, short), span(object, long)) {
            (Some(short), Some(long)) => short <= long,
            _ => true,
        },
    )
}

const USUAL_ORDER: &str = "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";

/// Whether one duration is at most another. CEL's `duration()` does not know days: where there
/// are some, whole seconds are compared. `substring` is used because the API server can bound
/// its cost, unlike that of `split`.
fn at_most_in_cel(a: &str, b: &str) -> String {
    let seconds = |text: &str| {
        format!(
            "({text}.contains('d') ? int({text}.substring(0, {text}.indexOf('d'))) * 86400 + \
             ({text}.endsWith('d') ? 0 : duration({text}.substring({text}.indexOf('d') + 1)).getSeconds()) \
             : duration({text}).getSeconds())"
        )
    };
    format!(
        "({a}.contains('d') || {b}.contains('d') ? {} <= {} : duration({a}) <= duration({b}))",
        seconds(a),
        seconds(b)
    )
}

// === reading an object; a path is names joined by dots ===

fn get<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |at, name| at.get(name))
}

fn has(object: &Value, path: &str) -> bool {
    get(object, path).is_some()
}

fn is(object: &Value, path: &str, text: &str) -> bool {
    get(object, path).and_then(Value::as_str) == Some(text)
}

fn any_of(object: &Value, path: &str, texts: &[&str]) -> bool {
    texts.iter().any(|text| is(object, path, text))
}

fn span(object: &Value, path: &str) -> Option<Span> {
    get(object, path)?.as_str()?.parse().ok()
}

fn size(object: &Value, path: &str) -> Option<ByteSize> {
    get(object, path)?.as_str()?.parse().ok()
}

fn number(object: &Value, path: &str) -> Option<u64> {
    get(object, path)?.as_u64()
}
