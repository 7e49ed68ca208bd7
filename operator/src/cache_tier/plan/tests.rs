use super::*;
use crate::{cache_tier::observe::samples, instance::state::Role};

fn pod(ordinal: u32, role: Role) -> ObservedPod {
    samples::pod("t-shard-0", ordinal, samples::serving(role))
}

/// From three pods to two.
fn shrunk(servers: Vec<ObservedPod>) -> (u32, Plan) {
    let observed = Observed {
        servers,
        ..Observed::default()
    };
    let mut plan = Plan::default();
    let pods = shrink(0, 3, 2, &observed, &mut plan);
    (pods, plan)
}

#[test]
fn the_last_pod_is_taken_away_once_the_only_primary_is_known_to_stay() {
    use Role::{Primary, Replica};
    let (pods, plan) = shrunk(vec![pod(0, Replica), pod(1, Primary), pod(2, Replica)]);
    assert_eq!((pods, plan), (2, Plan::default()));
    let (pods, plan) = shrunk(vec![pod(0, Replica), pod(1, Replica), pod(2, Primary)]);
    assert_eq!(pods, 3);
    assert!(
        matches!(plan.steps.as_slice(), [Step::SwitchOver { pod, .. }] if pod == "t-shard-0-2"),
        "{plan:?}"
    );
    // What does not run is in nobody's way.
    let mut down = pod(2, Replica);
    down.view = View::Unknown("it has no address yet".to_owned());
    (down.ready, down.begun, down.running) = (false, false, false);
    let (pods, plan) = shrunk(vec![pod(0, Primary), pod(1, Replica), down]);
    assert_eq!((pods, plan), (2, Plan::default()));
}

#[test]
fn no_pod_is_taken_away_from_who_is_not_known_p8() {
    use Role::{Primary, Replica};
    let mut silent = pod(2, Replica);
    silent.view = View::Unknown("silence".to_owned());
    for (pods, why) in [
        (vec![pod(0, Primary), pod(1, Replica), silent], "silence"),
        (
            vec![pod(0, Primary), pod(1, Replica), pod(2, Primary)],
            "2 primaries",
        ),
        (
            vec![pod(0, Replica), pod(1, Replica), pod(2, Replica)],
            "0 primaries",
        ),
    ] {
        let (pods, plan) = shrunk(pods);
        assert_eq!((pods, &plan.steps), (3, &Vec::new()), "{why}");
        assert!(plan.waits[0].contains(why), "{:?}", plan.waits);
    }
}
