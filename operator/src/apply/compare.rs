//! Whether an object has everything that is wanted of it.
//!
//! Pure. The live object has more: defaults of the API server and fields of others. Those do not
//! count; a field of ours that was changed or removed does. What we no longer want shows in the
//! annotation with the hash of the wanted object, which is part of the comparison.

use serde_json::Value;

/// Whether `live` has all that `wanted` says.
pub fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| match live.get(name) {
                Some(live) => covers(live, wanted),
                None => is_nothing(wanted),
            })
        }
        (Value::Array(live), Value::Array(wanted)) => covers_list(live, wanted),
        _ => live == wanted,
    }
}

/// Lists whose entries have names are merged by the API server: entries of others are not ours
/// to judge. All other lists are one value.
fn covers_list(live: &[Value], wanted: &[Value]) -> bool {
    let named = wanted.iter().all(|item| item.get("name").is_some());
    if named && !wanted.is_empty() {
        wanted
            .iter()
            .all(|wanted| live.iter().any(|live| covers(live, wanted)))
    } else {
        live.len() == wanted.len()
            && live
                .iter()
                .zip(wanted)
                .all(|(live, wanted)| covers(live, wanted))
    }
}

/// Lays what is wanted over an object: fields of others stay, lists become ours.
pub fn lay_over(object: &mut Value, wanted: &Value) {
    match (object, wanted) {
        (Value::Object(object), Value::Object(wanted)) => {
            for (name, wanted) in wanted {
                lay_over(object.entry(name.as_str()).or_insert(Value::Null), wanted);
            }
        }
        (object, wanted) => *object = wanted.clone(),
    }
}

/// The API server leaves out what is empty.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_fields_of_others_are_no_difference() {
        let wanted = json!({"spec": {"ports": [{"name": "redis", "port": 1}], "emptyDir": {}}});
        let live = json!({
            "status": {},
            "spec": {
                "ports": [{"name": "theirs"}, {"name": "redis", "port": 1, "protocol": "TCP"}],
                "type": "ClusterIP",
            },
        });
        assert!(covers(&live, &wanted));
    }

    #[test]
    fn what_is_ours_and_was_changed_or_removed_is_a_difference() {
        let wanted = json!({"a": {"b": 1}, "c": ["x"], "d": [{"name": "n", "v": 1}]});
        for live in [
            json!({"a": {"b": 2}, "c": ["x"], "d": [{"name": "n", "v": 1}]}),
            json!({"a": {}, "c": ["x"], "d": [{"name": "n", "v": 1}]}),
            json!({"a": {"b": 1}, "c": ["x", "y"], "d": [{"name": "n", "v": 1}]}),
            json!({"a": {"b": 1}, "c": [], "d": [{"name": "n", "v": 1}]}),
            json!({"a": {"b": 1}, "c": ["x"], "d": [{"name": "n", "v": 2}]}),
            json!({"a": {"b": 1}, "c": ["x"]}),
        ] {
            assert!(!covers(&live, &wanted), "{live}");
        }
    }

    #[test]
    fn what_is_laid_over_keeps_fields_of_others_and_replaces_lists() {
        let mut object =
            json!({"a": {"theirs": 1, "ours": 1}, "ports": [{"name": "x", "port": 1}]});
        lay_over(
            &mut object,
            &json!({"a": {"ours": 2}, "ports": [{"name": "x", "port": 2}]}),
        );
        let wanted = json!({"a": {"theirs": 1, "ours": 2}, "ports": [{"name": "x", "port": 2}]});
        assert_eq!(object, wanted);
    }

    #[test]
    fn lists_without_names_are_one_value() {
        let wanted = json!([{"from": [1]}]);
        assert!(!covers(&json!([{"from": [1]}, {"from": [2]}]), &wanted));
        assert!(covers(&json!([{"from": [1], "more": 1}]), &wanted));
    }
}
