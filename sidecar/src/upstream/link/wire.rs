//! A connected link: writes what was added since its last turn with one system call, reads, and
//! hands each reply to who waits for it.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{Core, Link, Pending, Role};
use crate::{
    engine::{redirect, reply},
    resp::reply::{Scanner, is_error, is_push},
    upstream::{Lost, connect::Connected, stream::Stream},
};

impl Link {
    /// Writes and reads until the connection is lost.
    pub(super) async fn serve(&self, connected: Connected) -> Lost {
        let Connected {
            mut stream,
            rest,
            broadcast,
            ..
        } = connected;
        if self.role == Role::Tracked && broadcast != self.worker.endpoint().broadcast {
            return Lost::Broken("the rules changed while it was being opened".into());
        }
        let mut input = Input {
            buffer: rest,
            scanner: Scanner::default(),
        };
        let lost = poll_fn(|cx| self.poll(&mut stream, &mut input, cx)).await;
        if let Some(why) = self.core.borrow_mut().stop.take() {
            return why;
        }
        lost
    }

    fn poll(&self, stream: &mut Stream, input: &mut Input, cx: &mut Context<'_>) -> Poll<Lost> {
        {
            let mut waker = self.waker.borrow_mut();
            if !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
        }
        if self.core.borrow().stop.is_some() {
            return Poll::Ready(Lost::Closed);
        }
        if self.core.borrow().has_left() {
            return Poll::Ready(Lost::Demoted);
        }
        if let Err(error) = self.poll_write(stream, cx) {
            return Poll::Ready(Lost::broken(&error));
        }
        // A bounded number of reads, so that one busy server does not starve the clients.
        for _ in 0..16 {
            match self.poll_read(stream, input, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(lost)) => return Poll::Ready(lost),
                Poll::Ready(Ok(())) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write(&self, stream: &mut Stream, cx: &mut Context<'_>) -> io::Result<()> {
        let mut core = self.core.borrow_mut();
        while !core.outbox.unsent().is_empty() && !core.leaving {
            match Pin::new(&mut *stream).poll_write(cx, core.outbox.unsent())? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(len) => {
                    core.outbox.sent(len);
                }
                Poll::Pending => break,
            }
        }
        core.forget_messages();
        // TLS buffers, and what it could not send waits for its next turn; TCP does not.
        if matches!(stream, Stream::Tls(_)) {
            let _ = Pin::new(stream).poll_flush(cx)?;
        }
        Ok(())
    }

    fn poll_read(
        &self,
        stream: &mut Stream,
        input: &mut Input,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Lost>> {
        let mut scratch = self.worker.link_scratch.borrow_mut();
        let mut read = ReadBuf::new(&mut scratch);
        match Pin::new(stream).poll_read(cx, &mut read) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Lost::broken(&error))),
            Poll::Ready(Ok(())) => {}
        }
        let len = read.filled().len();
        if len == 0 {
            let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server");
            return Poll::Ready(Err(Lost::broken(&closed)));
        }
        self.worker.refresh_now();
        let result = if input.buffer.is_empty() {
            match self.take_frames(&mut input.scanner, &scratch[..len]) {
                Ok(used) => {
                    input.buffer.extend_from_slice(&scratch[used..len]);
                    Ok(())
                }
                Err(lost) => Err(lost),
            }
        } else {
            input.buffer.extend_from_slice(&scratch[..len]);
            let buffer = std::mem::take(&mut input.buffer);
            let used = self.take_frames(&mut input.scanner, &buffer);
            input.put_back(buffer, used)
        };
        drop(scratch);
        let result = match result {
            Ok(()) if input.buffer.len() > self.worker.output_limit() => Err(self.too_large()),
            result => result,
        };
        self.worker.flush_read();
        if !self.waiters.borrow().is_empty() && !self.is_full() {
            self.wake_waiters();
        }
        Poll::Ready(result)
    }

    /// A reply of which more has come than any client may be sent. Its command is not asked again.
    #[cold]
    fn too_large(&self) -> Lost {
        let limit = self.worker.output_limit();
        let lost = Lost::Broken(
            format!("the server sent a reply larger than sidecar.outputLimit ({limit} bytes)")
                .into(),
        );
        let culprit = self.core.borrow_mut().take_first();
        if let Some(culprit) = culprit {
            self.fail(culprit, true, &lost);
        }
        lost
    }

    /// Hands out complete frames; the answer is how many bytes they took.
    fn take_frames(&self, scanner: &mut Scanner, buffer: &[u8]) -> Result<usize, Lost> {
        let mut at = 0;
        while let Some(len) = scanner
            .step(&buffer[at..])
            .map_err(|error| Lost::Broken(error.to_string().into()))?
        {
            self.take_frame(&buffer[at..at + len])?;
            at += len;
        }
        Ok(at)
    }

    #[inline]
    fn take_frame(&self, frame: &[u8]) -> Result<(), Lost> {
        match self.role {
            Role::Tracked if is_push(frame) => {
                return reply::pushed(self, frame);
            }
            Role::Plain if is_push(frame) => return Ok(()),
            Role::Pinned => {
                let owner = self.owner.borrow().clone();
                if let Some(owner) = owner
                    && owner.take_message(self, frame)
                {
                    return Ok(());
                }
            }
            _ => {}
        }
        let mut core = self.core.borrow_mut();
        let Some(mut pending) = core.pending.pop_front() else {
            return Err(Lost::Broken(
                "the server sent a reply that nobody asked for".into(),
            ));
        };
        let refusal = match self.role {
            Role::Plain | Role::Pinned if is_error(frame) => redirect::refusal(self, frame),
            _ => None,
        };
        let refused = refusal.map(|why| (why, core.outbox.oldest(pending.len).to_vec()));
        core.outbox.answered(pending.len);
        core.forget_messages();
        drop(core);
        self.health.borrow().answered();
        let took = self.worker.now().since(pending.since);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.worker.counters.upstream.observe(took, 1);
        if let Some((why, bytes)) = refused {
            match redirect::take(self, pending.target, pending.repeatable, why, bytes) {
                None => return Ok(()),
                Some(target) => pending.target = target,
            }
        }
        reply::answered(self, pending.target, pending.since, frame)
    }
}

impl Core {
    /// The oldest command that was not answered; its bytes need not be sent again.
    #[inline]
    fn take_first(&mut self) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        self.outbox.answered(pending.len);
        self.forget_messages();
        Some(pending)
    }
}

/// Bytes of a reply that is not complete yet.
struct Input {
    buffer: Vec<u8>,
    scanner: Scanner,
}

impl Input {
    fn put_back(&mut self, mut buffer: Vec<u8>, used: Result<usize, Lost>) -> Result<(), Lost> {
        let used = used?;
        if used == buffer.len() {
            buffer.clear();
            buffer.shrink_to(64 * 1024);
        } else {
            buffer.drain(..used);
        }
        self.buffer = buffer;
        Ok(())
    }
}
