//! `/live`, `/ready`, `/metrics` and `/state` of the operator: read only, without a secret.

use std::{convert::Infallible, sync::Arc};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    context::Ctx,
    reply::{reply, text},
    settings::{Scope, Settings},
};

/// A client that sends no request for this long is closed.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// Connections at a time; more wait in the listener's queue.
const CONNECTIONS: usize = 64;

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, ctx: Arc<Ctx>) {
    let permits = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let ctx = ctx.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let ctx = ctx.clone();
                async move { Ok::<_, Infallible>(answer(&ctx, request.method(), request.uri().path())) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection of the admin port ended");
            }
            drop(permit);
        });
    }
}

fn answer(ctx: &Ctx, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if method != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match path {
        // It says nothing about reconciling: a restart would not help a slow API server.
        "/live" => text(StatusCode::OK, "ok\n"),
        "/ready" => {
            let missing = ctx.readiness.missing();
            if missing.is_empty() {
                text(StatusCode::OK, "ok\n")
            } else {
                let message = format!("waiting for {}\n", missing.join(", "));
                text(StatusCode::SERVICE_UNAVAILABLE, message)
            }
        }
        "/metrics" => reply(
            StatusCode::OK,
            "text/plain; version=0.0.4",
            ctx.metrics.text(),
        ),
        "/state" => reply(StatusCode::OK, "application/json", state(ctx)),
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /live, /ready, /metrics and /state\n",
        ),
    }
}

fn state(ctx: &Ctx) -> Vec<u8> {
    let Settings {
        namespace,
        identity,
        installation,
        scope,
        shared,
        cluster_domain,
        agent_image,
        valkey_image,
        redis_image,
        webhook,
    } = &ctx.settings;
    let webhook = webhook.as_ref().map(|webhook| {
        json!({
            "listen": webhook.listen.to_string(),
            "service": webhook.service,
            "configuration": webhook.configuration,
            "sidecarImage": webhook.sidecar_image,
        })
    });
    let watched = match scope {
        Scope::Cluster => json!("all"),
        Scope::Namespaces(namespaces) => json!(namespaces),
    };
    let state = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "namespace": namespace,
        "identity": identity,
        "installation": installation,
        "watchedNamespaces": watched,
        "sharedNamespaces": shared,
        "clusterDomain": cluster_domain,
        "images": {"agent": agent_image, "valkey": valkey_image, "redis": redis_image},
        "webhook": webhook,
        "leader": ctx.metrics.leader.get() == 1,
        "missing": ctx.readiness.missing(),
    });
    let mut text = state.to_string().into_bytes();
    text.push(b'\n');
    text
}
