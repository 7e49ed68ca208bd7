//! The listener: TLS, HTTP/1.1, `POST /inject` and nothing else. Everything has a bound: a
//! connection that sends nothing, one that sends too much, too many of them.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ServerConfig, crypto::ring::default_provider};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    certificate::Served,
    handler::{Handler, Reply},
};
use crate::reply::{reply, text};

/// A request of the API server has at most 3 MiB; escaped once more, in a review, less than this.
const LARGEST: usize = 8 << 20;
/// Reviews that are read or answered at a time: memory is bounded by this many of the largest.
const AT_A_TIME: usize = 8;
/// Connections at a time; more wait in the listener's queue.
const CONNECTIONS: usize = 256;
/// A handshake takes no longer, nor does a head or a body.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than the API server keeps a connection that it does not use: it is the one to close it.
const IDLE: Duration = Duration::from_mins(3);
/// What has begun is finished within this time at the end.
const FINISH: Duration = Duration::from_secs(10);

/// Serves until the end is asked for, then finishes what has begun.
pub async fn serve(
    listener: TcpListener,
    served: Arc<Served>,
    handler: Arc<Handler>,
    ended: watch::Receiver<bool>,
) {
    let acceptor = match acceptor(served) {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(%error, "failed to set TLS up; no webhook is served");
            return;
        }
    };
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let reviews = Arc::new(Semaphore::new(AT_A_TIME));
    let mut connections = JoinSet::new();
    let mut end = ended.clone();
    loop {
        let stream = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = asked(&mut end) => break,
        };
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else {
            break;
        };
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        let (reviews, ended) = (reviews.clone(), ended.clone());
        connections.spawn(async move {
            connection(stream, &acceptor, handler, reviews, ended).await;
            drop(permit);
        });
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout(FINISH, rest).await.is_err() {
        tracing::warn!("connections of the webhook did not end in time");
    }
}

/// Waits until the end is asked for.
async fn asked(ended: &mut watch::Receiver<bool>) {
    // The sender is gone only when the listener is to be gone as well.
    let _ = ended.wait_for(|ended| *ended).await;
}

fn acceptor(served: Arc<Served>) -> Result<TlsAcceptor, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection of the webhook");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    handler: Arc<Handler>,
    reviews: Arc<Semaphore>,
    mut ended: watch::Receiver<bool>,
) {
    let stream = match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake with the webhook failed");
            return;
        }
        Err(_) => return,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, reviews) = (handler.clone(), reviews.clone());
        async move { Ok::<_, Infallible>(answer(request, &handler, &reviews).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = asked(&mut ended) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection of the webhook ended");
    }
}

async fn answer(
    request: Request<Incoming>,
    handler: &Handler,
    reviews: &Semaphore,
) -> Response<Full<Bytes>> {
    if request.uri().path() != "/inject" {
        return text(StatusCode::NOT_FOUND, "there is /inject\n");
    }
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
    }
    let Ok(_permit) = reviews.acquire().await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the webhook ends\n");
    };
    let body = Limited::new(request.into_body(), LARGEST).collect();
    let body = match timeout(PATIENCE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let sentence = format!("a review has at most {LARGEST} bytes\n");
            return text(StatusCode::PAYLOAD_TOO_LARGE, sentence);
        }
        Ok(Err(error)) => {
            let sentence = format!("the review did not arrive: {error}\n");
            return text(StatusCode::BAD_REQUEST, sentence);
        }
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the review did not arrive\n"),
    };
    let Reply { status, kind, body } = handler.answer(&body).await;
    reply(status, kind, body)
}
