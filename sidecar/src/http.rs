//! `/v1` on 127.0.0.1: the cache for `curl`, and for apps without a Redis client.
//!
//! A thin adapter: it speaks RESP to this process over a socket pair (`resp`), so that a request
//! over HTTP takes exactly the way of one over Redis' protocol. What is here is the translation of
//! paths, headers and errors; `server` accepts connections, also for the admin port, and `guard`
//! keeps web pages and strangers out.

pub(crate) mod body;
mod guard;
mod path;
pub(crate) mod problem;
mod resp;
pub(crate) mod server;

use std::{fmt::Write as _, io, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use policy::Span;
use tokio::net::{TcpListener, UnixStream};

pub use self::resp::OpenError;
use self::{
    body::Budget,
    path::Path,
    problem::{Answer, Problem},
    resp::{Client, Read, RespError},
};
use crate::state::Shared;

/// Most connections at a time; more wait.
const CONNECTIONS: usize = 256;
/// A request that takes longer to arrive is given up.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);

/// Serves the API until it is dropped. `open` connects to an event loop as an app would.
pub async fn serve<F>(listener: TcpListener, open: F, shared: Arc<Shared>)
where
    F: Fn() -> io::Result<UnixStream> + Send + Sync + 'static,
{
    let max = shared.active().config.sidecar.max_bulk_size.0;
    let api = Arc::new(Api {
        client: Client::new(open, Arc::clone(&shared)),
        budget: Budget::new(max),
        shared,
    });
    server::serve(listener, CONNECTIONS, move |request| {
        let api = Arc::clone(&api);
        async move { api.answer(request).await.unwrap_or_else(Problem::answer) }
    })
    .await;
}

struct Api {
    client: Client,
    budget: Arc<Budget>,
    shared: Arc<Shared>,
}

// === impl Api ===

impl Api {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Problem> {
        guard::check_host(request.headers())?;
        let active = self.shared.active();
        guard::check_password(
            request.headers(),
            active.credentials.local_password.as_ref(),
        )?;
        let uri = request.uri().clone();
        match path::parse(uri.path())? {
            Path::Stats => match *request.method() {
                Method::GET => self.stats().await,
                _ => Err(not_allowed(&request, "GET")),
            },
            Path::Sidecars => match *request.method() {
                Method::GET => {
                    let sidecars = self.client.sidecars().await?;
                    Ok(problem::json(StatusCode::OK, "application/json", &sidecars))
                }
                _ => Err(not_allowed(&request, "GET")),
            },
            Path::Key(key) => match *request.method() {
                Method::GET => self.get(&key, uri.query()).await,
                Method::PUT => self.put(&key, request).await,
                Method::DELETE => self.delete(&key, uri.query()).await,
                _ => Err(not_allowed(&request, "GET, PUT, DELETE")),
            },
        }
    }

    async fn get(&self, key: &[u8], query: Option<&str>) -> Result<Answer, Problem> {
        no_parameters(query)?;
        let Read {
            value,
            tier,
            result,
            rule,
            ttl_ms,
        } = self.client.read(key).await?;
        let mut answer = match value {
            Some(value) => {
                let mut answer = Response::new(body::full(value));
                let kind = HeaderValue::from_static("application/octet-stream");
                answer.headers_mut().insert(CONTENT_TYPE, kind);
                answer
            }
            None => Problem::new(StatusCode::NOT_FOUND, "no such key")
                .detail("the key does not exist, or it has expired; PUT a value to it first")
                .answer(),
        };
        let headers = answer.headers_mut();
        for (name, value) in [
            ("x-pannier-result", result.as_str()),
            ("x-pannier-tier", &tier),
            ("x-pannier-rule", rule.as_deref().unwrap_or("-")),
        ] {
            // Words and names of rules; anything else would be ours to find out.
            let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static("-"));
            headers.insert(name, value);
        }
        if let Some(ttl_ms) = ttl_ms {
            headers.insert("x-pannier-ttl-ms", HeaderValue::from(ttl_ms));
        }
        Ok(answer)
    }

    async fn put(&self, key: &[u8], request: Request<Incoming>) -> Result<Answer, Problem> {
        let ttl = ttl(request.uri().query())?;
        let value = tokio::time::timeout(BODY_TIMEOUT, self.budget.read(request.into_body()))
            .await
            .map_err(|_| {
                Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "the value did not arrive in time",
                )
                .detail("send the whole body within a minute")
            })??;
        self.client.set(key, &value.bytes, ttl).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    async fn delete(&self, key: &[u8], query: Option<&str>) -> Result<Answer, Problem> {
        no_parameters(query)?;
        if self.client.delete(key).await? {
            Ok(empty(StatusCode::NO_CONTENT))
        } else {
            Err(Problem::new(StatusCode::NOT_FOUND, "no such key")
                .detail("there was nothing to delete"))
        }
    }

    async fn stats(&self) -> Result<Answer, Problem> {
        let stats = self.client.stats().await?;
        Ok(problem::json(StatusCode::OK, "application/json", &stats))
    }
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(body::full(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

fn not_allowed(request: &Request<Incoming>, allowed: &'static str) -> Problem {
    let method = request.method();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this method does nothing here",
    )
    .detail(format!(
        "{method} is not known for this path; use {allowed}"
    ))
    .header(ALLOW, HeaderValue::from_static(allowed))
}

fn no_parameters(query: Option<&str>) -> Result<(), Problem> {
    match query {
        None | Some("") => Ok(()),
        Some(query) => Err(unknown_parameter(
            query.split(['=', '&']).next().unwrap_or_default(),
        )),
    }
}

fn unknown_parameter(name: &str) -> Problem {
    let mut detail = String::from("the parameter ");
    let _ = write!(detail, "{:?} is not known; ", problem::short(name));
    detail.push_str("PUT takes ttl, as in ?ttl=5m, the other methods take none");
    Problem::new(StatusCode::BAD_REQUEST, "unknown parameter").detail(detail)
}

/// `ttl=5m`, or milliseconds written `1500ms`; absent: the TTL that the rule says.
fn ttl(query: Option<&str>) -> Result<Option<Duration>, Problem> {
    let mut ttl = None;
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != "ttl" {
            return Err(unknown_parameter(name));
        }
        let bad = |reason: &str| {
            Problem::new(StatusCode::BAD_REQUEST, "the ttl cannot be used").detail(format!(
                "ttl is {:?}: {reason}; write a number with a unit, for example 250ms, 30s, 5m or 7d",
                problem::short(value)
            ))
        };
        let span: Span = value.parse().map_err(|_| bad("not a duration"))?;
        if span.0.is_zero() {
            return Err(bad("the value would expire at once"));
        }
        if ttl.replace(span.0).is_some() {
            return Err(bad("it is given twice"));
        }
    }
    Ok(ttl)
}

impl From<RespError> for Problem {
    fn from(error: RespError) -> Self {
        match error {
            RespError::Open(error) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the sidecar takes no connection now",
            )
            .detail(error.to_string()),
            RespError::Unexpected(what) => {
                Self::new(StatusCode::BAD_GATEWAY, "an answer that was not expected").detail(what)
            }
            RespError::Server { code, message } => {
                let status = match code.as_str() {
                    "WRONGTYPE" => StatusCode::CONFLICT,
                    "NOPERM" | "DENIED" => StatusCode::FORBIDDEN,
                    "OOM" => StatusCode::INSUFFICIENT_STORAGE,
                    "ERR" => StatusCode::BAD_GATEWAY,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                Self::new(status, "the command was refused").detail(format!("{code} {message}"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
