//! Accepts HTTP/1 connections, a bounded number at a time; slow ones are closed.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use super::problem::Answer;

/// A client that takes longer to send its head is closed; so is an idle one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Enough for a request line with the longest sensible key.
const HEAD_BYTES: usize = 64 * 1024;
/// After an accept that failed, for lack of file descriptors usually.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped; connections that are open then live on until their runtime ends.
pub(crate) async fn serve<H, F>(listener: TcpListener, connections: usize, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let free = Arc::new(Semaphore::new(connections));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "failed to accept an HTTP connection");
                sleep(PAUSE).await;
                continue;
            }
        };
        let handler = handler.clone();
        let service = service_fn(move |request| {
            let answer = handler(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "an HTTP connection ended early");
            }
            drop(permit);
        });
    }
}
