//! What a failure means as conditions, whichever of our kinds it befell. Pure.

use crate::{
    api_error::{ApiError, Category},
    claim::ClaimError,
    conditions::{Fact, type_},
};

/// Nothing goes on until somebody changes something.
pub fn stalled(reason: &'static str, message: String) -> Vec<Fact> {
    vec![
        Fact::fails(type_::READY, reason, message.clone()),
        Fact::fails(type_::RECONCILING, reason, ""),
        Fact::holds(type_::STALLED, reason, message),
    ]
}

/// The namespace is not ours, or not known to be. `settled` as in [`of_call`].
pub fn of_claim(error: &ClaimError, settled: bool) -> Vec<Fact> {
    match error {
        ClaimError::Taken { .. } => stalled("OtherInstallation", error.to_string()),
        ClaimError::Api(error) => of_call(error, settled),
    }
}

/// A call failed. `settled`: what is told of the resource is of its present generation.
pub fn of_call(error: &ApiError, settled: bool) -> Vec<Fact> {
    let (category, message) = (error.category(), error.to_string());
    let reason = reason(category);
    // It is tried again, and refused again until somebody changes something.
    if category == Category::Refused {
        return stalled(reason, message);
    }
    let mut facts = Vec::new();
    // A hiccup of the API server is not one of the resource: Ready stays as it was, unless it
    // speaks of another generation.
    if category == Category::Forbidden || !settled {
        facts.push(Fact::fails(type_::READY, reason, message.clone()));
    }
    facts.push(Fact::holds(type_::RECONCILING, reason, message));
    facts.push(Fact::fails(type_::STALLED, "Retrying", ""));
    facts
}

const fn reason(category: Category) -> &'static str {
    match category {
        Category::Forbidden => "Forbidden",
        Category::Refused => "ApiRefused",
        Category::Conflict => "Conflict",
        Category::Gone => "NotFound",
        Category::Busy => "ApiServerBusy",
        Category::Unreachable => "ApiServerUnreachable",
    }
}

#[cfg(test)]
mod tests {
    use crds::condition::ConditionStatus::{False, True};
    use kube::core::Status;

    use super::*;

    fn failed(code: u16) -> ApiError {
        let status = Status::failure("no", "No").with_code(code);
        ApiError {
            verb: "create",
            kind: "Lease".to_owned(),
            namespace: "shop".to_owned(),
            name: "l".to_owned(),
            source: kube::Error::Api(status.boxed()),
        }
    }

    #[test]
    fn a_hiccup_leaves_ready_as_it_was_and_a_refusal_does_not() {
        for (code, settled, ready, reconciling, stalled) in [
            (500, true, None, True, False),
            (500, false, Some(False), True, False),
            (403, true, Some(False), True, False),
            (422, true, Some(False), False, True),
        ] {
            let facts = of_call(&failed(code), settled);
            let find = |type_: &str| facts.iter().find(|fact| fact.type_ == type_);
            let status = |type_: &str| find(type_).map(|fact| fact.status);
            assert_eq!(status(type_::READY), ready, "{code}");
            assert_eq!(status(type_::RECONCILING), Some(reconciling), "{code}");
            assert_eq!(status(type_::STALLED), Some(stalled), "{code}");
        }
    }
}
