//! Reads the reply to `COMMAND`, of RESP2 or RESP3, of any server. What is not as expected is left
//! out: a module may write what it wants.

use std::borrow::Cow;

use redis::Value;

use crate::command::{BeginSearch, FindKeys, ServerCommand, ServerKeySpec};

/// The commands of a reply.
pub(super) fn rows(reply: &Value) -> Vec<ServerCommand> {
    list(reply).iter().filter_map(row).collect()
}

fn row(value: &Value) -> Option<ServerCommand> {
    let columns = list(value);
    let number = |index: usize| columns.get(index).and_then(number);
    let names = |index: usize| columns.get(index).map(texts).unwrap_or_default();
    Some(ServerCommand {
        name: text(columns.first()?)?,
        arity: number(1)?,
        flags: names(2),
        first_key: number(3)?,
        last_key: number(4)?,
        step: number(5)?,
        categories: names(6),
        tips: names(7),
        key_specs: columns
            .get(8)
            .map(list)
            .unwrap_or_default()
            .iter()
            .map(key_spec)
            .collect(),
        // One level only, as deep as Redis goes: a hostile reply must not recurse.
        subcommands: columns
            .get(9)
            .map(list)
            .unwrap_or_default()
            .iter()
            .filter_map(|value| match value {
                Value::Array(columns) => {
                    row(&Value::Array(columns.iter().take(9).cloned().collect()))
                }
                _ => None,
            })
            .collect(),
    })
}

fn key_spec(value: &Value) -> ServerKeySpec {
    ServerKeySpec {
        flags: get(value, "flags").map(texts).unwrap_or_default(),
        begin: get(value, "begin_search")
            .and_then(begin)
            .unwrap_or(BeginSearch::Unknown),
        find: get(value, "find_keys")
            .and_then(find)
            .unwrap_or(FindKeys::Unknown),
    }
}

fn begin(value: &Value) -> Option<BeginSearch> {
    let spec = get(value, "spec")?;
    match text(get(value, "type")?)?.as_str() {
        "index" => Some(BeginSearch::Index(small(spec, "index")?)),
        "keyword" => Some(BeginSearch::Keyword {
            word: Cow::Owned(text(get(spec, "keyword")?)?),
            start: small(spec, "startfrom")?,
        }),
        _ => None,
    }
}

fn find(value: &Value) -> Option<FindKeys> {
    let spec = get(value, "spec")?;
    match text(get(value, "type")?)?.as_str() {
        "range" => Some(FindKeys::Range {
            last: small(spec, "lastkey")?,
            step: small(spec, "keystep")?,
            limit: small(spec, "limit")?,
        }),
        "keynum" => Some(FindKeys::KeyNum {
            count_at: small(spec, "keynumidx")?,
            first: small(spec, "firstkey")?,
            step: small(spec, "keystep")?,
        }),
        _ => None,
    }
}

/// A field of a map, or of the flat list that RESP2 writes for one.
fn get<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let is = |key: &Value| text(key).as_deref() == Some(name);
    match value {
        Value::Map(pairs) => pairs
            .iter()
            .find(|(key, _)| is(key))
            .map(|(_, value)| value),
        Value::Array(items) => items
            .chunks_exact(2)
            .find(|pair| is(&pair[0]))
            .map(|pair| &pair[1]),
        _ => None,
    }
}

fn list(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => &[],
    }
}

fn texts(value: &Value) -> Vec<String> {
    list(value).iter().filter_map(text).collect()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        _ => None,
    }
}

fn small(spec: &Value, name: &str) -> Option<i32> {
    i32::try_from(number(get(spec, name)?)?).ok()
}
