//! The client of the API server. A call is made once: when to try again is decided for each
//! resource by itself (`retry`), so that a call that fails again and again holds up nothing else. A
//! call that is not answered ends.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use kube::{
    Config,
    client::{Body, ClientBuilder, DynBody},
};
use tower::{BoxError, Layer, Service, util::BoxService};

/// Longest wait for the beginning of an answer. The API server itself gives up after a minute; one
/// that takes so long has not even begun.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest silence within an answer; a watch ends by itself before.
const SILENCE: Duration = Duration::from_mins(5);

type Answer = Response<Box<DynBody>>;
type Calls = BoxService<Request<Body>, Answer, BoxError>;

/// What a client is built of.
pub fn builder(mut config: Config) -> Result<ClientBuilder<Patient<Calls>>, kube::Error> {
    // The library would hold on to a call for minutes: an eviction that a disruption budget
    // refuses, or one of a thousand tiers whose object is refused.
    config.default_retry = false;
    // For answers that break off; a watch says something once a minute.
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(ClientBuilder::try_from(config)?.with_layer(&Patience))
}

/// Ends calls that are not answered.
struct Patience;

/// Calls that end.
pub struct Patient<S>(S);

#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", PATIENCE.as_secs())]
struct NoAnswer;

impl<S> Layer<S> for Patience {
    type Service = Patient<S>;

    fn layer(&self, inner: S) -> Patient<S> {
        Patient(inner)
    }
}

impl<S> Service<Request<Body>> for Patient<S>
where
    S: Service<Request<Body>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.0.call(request);
        Box::pin(async move {
            tokio::time::timeout(PATIENCE, call)
                .await
                .unwrap_or_else(|_| Err(NoAnswer.into()))
        })
    }
}
