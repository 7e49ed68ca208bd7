//! A connection that ends when the server says more than it was asked for: the answers of the
//! control connection are small, and a server that announces gigabytes must not be waited for.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that the answers of one round may have; `COMMAND` with modules has less than two
/// million.
const ROUND: usize = 16 << 20;

/// A stream that may be read up to its allowance.
pub struct Limited<S> {
    stream: S,
    allowance: Allowance,
}

/// Bytes that may still come.
#[derive(Clone)]
pub struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    /// A new round of questions begins.
    pub fn renew(&self) {
        self.0.store(ROUND, Relaxed);
    }
}

impl<S> Limited<S> {
    /// With the allowance of one round.
    pub fn new(stream: S) -> Self {
        let allowance = Allowance(Arc::new(AtomicUsize::new(ROUND)));
        Self { stream, allowance }
    }

    /// What renews it.
    pub fn allowance(&self) -> Allowance {
        self.allowance.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        let left = self.allowance.0.load(Relaxed);
        if read > left {
            let error = "the server answers more than it was asked for";
            return Poll::Ready(Err(io::Error::other(error)));
        }
        self.allowance.0.store(left - read, Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_round_may_bring_so_much_and_the_next_as_much_again() {
        let bytes = vec![b'x'; 2 * ROUND + 1];
        let mut stream = Limited::new(&bytes[..]);
        let mut chunk = vec![0; ROUND];
        stream.read_exact(&mut chunk).await.unwrap();
        stream.allowance().renew();
        stream.read_exact(&mut chunk).await.unwrap();
        assert!(stream.read_exact(&mut chunk[..1]).await.is_err());
    }
}
