//! Talks to the agent of a pod: what it says, and the planned switch of a primary.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1::handshake,
    header::{AUTHORIZATION, HOST},
};
use hyper_util::rt::TokioIo;
use policy::names;
use tokio::{net::TcpStream, time::timeout};

use super::View;
use crate::instance::state::State;

const PATIENCE: Duration = Duration::from_secs(2);
/// The agent gives up before this, unless Sentinels may still choose: then it goes on by itself.
const SWITCH: Duration = Duration::from_secs(30);
const LIMIT: usize = 256 * 1024;

/// What the agent at `address` says, if it is that of the pod that is meant: addresses of pods
/// are used again.
pub async fn ask(address: &str, pod: &str, tier_uid: &str) -> View {
    let answer = timeout(PATIENCE, send(address, Method::GET, "/state", None)).await;
    let body = match answer {
        Ok(Ok((StatusCode::OK, body))) => body,
        Ok(Ok((status, _))) => return View::Unknown(format!("its agent answers {status}")),
        Ok(Err(why)) => return View::Unknown(why),
        Err(_) => return View::Unknown("its agent does not answer in time".to_owned()),
    };
    match serde_json::from_slice::<State>(&body) {
        Ok(state) if state.pod == pod && state.uid == tier_uid => View::Known(Box::new(state)),
        Ok(state) => View::Unknown(format!("{address} is {} of another tier", state.pod)),
        Err(error) => View::Unknown(format!("its agent speaks another language: {error}")),
    }
}

/// Asks a primary to hand over. The answer is a sentence for the log.
pub async fn switch_over(address: &str, password: &str) -> Result<String, String> {
    let answer = send(address, Method::POST, "/switchover", Some(password));
    match timeout(SWITCH, answer).await {
        Ok(Ok((StatusCode::OK, body))) => Ok(text(&body)),
        Ok(Ok((status, body))) => Err(format!("{status}: {}", text(&body))),
        Ok(Err(why)) => Err(why),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).chars().take(300).collect()
}

async fn send(
    address: &str,
    method: Method,
    path: &str,
    password: Option<&str>,
) -> Result<(StatusCode, Bytes), String> {
    let host = if address.contains(':') {
        format!("[{address}]:{}", names::AGENT_PORT)
    } else {
        format!("{address}:{}", names::AGENT_PORT)
    };
    let failed = |error: &dyn std::error::Error| format!("its agent does not answer: {error}");
    let stream = TcpStream::connect(&host).await.map_err(|e| failed(&e))?;
    let (mut sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed(&e))?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, &host);
    if let Some(password) = password {
        request = request.header(AUTHORIZATION, format!("Bearer {password}"));
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|e| failed(&e))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LIMIT).collect().await;
        let body = body.map_err(|error| format!("its agent says too much: {error}"))?;
        Ok((status, body.to_bytes()))
    };
    // The connection is driven for as long as the exchange takes.
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        done = &mut exchange => done,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(failed(&error)),
        },
    }
}
