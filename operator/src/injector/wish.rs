//! Second step, pure: which sidecar the labels ask for. Both labels are read from the same place:
//! from the pod, if it has the first one, else from the namespace.

use std::collections::BTreeMap;

use policy::names;

use super::TierName;

/// Labels of a pod or a namespace.
pub type Labels = BTreeMap<String, String>;

/// What labels ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// No sidecar.
    Nothing,
    /// The sidecar of a tier.
    Sidecar(TierName),
}

/// What the labels of a pod in a namespace ask for.
pub fn wish(pod: &Labels, in_namespace: &Labels, namespace: &str) -> Wish {
    let place = if pod.contains_key(names::INJECT) {
        pod
    } else {
        in_namespace
    };
    let value = |label: &str| {
        let value = place.get(label).map(String::as_str);
        value.filter(|value| !value.is_empty())
    };
    match value(names::INJECT) {
        None | Some(names::DISABLED) => Wish::Nothing,
        Some(name) => Wish::Sidecar(TierName {
            namespace: value(names::TIER_NAMESPACE).unwrap_or(namespace).to_owned(),
            name: name.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn the_pod_wins_over_its_namespace_and_both_labels_come_from_one_place() {
        let sidecar = |namespace: &str, name: &str| {
            Wish::Sidecar(TierName {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        };
        let here = names::INJECT;
        let there = names::TIER_NAMESPACE;
        for (pod, namespace, wanted) in [
            (vec![], vec![], Wish::Nothing),
            (vec![(here, "a")], vec![], sidecar("app", "a")),
            (
                vec![],
                vec![(here, "b"), (there, "platform")],
                sidecar("platform", "b"),
            ),
            (
                vec![(here, "a")],
                vec![(here, "b"), (there, "platform")],
                sidecar("app", "a"),
            ),
            (vec![(here, "disabled")], vec![(here, "b")], Wish::Nothing),
            (
                vec![(here, "a")],
                vec![(here, "disabled")],
                sidecar("app", "a"),
            ),
            (vec![(there, "x")], vec![(here, "b")], sidecar("app", "b")),
            (vec![(here, "")], vec![(here, "b")], Wish::Nothing),
            (vec![(here, "a"), (there, "x")], vec![], sidecar("x", "a")),
        ] {
            let found = wish(&labels(&pod), &labels(&namespace), "app");
            assert_eq!(found, wanted, "{pod:?} {namespace:?}");
        }
    }
}
