//! The port that leaves the pod: probes, metrics and state. Read-only; no secret, no key, no value.
//!
//! Liveness asks whether the event loops turn, readiness whether listeners are bound and no drain
//! has begun. Neither asks about Redis: its outage must not become one of the app (P7).

mod state;

use std::{
    sync::{Arc, atomic::Ordering::Acquire},
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use tokio::net::TcpListener;

use crate::{
    http::{
        body,
        problem::{self, Answer, Problem},
        server,
    },
    metrics::export::Exporter,
    state::Shared,
};

/// Most connections at a time; probes need one each.
const CONNECTIONS: usize = 64;
/// An event loop that is silent for longer is stuck.
const SILENCE: Duration = Duration::from_secs(10);
const PATHS: &str = "/live, /ready, /metrics and /state";

/// Serves the admin port until it is dropped.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let exporter = Arc::new(Exporter::new(Arc::clone(&shared)));
    server::serve(listener, CONNECTIONS, move |request| {
        let answer = answer(&request, &shared, &exporter);
        async move { answer.unwrap_or_else(Problem::answer) }
    })
    .await;
}

fn answer(
    request: &Request<Incoming>,
    shared: &Shared,
    exporter: &Exporter,
) -> Result<Answer, Problem> {
    route(request.method(), request.uri().path(), shared, exporter)
}

fn route(
    method: &Method,
    path: &str,
    shared: &Shared,
    exporter: &Exporter,
) -> Result<Answer, Problem> {
    if !matches!(path, "/live" | "/ready" | "/metrics" | "/state") {
        return Err(
            Problem::new(StatusCode::NOT_FOUND, "no such path").detail(format!(
                "{:?} is not known; there are {PATHS}",
                problem::short(path)
            )),
        );
    }
    // HEAD is what some probes send; hyper leaves the body out.
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this port is read-only")
                .detail(format!("{method} is not known here; use GET"))
                .header(ALLOW, HeaderValue::from_static("GET, HEAD")),
        );
    }
    match path {
        "/live" => live(shared),
        "/ready" => ready(shared),
        "/metrics" => Ok(text(
            "text/plain; version=0.0.4; charset=utf-8",
            exporter.text(),
        )),
        _ => Ok(problem::json(
            StatusCode::OK,
            "application/json",
            &state::state(shared),
        )),
    }
}

fn live(shared: &Shared) -> Result<Answer, Problem> {
    let stuck = shared.stuck_loops(SILENCE);
    if stuck.is_empty() {
        return Ok(text(PLAIN, "live\n".to_owned()));
    }
    let stuck: Vec<String> = stuck.iter().map(ToString::to_string).collect();
    Err(
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "an event loop is stuck").detail(format!(
            "event loops {} have not gone round for {} s; the process should be restarted",
            stuck.join(", "),
            SILENCE.as_secs()
        )),
    )
}

fn ready(shared: &Shared) -> Result<Answer, Problem> {
    if shared.ready.load(Acquire) {
        return Ok(text(PLAIN, "ready\n".to_owned()));
    }
    let detail = if shared.is_draining() {
        "the process is draining and will end"
    } else {
        "the listeners are not bound yet"
    };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not ready").detail(detail))
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn text(kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(body::full(text));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests;
