//! The calls on their way.

use std::{io, net::SocketAddr, sync::Arc, sync::mpsc};

use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::{
    Client, Config,
    client::Body,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio::{net::TcpListener, sync::oneshot};

use super::{Fault, Shared, Verb};
use crate::{kubernetes::kubeconfig::Access, server::loopback};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, Failure>>;

/// Serves until it is told to stop.
pub(super) fn run(
    port: u16,
    server: &Access,
    shared: &Arc<Shared>,
    stopped: oneshot::Receiver<()>,
    ready: &mpsc::Sender<SocketAddr>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        let client = client(server).await;
        let listener = TcpListener::bind(loopback(port)).await;
        let listener = listener.expect("the port is free");
        ready.send(loopback(port)).expect("the test waits for it");
        tokio::select! {
            () = accept(&listener, &client, shared) => {}
            _ = stopped => {}
        }
    });
}

/// A client without a token of its own: that of each call is passed on.
async fn client(server: &Access) -> Client {
    let parsed: Kubeconfig =
        serde_yaml::from_str(&server.kubeconfig()).expect("the harness writes it");
    let config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await;
    let mut config = config.expect("the harness writes it");
    config.auth_info = AuthInfo::default();
    config.default_retry = false;
    Client::try_from(config).expect("the address is one")
}

async fn accept(listener: &TcpListener, client: &Client, shared: &Arc<Shared>) {
    loop {
        let (stream, _) = listener
            .accept()
            .await
            .expect("connections can be accepted");
        let (client, shared) = (client.clone(), Arc::clone(shared));
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &client, &shared));
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A client that goes away, or an answer that is to be lost: both are meant.
            let _ = served.await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    client: &Client,
    shared: &Arc<Shared>,
) -> Result<Answer, Failure> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (verb, fault) = shared.judge(request.method(), &path, &query);
    match fault {
        Some(Fault::Answer(code)) => return Ok(refusal(code, 0)),
        Some(Fault::Busy(seconds)) => return Ok(refusal(429, seconds)),
        Some(Fault::Gone) => return Ok(gone()),
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Lost) | None => {}
    }
    if verb == Verb::Read
        && let Some(past) = shared.past(&path)
    {
        return Ok(json_answer(StatusCode::OK, past));
    }
    let answered = forward(request, client).await?;
    if fault == Some(Fault::Lost) {
        let (_, body) = answered.into_parts();
        body.collect().await?;
        return Err(io::Error::other("the answer is lost").into());
    }
    let (parts, body) = answered.into_parts();
    let body = match verb {
        Verb::Watch => events(body, path, shared),
        Verb::Read => {
            let bytes = body.collect().await?.to_bytes();
            shared.keep(&path, &bytes);
            whole(bytes)
        }
        Verb::Write | Verb::Any => body.map_err(Into::into).boxed_unsync(),
    };
    Ok(Response::from_parts(parts, body))
}

async fn forward(request: Request<Incoming>, client: &Client) -> Result<Response<Body>, Failure> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    // The client completes it by the server's address.
    let rest = parts.uri.path_and_query().cloned();
    parts.uri = rest.map_or_else(|| Ok(Uri::default()), |rest| rest.as_str().parse())?;
    parts.headers.remove(header::HOST);
    let answered = client.send(Request::from_parts(parts, Body::from(body)));
    Ok(answered.await?)
}

/// The events of a watch, until all watches are broken; none while it is mute.
fn events(body: Body, path: String, shared: &Arc<Shared>) -> UnsyncBoxBody<Bytes, Failure> {
    let (broken, shared) = (shared.broken.subscribe(), Arc::clone(shared));
    let frames = Box::pin(body.into_data_stream());
    let passed = stream::unfold((frames, broken), move |(mut frames, mut broken)| {
        let (shared, path) = (Arc::clone(&shared), path.clone());
        async move {
            loop {
                let bytes = tokio::select! {
                    next = frames.next() => next?,
                    _ = broken.changed() => return None,
                };
                match bytes {
                    Ok(_) if shared.is_mute(&path) => {}
                    Ok(bytes) => return Some((Ok(Frame::data(bytes)), (frames, broken))),
                    Err(error) => return Some((Err(error.into()), (frames, broken))),
                }
            }
        }
    });
    StreamBody::new(passed).boxed_unsync()
}

fn whole(bytes: Bytes) -> UnsyncBoxBody<Bytes, Failure> {
    Full::new(bytes).map_err(Into::into).boxed_unsync()
}

fn json_answer(code: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(whole(body.into()));
    *answer.status_mut() = code;
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

/// As the API server says it.
fn status(code: u16, seconds: u32) -> serde_json::Value {
    let reason = match code {
        403 => "Forbidden",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let mut status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
        "reason": reason, "message": format!("a test has this call fail: {reason}"),
    });
    if seconds > 0 {
        status["details"] = json!({"retryAfterSeconds": seconds});
    }
    status
}

fn refusal(code: u16, seconds: u32) -> Answer {
    let known = StatusCode::from_u16(code).expect("the test names a status");
    let mut answer = json_answer(known, status(code, seconds).to_string().into_bytes());
    if seconds > 0 {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

fn gone() -> Answer {
    let event = json!({"type": "ERROR", "object": status(410, 0)});
    json_answer(StatusCode::OK, format!("{event}\n").into_bytes())
}
