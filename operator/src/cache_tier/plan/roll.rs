//! Which pod is made anew next: replicas first, then the primary hands over, the old primary last.
//! A pod that does not come up stops everything but its own replacement: so a revert heals. Pure.

use super::{ShardPlan, Step, unknown};
use crate::cache_tier::{
    build::Workload,
    observe::{Observed, ObservedPod},
};

type Next = (Option<Step>, Option<String>);

/// Sentinels: one at a time, and only while all others are ready.
pub(super) fn sentinels(wanted: u32, workload: &Workload, observed: &Observed) -> Next {
    let old = |pod: &&ObservedPod| pod.workload.as_deref() != Some(&workload.sentinel);
    let pods = &observed.sentinels;
    if !pods.iter().any(|pod| old(&pod)) {
        return (None, None);
    }
    if let Some(pod) = pods.iter().find(|pod| pod.going) {
        return wait(format!("{} is being replaced", pod.name));
    }
    // One that does not run anyway goes first; then those that do.
    let broken = pods.iter().find(|pod| old(pod) && !pod.ready);
    if let Some(pod) = pods.iter().find(|pod| !pod.ready && !old(pod)) {
        return wait(format!(
            "Sentinel {} does not come up{}",
            pod.name,
            because(pod)
        ));
    }
    if let Some(pod) = broken {
        return (Some(replace(pod)), None);
    }
    if let Some(why) = missing(wanted, pods.iter()) {
        return wait(why);
    }
    (pods.iter().rev().find(old).map(replace), None)
}

/// The pods of a shard.
pub(super) fn shard(shard: &ShardPlan, workload: &Workload, observed: &Observed) -> Next {
    let old = |pod: &&ObservedPod| pod.workload.as_deref() != Some(&workload.server);
    let pods: Vec<&ObservedPod> = observed
        .servers
        .iter()
        .filter(|pod| pod.shard == shard.index)
        .collect();
    if !pods.iter().any(old) {
        return (None, None);
    }
    if let Some(pod) = pods.iter().find(|pod| pod.going) {
        return wait(format!("{} is being replaced", pod.name));
    }
    // Nothing of it runs, so nothing is lost with it; another attempt may be what heals it.
    if let Some(pod) = pods.iter().find(|pod| old(pod) && pod.is_down()) {
        return (Some(replace(pod)), None);
    }
    if let Some(pod) = pods.iter().find(|pod| !pod.ready && !old(pod)) {
        return wait(format!(
            "{} does not come up{}; nothing else is replaced",
            pod.name,
            because(pod)
        ));
    }
    if let Some(why) = pods.iter().copied().find_map(unknown) {
        return wait(format!("not known: {why}"));
    }
    let primaries: Vec<&&ObservedPod> = pods.iter().filter(|pod| pod.is_primary()).collect();
    let [primary] = primaries.as_slice() else {
        return wait(format!(
            "shard {} has {} primaries; nothing is replaced",
            shard.index,
            primaries.len()
        ));
    };
    let online = primary.server().map_or(0, |server| {
        server.replicas.iter().filter(|one| one.online).count()
    });
    // A replica says a moment earlier that it is in step than its primary counts it. One more that
    // goes in that moment leaves too few for writes to be accepted.
    let all_follow = online + 1 >= pods.len();
    let outdated = pods
        .iter()
        .rev()
        .filter(|pod| old(pod) && !pod.is_primary());
    let outdated = outdated.min_by_key(|pod| pod.ready);
    // One that does not serve goes first: it may be what keeps another from being made.
    if let Some(replica) = outdated.filter(|pod| !pod.ready) {
        return (Some(replace(replica)), None);
    }
    if let Some(why) = missing(shard.pods, pods.iter().copied()) {
        return wait(why);
    }
    if let Some(replica) = outdated {
        if !all_follow {
            return wait(format!(
                "{} does not see all of its replicas in step yet",
                primary.name
            ));
        }
        return (Some(replace(replica)), None);
    }
    // Only the primary is left.
    if pods.len() == 1 {
        return (Some(replace(primary)), None);
    }
    if all_follow && pods.iter().any(|pod| pod.is_in_sync()) {
        (switch_over(primary), None)
    } else {
        wait(format!(
            "{} is the primary and is replaced last: no replica is in step with it yet",
            primary.name
        ))
    }
}

