//! Pods for tests of what is decided about them.

use super::{ObservedPod, View};
use crate::instance::state::{Follower, Role, Server, State};

/// What an agent says of an instance whose server does not answer yet.
pub fn state() -> State {
    serde_json::from_value(serde_json::json!({
        "tier": "ns/t", "uid": "u", "kind": "Server", "pod": "p", "address": "a",
        "version": "0", "phase": "Running", "ready": true, "notReady": null, "guard": "",
        "past": {"initialised": true, "hasData": true, "epoch": 0, "offset": 0,
            "replicationId": "", "wasPrimary": false, "clean": true},
        "dataLost": null, "server": null,
        "sentinels": {"total": 3, "answering": 3, "primary": null, "epoch": 0},
        "frozen": null, "configHash": "", "configMismatches": [], "configVerified": true,
        "credentialGeneration": null, "credentialError": null, "lastSwitchover": null,
        "followed": 0,
    }))
    .unwrap()
}

/// What an agent says of a server in that role: in step, or followed by two replicas.
pub fn serving(role: Role) -> View {
    let online = Follower {
        online: true,
        ..Follower::default()
    };
    let mut state = state();
    state.server = Some(Server {
        role: Some(role),
        synced: true,
        link_up: true,
        replicas: vec![online; 2],
        ..Server::default()
    });
    View::Known(Box::new(state))
}

/// A pod of a set, ready, and what its agent says.
pub fn pod(set: &str, ordinal: u32, view: View) -> ObservedPod {
    ObservedPod {
        name: format!("{set}-{ordinal}"),
        uid: format!("uid-{ordinal}"),
        shard: 0,
        ordinal,
        address: Some(format!("10.0.0.{ordinal}")),
        workload: None,
        mounted: None,
        ready: true,
        going: false,
        begun: true,
        running: true,
        lost_node: None,
        trouble: None,
        view,
    }
}
