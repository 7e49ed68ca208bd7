//! Tells people what changed: an event and a line in the log for each condition that is new, turned
//! or has another reason, and nothing when all stays as it was.

use crds::condition::{Condition, ConditionStatus};
use k8s_openapi::api::core::v1::ObjectReference;
use kube_runtime::events::{Event, EventType, Recorder};

use crate::conditions::{is_turn, type_};

/// Conditions that are good news when they do not hold.
const ABNORMAL: [&str; 7] = [
    type_::RECONCILING,
    type_::STALLED,
    type_::DATA_LOST,
    type_::COHERENCE_DEGRADED,
    type_::PAUSED,
    type_::CONFLICT,
    type_::SESSIONS_EVICTABLE,
];

/// Reports the difference between two lists of conditions of one resource.
pub async fn changes(
    recorder: &Recorder,
    resource: &ObjectReference,
    before: &[Condition],
    after: &[Condition],
) {
    for condition in after.iter().filter(|condition| worth(before, condition)) {
        let good = good(condition);
        let Condition {
            type_,
            status,
            reason,
            message,
            ..
        } = condition;
        let namespace = resource.namespace.as_deref().unwrap_or_default();
        let name = resource.name.as_deref().unwrap_or_default();
        if good {
            tracing::info!(namespace, name, condition = type_, ?status, reason, message);
        } else {
            tracing::warn!(namespace, name, condition = type_, ?status, reason, message);
        }
        let event = Event {
            type_: if good {
                EventType::Normal
            } else {
                EventType::Warning
            },
            reason: reason.clone(),
            note: Some(message.chars().take(1000).collect()),
            action: type_.clone(),
            secondary: None,
        };
        // Events are for convenience: without the right to write them all else goes on.
        if let Err(error) = recorder.publish(&event, resource).await {
            tracing::debug!(%error, "failed to publish an event");
        }
    }
}

/// What is new or different; what has always been well is not told.
fn worth(before: &[Condition], condition: &Condition) -> bool {
    match before.iter().find(|old| old.type_ == condition.type_) {
        Some(old) => {
            (is_turn(old, condition) || old.reason != condition.reason)
                // Progress is in the status; each of its steps as an event would be noise.
                && condition.type_ != type_::RECONCILING
        }
        None => condition.type_ != type_::RECONCILING && !good(condition),
    }
}

fn good(condition: &Condition) -> bool {
    let normal = if ABNORMAL.contains(&condition.type_.as_str()) {
        ConditionStatus::False
    } else {
        ConditionStatus::True
    };
    condition.status == normal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{Fact, merge};

    #[test]
    fn a_further_loss_of_data_is_told_and_the_same_is_not() {
        let told = |why: &str| {
            let facts = vec![
                Fact::holds(type_::DATA_LOST, "DataLost", why),
                Fact::fails(type_::READY, "NoPrimary", why),
            ];
            merge(&[], facts, &[], Some(1), "t1")
        };
        let worthy = |before: &[Condition], after: &[Condition]| -> Vec<String> {
            let worthy = after.iter().filter(|one| worth(before, one));
            worthy.map(|one| one.type_.clone()).collect()
        };
        let first = told("at 1");
        assert_eq!(worthy(&[], &first), ["DataLost", "Ready"]);
        assert_eq!(worthy(&first, &told("at 1")), [""; 0]);
        assert_eq!(worthy(&first, &told("at 2")), ["DataLost"]);
    }
}