pub(super) fn switch_over(primary: &ObservedPod) -> Option<Step> {
    Some(Step::SwitchOver {
        pod: primary.name.clone(),
        address: primary.address.clone()?,
    })
}

fn replace(pod: &ObservedPod) -> Step {
    Step::Replace {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
    }
}

/// A pod that its set should have made: while it is not there, one less may be taken from those
/// that serve. A set makes what is missing as it is wanted now, so what is old is not in its way.
fn missing<'a>(wanted: u32, pods: impl Iterator<Item = &'a ObservedPod>) -> Option<String> {
    let pods: Vec<&ObservedPod> = pods.collect();
    let (set, _) = pods.first()?.name.rsplit_once('-')?;
    let is_missing = |ordinal: &u32| pods.iter().all(|pod| pod.ordinal != *ordinal);
    let ordinal = (0..wanted).find(is_missing)?;
    Some(format!(
        "{set}-{ordinal} is not there; kubectl describe statefulset {set} says why"
    ))
}

fn because(pod: &ObservedPod) -> String {
    let trouble = pod.trouble.as_ref();
    trouble.map_or_else(String::new, |why| format!(" ({why})"))
}

fn wait(why: String) -> Next {
    (None, Some(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache_tier::observe::{
            View,
            samples::{self, serving as state},
        },
        instance::state::Role,
    };

    fn pod(ordinal: u32, workload: &str, view: View) -> ObservedPod {
        ObservedPod {
            workload: Some(workload.to_owned()),
            ..samples::pod("t-shard-0", ordinal, view)
        }
    }

    fn next(servers: Vec<ObservedPod>) -> Next {
        let wanted = servers.len();
        next_of(u32::try_from(wanted).unwrap(), servers)
    }

    fn next_of(pods: u32, servers: Vec<ObservedPod>) -> Next {
        let workload = Workload {
            server: "new".to_owned(),
            sentinel: "new".to_owned(),
        };
        let observed = Observed {
            servers,
            ..Observed::default()
        };
        shard(&ShardPlan { index: 0, pods }, &workload, &observed)
    }

    fn replaced(next: &Next) -> Option<&str> {
        match next {
            (Some(Step::Replace { pod, .. }), None) => Some(pod),
            _ => None,
        }
    }

    #[test]
    fn replicas_go_first_then_the_primary_hands_over_and_goes_last() {
        let (primary, replica) = (|| state(Role::Primary), || state(Role::Replica));
        let all_old = vec![
            pod(0, "old", replica()),
            pod(1, "old", primary()),
            pod(2, "old", replica()),
        ];
        assert_eq!(replaced(&next(all_old)), Some("t-shard-0-2"));
        let one_left = vec![
            pod(0, "old", replica()),
            pod(1, "old", primary()),
            pod(2, "new", replica()),
        ];
        assert_eq!(replaced(&next(one_left)), Some("t-shard-0-0"));
        let primary_left = vec![
            pod(0, "new", replica()),
            pod(1, "old", primary()),
            pod(2, "new", replica()),
        ];
        assert!(
            matches!(next(primary_left), (Some(Step::SwitchOver { pod, .. }), None) if pod == "t-shard-0-1")
        );
        let handed_over = vec![
            pod(0, "new", primary()),
            pod(1, "old", replica()),
            pod(2, "new", replica()),
        ];
        assert_eq!(replaced(&next(handed_over)), Some("t-shard-0-1"));
        let done = vec![pod(0, "new", primary()), pod(1, "new", replica())];
        assert_eq!(next(done), (None, None));
    }

    #[test]
    fn nothing_that_is_unknown_is_replaced_p8() {
        let silent = || View::Unknown("silence".to_owned());
        for pods in [
            vec![pod(0, "old", state(Role::Primary)), pod(1, "old", silent())],
            vec![pod(0, "old", silent())],
            vec![
                pod(0, "old", state(Role::Primary)),
                pod(1, "old", state(Role::Primary)),
            ],
            vec![
                pod(0, "old", state(Role::Replica)),
                pod(1, "old", state(Role::Replica)),
            ],
        ] {
            let (step, wait) = next(pods);
            assert_eq!(step, None);
            assert!(wait.is_some());
        }
    }

    #[test]
    fn the_first_pod_that_does_not_come_up_stops_the_rest_and_a_revert_heals() {
        let mut broken = pod(1, "new", View::Unknown("no address".to_owned()));
        broken.ready = false;
        broken.begun = false;
        let (step, wait) = next(vec![pod(0, "old", state(Role::Primary)), broken.clone()]);
        assert_eq!(step, None);
        assert!(wait.unwrap().contains("does not come up"));
        // After the revert the broken one is the outdated one.
        broken.workload = Some("other".to_owned());
        let healed = next(vec![pod(0, "new", state(Role::Primary)), broken]);
        assert_eq!(replaced(&healed), Some("t-shard-0-1"));
    }

    #[test]
    fn a_revert_heals_a_server_that_began_and_ended_and_no_other() {
        let mut ended = pod(1, "bad", View::Unknown("CrashLoopBackOff".to_owned()));
        (ended.ready, ended.running) = (false, false);
        let beside = |ended: &ObservedPod| {
            let primary = pod(0, "new", state(Role::Primary));
            next(vec![primary, ended.clone()])
        };
        assert_eq!(replaced(&beside(&ended)), Some("t-shard-0-1"));
        assert_eq!(replaced(&next(vec![ended.clone()])), Some("t-shard-0-1"));
        let running = ObservedPod {
            running: true,
            ..ended.clone()
        };
        let answers = ObservedPod {
            view: View::Known(Box::new(samples::state())),
            ..ended.clone()
        };
        let lost = ObservedPod {
            lost_node: Some("node1".to_owned()),
            ..ended
        };
        for stays in [running, answers, lost] {
            let (step, wait) = beside(&stays);
            assert_eq!(step, None, "{stays:?}");
            assert!(wait.is_some(), "{stays:?}");
        }
    }

    #[test]
    fn nothing_that_serves_is_taken_away_while_a_pod_is_missing() {
        let (primary, replica) = (|| state(Role::Primary), || state(Role::Replica));
        for pods in [
            vec![pod(0, "old", primary()), pod(2, "old", replica())],
            vec![pod(0, "old", primary()), pod(2, "new", replica())],
            vec![pod(0, "old", primary())],
        ] {
            let (step, wait) = next_of(3, pods);
            assert_eq!(step, None);
            let wait = wait.unwrap();
            assert!(wait.starts_with("t-shard-0-1 is not there"), "{wait}");
        }
        // One that does not serve may be what is in the way.
        let mut idle = pod(2, "old", replica());
        idle.ready = false;
        let next = next_of(3, vec![pod(0, "old", primary()), idle]);
        assert_eq!(replaced(&next), Some("t-shard-0-2"));
    }

    #[test]
    fn a_primary_without_a_replica_in_step_stays() {
        let View::Known(mut behind) = state(Role::Replica) else {
            panic!("known")
        };
        behind.server.as_mut().unwrap().link_up = false;
        let pods = vec![
            pod(0, "old", state(Role::Primary)),
            pod(1, "new", View::Known(behind)),
        ];
        let (step, wait) = next(pods);
        assert_eq!(step, None);
        assert!(wait.unwrap().contains("in step"));
    }

    #[test]
    fn a_replica_stays_until_its_primary_counts_all_of_them() {
        let seen = |count| {
            let View::Known(mut primary) = state(Role::Primary) else {
                panic!("known")
            };
            primary.server.as_mut().unwrap().replicas.truncate(count);
            next(vec![
                pod(0, "old", state(Role::Replica)),
                pod(1, "old", View::Known(primary)),
                pod(2, "new", state(Role::Replica)),
            ])
        };
        let (step, wait) = seen(1);
        assert_eq!(step, None);
        assert!(wait.unwrap().contains("all of its replicas"));
        assert_eq!(replaced(&seen(2)), Some("t-shard-0-0"));
    }
}
