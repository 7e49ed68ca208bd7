//! What a rule must not say. A setting that could have no effect is refused, not ignored.

use std::{collections::HashMap, time::Duration};

use super::{Place, PolicyError, Problems};
use crate::{
    config::{CacheMode, OnWriteError, Rule},
    matcher::MAX_RULES,
    pattern::Pattern,
    units::Span,
};

/// Longest TTL: ten years. Redis refuses more than fits its clock; nobody means that long.
pub(super) const MAX_TTL: Span = Span(Duration::from_hours(24 * 3650));
const MAX_NAME_LEN: usize = 63;

/// Names are metric labels: they are few, short and plain, and each belongs to one rule.
pub(super) fn check_names(rules: &[Rule], problems: &mut Problems) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (index, rule) in rules.iter().enumerate().take(MAX_RULES) {
        let name = rule.name.as_str();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(plain) {
            problems.add(
                Place {
                    rule: Some((index, String::new())),
                    field: "name",
                },
                format_args!("{name:?}"),
                "the name is a metric label",
                "use 1 to 63 lower-case letters, digits and `-`",
            );
        } else if let Some(first) = seen.insert(name, index) {
            problems.add(
                place(index, rule, "name"),
                format_args!("{name:?}"),
                format!("rules[{first}] has that name as well"),
                "give each rule its own name",
            );
        }
    }
}

/// Checks one rule; its pattern when that can be read.
pub(super) fn check(index: usize, rule: &Rule, problems: &mut Problems) -> Option<Pattern> {
    check_spans(index, rule, problems);
    refuse_stale(index, rule, problems);
    match rule.cache {
        CacheMode::Bypass | CacheMode::Deny => refuse_untouched(index, rule, problems),
        CacheMode::RemoteOnly => refuse_local(index, rule, problems),
        CacheMode::LocalOnly => refuse_remote(index, rule, problems),
        CacheMode::Both => {}
    }
    if rule.max_value_size.is_some_and(|size| size.0 == 0) {
        problems.add(
            place(index, rule, "maxValueSize"),
            0,
            "no value would ever be kept locally",
            "use `cache: RemoteOnly`, or give a size such as 64Ki",
        );
    }
    match Pattern::parse(&rule.pattern) {
        Ok(pattern) => Some(pattern),
        Err(source) => {
            let place = place(index, rule, "match");
            problems.0.push(PolicyError::Pattern { place, source });
            None
        }
    }
}

fn check_spans(index: usize, rule: &Rule, problems: &mut Problems) {
    for (field, span) in [
        ("ttl", rule.ttl),
        ("localTtl", rule.local_ttl),
        ("negativeTtl", rule.negative_ttl),
        ("stale.ifError", if_error(rule)),
    ] {
        if let Some(span) = span {
            check_ttl(place(index, rule, field), span, problems);
        }
    }
}

/// A TTL that can be given to Redis.
pub(super) fn check_ttl(place: Place, span: Span, problems: &mut Problems) {
    let field = place.field;
    if span.0.is_zero() {
        let reason = "keys would expire at once";
        problems.add(
            place,
            span,
            reason,
            format!("give a span such as 5m, or leave {field} out"),
        );
    } else if span > MAX_TTL {
        let reason = format!("longer than {MAX_TTL}");
        problems.add(
            place,
            span,
            reason,
            format!("give a shorter span, or leave {field} out"),
        );
    }
}

/// `Bypass` and `Deny` do nothing that the other fields could shape.
fn refuse_untouched(index: usize, rule: &Rule, problems: &mut Problems) {
    let what = match rule.cache {
        CacheMode::Deny => "`cache: Deny` refuses every command on these keys",
        _ => "`cache: Bypass` passes these keys through untouched",
    };
    for (field, span) in [
        ("ttl", rule.ttl),
        ("localTtl", rule.local_ttl),
        ("negativeTtl", rule.negative_ttl),
    ] {
        if let Some(span) = span {
            refuse(place(index, rule, field), span, what, problems);
        }
    }
    if let Some(size) = rule.max_value_size {
        refuse(place(index, rule, "maxValueSize"), size, what, problems);
    }
    if rule.on_write_error == OnWriteError::Log {
        refuse(place(index, rule, "onWriteError"), "Log", what, problems);
    }
}

fn refuse_local(index: usize, rule: &Rule, problems: &mut Problems) {
    let what = "`cache: RemoteOnly` keeps nothing locally";
    for (field, span) in [
        ("localTtl", rule.local_ttl),
        ("negativeTtl", rule.negative_ttl),
    ] {
        if let Some(span) = span {
            refuse(place(index, rule, field), span, what, problems);
        }
    }
    if let Some(size) = rule.max_value_size {
        refuse(place(index, rule, "maxValueSize"), size, what, problems);
    }
}

fn refuse_remote(index: usize, rule: &Rule, problems: &mut Problems) {
    if let Some(span) = rule.negative_ttl {
        let what = "with `cache: LocalOnly` there is no Redis to ask, so nothing to remember";
        refuse(place(index, rule, "negativeTtl"), span, what, problems);
    }
    if let (Some(ttl), Some(local)) = (rule.ttl, rule.local_ttl)
        && ttl != local
    {
        problems.add(
            place(index, rule, "localTtl"),
            local,
            format!("with `cache: LocalOnly` an entry has one life, and ttl says {ttl}"),
            "remove localTtl",
        );
    }
}

fn if_error(rule: &Rule) -> Option<Span> {
    rule.stale.and_then(|stale| stale.if_error)
}

/// Only what is kept on behalf of Redis can be served in its place.
fn refuse_stale(index: usize, rule: &Rule, problems: &mut Problems) {
    if let Some(span) = if_error(rule).filter(|_| rule.cache != CacheMode::Both) {
        let what = "only with `cache: Both` is there a local entry to serve while Redis fails";
        refuse(place(index, rule, "stale.ifError"), span, what, problems);
    }
}

fn refuse(place: Place, value: impl std::fmt::Display, what: &str, problems: &mut Problems) {
    let remedy = format!("remove {}, or change cache", place.field);
    problems.add(place, value, what, remedy);
}

fn place(index: usize, rule: &Rule, field: &'static str) -> Place {
    Place {
        rule: Some((index, rule.name.clone())),
        field,
    }
}
