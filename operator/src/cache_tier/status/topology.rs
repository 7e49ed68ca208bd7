//! Whether a tier's servers are what they should be to each other, and what a person can do where
//! nothing may be done without one. Pure.

use crate::{
    cache_tier::{
        Progress,
        observe::{ObservedPod, View},
        validate::Servers,
    },
    conditions::{Fact, type_},
};

/// One primary that accepts writes, every replica in step, and all Sentinels.
pub(super) fn fact(progress: &Progress, servers: &Servers) -> Fact {
    let Some((reason, mut why)) = problem(progress, servers) else {
        return Fact::holds(type_::TOPOLOGY_HEALTHY, "Healthy", "");
    };
    let pods = progress.observed.servers.iter();
    why.extend(lost_nodes(pods.chain(&progress.observed.sentinels)));
    Fact::fails(type_::TOPOLOGY_HEALTHY, reason, why.join("; "))
}

fn problem(progress: &Progress, servers: &Servers) -> Option<(&'static str, Vec<String>)> {
    let pods = &progress.observed.servers;
    let primaries: Vec<&ObservedPod> = pods.iter().filter(|pod| pod.is_primary()).collect();
    let silent = silent(progress);
    let primary = match primaries.as_slice() {
        [] => {
            let mut why = vec!["no server is known to be the primary".to_owned()];
            why.extend(silent);
            return Some(("NoPrimary", why));
        }
        [primary] => primary,
        several => {
            let names: Vec<&str> = several.iter().map(|pod| pod.name.as_str()).collect();
            let why = format!(
                "{} say that they are the primary; the Sentinels decide which of them stays",
                names.join(" and ")
            );
            return Some(("SeveralPrimaries", vec![why]));
        }
    };
    if let Some(why) = primary.state().and_then(|state| state.frozen.as_ref()) {
        let mut all = vec![format!("{} refuses writes: {why}", primary.name)];
        all.extend(silent);
        return Some(("WritesRefused", all));
    }
    if !silent.is_empty() {
        return Some(("ServerUnknown", silent));
    }
    let behind: Vec<&str> = pods
        .iter()
        .filter(|pod| !pod.is_primary() && !pod.is_in_sync())
        .map(|pod| pod.name.as_str())
        .collect();
    if !behind.is_empty() {
        let why = format!("not in step with the primary: {}", behind.join(", "));
        return Some(("ReplicaNotInSync", vec![why]));
    }
    let sentinels = &progress.observed.sentinels;
    let answering = sentinels.iter().filter(|pod| pod.ready).count();
    let wanted = servers.sentinels as usize;
    (answering < wanted).then(|| {
        let mut why = vec![format!("{answering} of {wanted} Sentinels are ready")];
        why.extend(sentinels.iter().filter_map(|pod| {
            let trouble = pod.trouble.as_ref()?;
            Some(format!("{}: {trouble}", pod.name))
        }));
        ("SentinelMissing", why)
    })
}

/// Servers that could not be asked or do not run, and why.
pub(super) fn silent(progress: &Progress) -> Vec<String> {
    let namespace = &progress.tier.names.namespace;
    let pods = progress.observed.servers.iter();
    pods.filter_map(|pod| silence(namespace, pod)).collect()
}

fn silence(namespace: &str, pod: &ObservedPod) -> Option<String> {
    match &pod.view {
        View::Unknown(why) => Some(format!("{}: {why}", pod.name)),
        View::Known(state) if state.server.is_none() && state.loss_would_help => Some(format!(
            "{0}: {1}; only if that is gone for good: kubectl exec -n {namespace} {0} -c redis -- /pannier/bin/pannier-operator accept-loss",
            pod.name, state.guard
        )),
        View::Known(state) if state.server.is_none() => {
            Some(format!("{}: {}", pod.name, state.guard))
        }
        View::Known(_) => None,
    }
}

/// Nodes that do not answer: nobody knows whether their pods still run, so nobody starts these elsewhere
/// before a person says that the node is off.
fn lost_nodes<'a>(pods: impl Iterator<Item = &'a ObservedPod>) -> Vec<String> {
    let mut nodes: Vec<&str> = pods.filter_map(|pod| pod.lost_node.as_deref()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let advice = |node: &str| {
        format!(
            "{node} does not answer; once it is off for certain: kubectl taint nodes {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
        )
    };
    nodes.into_iter().map(advice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cache_tier::observe::samples, instance::state::State};

    fn pod(view: View) -> ObservedPod {
        ObservedPod {
            ready: false,
            going: true,
            ..samples::pod("t-shard-0", 1, view)
        }
    }

    fn unknown() -> View {
        View::Unknown("silence".to_owned())
    }

    #[test]
    fn a_node_that_does_not_answer_is_named_once_with_the_command_that_gives_it_up() {
        let mut late = pod(unknown());
        late.lost_node = Some("node2".to_owned());
        assert_eq!(lost_nodes([&pod(unknown())].into_iter()), [""; 0]);
        let said = lost_nodes([&late, &pod(unknown()), &late].into_iter());
        let [said] = said.as_slice() else {
            panic!("{said:?}")
        };
        let command =
            "kubectl taint nodes node2 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
        assert!(said.ends_with(command), "{said}");
    }

    #[test]
    fn the_command_that_gives_data_up_is_told_where_it_helps_only() {
        let guarding = |helps: bool| -> View {
            View::Known(Box::new(State {
                guard: "t-shard-0-0 may hold data".to_owned(),
                loss_would_help: helps,
                ..samples::state()
            }))
        };
        let said = |helps| silence("shop", &pod(guarding(helps))).unwrap();
        assert_eq!(said(false), "t-shard-0-1: t-shard-0-0 may hold data");
        let command = "kubectl exec -n shop t-shard-0-1 -c redis -- /pannier/bin/pannier-operator accept-loss";
        assert!(said(true).ends_with(command), "{}", said(true));
    }
}
