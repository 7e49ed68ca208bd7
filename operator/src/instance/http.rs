//! The agent's HTTP port: probes, metrics and state for everyone, the planned switch for those who
//! know the operator's password. Nothing that it says holds a secret, a key or a value (P10).

mod metrics;

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use super::{passwords::User, probes, shared::Shared, state::State, switchover};

/// Connections at a time: probes, peers, the operator, Prometheus.
const CONNECTIONS: usize = 64;
/// A client that takes longer to say what it wants is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// After an accept that failed, and before a wrong password is answered.
const PAUSE: Duration = Duration::from_millis(200);

type Answer = Response<Full<Bytes>>;

/// Listens where the configuration says.
pub async fn listen(shared: &Shared) -> std::io::Result<TcpListener> {
    let every = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let address = shared.identity.only.unwrap_or(every);
    crate::listen::listen(SocketAddr::new(address, shared.config.http_port)).await
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(answer(&request, &shared).await) }
        });
        tokio::spawn(async move {
            // Whoever hangs up early has no use for an error.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(permit);
        });
    }
}

async fn answer(request: &Request<Incoming>, shared: &Arc<Shared>) -> Answer {
    let path = request.uri().path();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match path {
        "/switchover" if *request.method() == Method::POST => switch(request, shared).await,
        "/switchover" => plain(StatusCode::METHOD_NOT_ALLOWED, "use POST"),
        _ if !is_read => plain(StatusCode::METHOD_NOT_ALLOWED, "use GET"),
        "/live" => probe(probes::live(shared), "live"),
        "/startup" => plain(StatusCode::OK, "the agent runs"),
        "/ready" => probe(
            probes::ready(&shared.state(), shared.is_terminating()),
            "ready",
        ),
        "/state" => json(StatusCode::OK, &whole_state(shared)),
        "/metrics" => of(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::text(&whole_state(shared)),
        ),
        _ => plain(
            StatusCode::NOT_FOUND,
            "there are /live, /startup, /ready, /state, /metrics and POST /switchover",
        ),
    }
}

/// The state, with what `/ready` would say.
fn whole_state(shared: &Shared) -> State {
    let mut state = shared.state();
    state.not_ready = probes::ready(&state, shared.is_terminating()).err();
    state.ready = state.not_ready.is_none();
    state
}

async fn switch(request: &Request<Incoming>, shared: &Arc<Shared>) -> Answer {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let knows = given.is_some_and(|given| shared.passwords().is(User::Operator, given));
    if !knows {
        sleep(PAUSE).await;
        return plain(
            StatusCode::UNAUTHORIZED,
            "say who you are: Authorization: Bearer <password of the user operator>",
        );
    }
    let done = switchover::on_command(shared).await;
    let status = match &done {
        switchover::Outcome::Switched { .. } => StatusCode::OK,
        switchover::Outcome::NotPrimary | switchover::Outcome::Busy => StatusCode::CONFLICT,
        switchover::Outcome::Failed { .. } => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, &done)
}

fn probe(result: Result<(), String>, yes: &'static str) -> Answer {
    match result {
        Ok(()) => plain(StatusCode::OK, yes),
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(text) => of(status, "application/json", text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn plain(status: StatusCode, text: impl Into<String>) -> Answer {
    of(status, "text/plain; charset=utf-8", text.into() + "\n")
}

fn of(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
