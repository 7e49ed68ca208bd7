//! What the probes answer. Liveness is about this process and its server only: a partition, a
//! guard that waits and data that load are no reason to kill it.

use std::time::Duration;

use super::{
    config::Kind,
    shared::Shared,
    state::{Phase, Role, State},
};

/// A server that neither answers nor says that it is loading for so long is stuck for good;
/// Sentinels have replaced it long before.
const STUCK: Duration = Duration::from_secs(90);

/// Whether the container should go on living.
pub fn live(shared: &Shared) -> Result<(), String> {
    let silence = shared.silence();
    if silence < STUCK {
        return Ok(());
    }
    Err(format!(
        "the server has not answered for {} s and does not say that it is loading",
        silence.as_secs()
    ))
}

/// Whether clients and peers may count on the instance.
pub fn ready(state: &State, terminating: bool) -> Result<(), String> {
    if terminating {
        return Err("the pod is going away".to_owned());
    }
    if state.phase != Phase::Running {
        return Err(match state.phase {
            Phase::Guarding => format!("the boot guard waits: {}", state.guard),
            _ => "the server has not answered yet".to_owned(),
        });
    }
    let Some(server) = &state.server else {
        return Err("the server does not answer".to_owned());
    };
    if state.kind == Kind::Sentinel {
        let primary = state.sentinels.primary.as_ref();
        return primary
            .map(|_| ())
            .ok_or("it watches no primary".to_owned());
    }
    if server.loading {
        return Err("the server is loading its data".to_owned());
    }
    match server.role {
        Some(Role::Primary) => Ok(()),
        Some(Role::Replica) if server.synced => Ok(()),
        Some(Role::Replica) => Err("the replica has not been in step once yet".to_owned()),
        None => Err("the server does not say its role".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::state::{Server, tests};

    fn state(role: Role, synced: bool, loading: bool) -> State {
        let mut state = tests::state();
        state.phase = Phase::Running;
        state.server = Some(Server {
            role: Some(role),
            synced,
            loading,
            ..Server::default()
        });
        state
    }

    #[test]
    fn a_primary_is_ready_and_a_replica_once_it_was_in_step() {
        assert_eq!(ready(&state(Role::Primary, true, false), false), Ok(()));
        assert_eq!(ready(&state(Role::Replica, true, false), false), Ok(()));
        let error = ready(&state(Role::Replica, false, false), false).unwrap_err();
        assert!(error.contains("in step"), "{error}");
    }

    #[test]
    fn loading_guarding_and_going_away_are_not_ready() {
        assert!(ready(&state(Role::Primary, true, true), false).is_err());
        assert!(ready(&state(Role::Primary, true, false), true).is_err());
        let mut guarding = state(Role::Primary, true, false);
        guarding.phase = Phase::Guarding;
        "nobody answers".clone_into(&mut guarding.guard);
        let error = ready(&guarding, false).unwrap_err();
        assert!(error.contains("nobody answers"), "{error}");
    }
}
