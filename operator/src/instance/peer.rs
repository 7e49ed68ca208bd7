//! What another pod's agent says about itself, `GET /state`. It answers while its server does not
//! run, which is when a guard needs it most.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1::handshake, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{
    guard::Says,
    shared::Shared,
    state::{Phase, Role, State},
};

/// Longest time for all of it.
const PATIENCE: Duration = Duration::from_millis(1200);
/// Largest state.
const LIMIT: usize = 256 * 1024;

/// The state of the agent at `host`; none, if it does not answer.
pub async fn ask(shared: &Shared, host: &str) -> Option<State> {
    timeout(PATIENCE, get(shared, host)).await.ok()?
}

async fn get(shared: &Shared, host: &str) -> Option<State> {
    let address = shared.addresses.of(host, shared.config.http_port).await?;
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    let driver = tokio::spawn(connection);
    let request = Request::get("/state")
        .header(HOST, host)
        .body(Empty::<Bytes>::new())
        .ok()?;
    let body = match sender.send_request(request).await {
        Ok(response) => Limited::new(response.into_body(), LIMIT)
            .collect()
            .await
            .ok(),
        Err(_) => None,
    };
    driver.abort();
    let state: State = serde_json::from_slice(&body?.to_bytes()).ok()?;
    // An address that was given to a pod of another tier is nobody we know.
    (state.tier == shared.config.tier && state.address == host).then_some(state)
}

/// What the guard takes from it; none where it may be and hold anything: its server does not answer,
/// or is filled by its primary just now.
pub fn says(state: &State) -> Option<Says> {
    let mut past = state.past.clone();
    if state.phase == Phase::Guarding {
        return Some(Says {
            past,
            ..Says::default()
        });
    }
    let server = state.server.as_ref()?;
    if server.loading && server.role == Some(Role::Replica) {
        return None;
    }
    past.offset = server.offset;
    Some(Says {
        role: server.role,
        follows: server.primary.clone(),
        synced: server.synced && !server.loading,
        frozen: state.frozen.is_some(),
        past,
        streams: vec![
            server.replication_id.clone(),
            server.replication_id2.clone(),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::state::{Server, tests};

    #[test]
    fn p8_a_peer_whose_server_does_not_answer_or_is_being_filled_is_not_known_to_be_empty() {
        let mut state = tests::state();
        assert!(says(&state).is_some(), "its guard waits");
        state.phase = Phase::Running;
        assert!(says(&state).is_none(), "it missed an INFO");
        let mut replica = Server {
            role: Some(Role::Replica),
            loading: true,
            ..Server::default()
        };
        state.server = Some(replica.clone());
        assert!(says(&state).is_none(), "it is filled");
        replica.loading = false;
        replica.synced = true;
        state.server = Some(replica);
        assert!(says(&state).is_some_and(|says| says.synced));
    }
}
