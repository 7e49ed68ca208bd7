//! A connection of discovery: questions and answers, one after the other, bounded in size and
//! time.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    resp::{
        Proto,
        reply::{ReplyError, Scanner, Value},
        write,
    },
    upstream::{Endpoint, Handshake, connect::ConnectError, stream::Stream},
};

/// Most bytes of an answer: a cluster of a thousand nodes describes itself in a fraction of it.
const MAX_ANSWER: usize = 8 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Connect(ConnectError),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("{0}")]
    NotRedis(ReplyError),
    #[error("an answer of more than {MAX_ANSWER} bytes")]
    TooLong,
}

/// A connection.
pub(crate) struct Conn {
    stream: Stream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were handed out.
    taken: usize,
}

impl Conn {
    /// Connects, logs in, and speaks RESP2.
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self, AskError> {
        let connected = endpoint
            .connect(Handshake::plain(Proto::Resp2, 0))
            .await
            .map_err(AskError::Connect)?;
        Ok(Self {
            stream: connected.stream,
            buffer: connected.rest,
            taken: 0,
        })
    }

    /// Sends a question without waiting for its answer.
    pub(super) async fn send(&mut self, words: &[&str]) -> Result<(), AskError> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut request = Vec::new();
        write::command(&mut request, &words);
        self.stream
            .write_all(&request)
            .await
            .map_err(AskError::Broken)?;
        self.stream.flush().await.map_err(AskError::Broken)
    }

    /// Asks and waits for the answer, which is complete: [`Value::read`] reads it.
    pub(crate) async fn ask(
        &mut self,
        words: &[&str],
        patience: Duration,
    ) -> Result<Vec<u8>, AskError> {
        let asked = async {
            self.send(words).await?;
            self.next().await
        };
        match timeout(patience, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(AskError::Late(patience)),
        }
    }

    /// The next frame, whenever it comes.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, AskError> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let mut scanner = Scanner::default();
        loop {
            if let Some(len) = scanner.step(&self.buffer).map_err(AskError::NotRedis)? {
                self.taken = len;
                return Ok(self.buffer[..len].to_vec());
            }
            if self.buffer.len() > MAX_ANSWER {
                return Err(AskError::TooLong);
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.map_err(AskError::Broken)? == 0 {
                let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server");
                return Err(AskError::Broken(closed));
            }
        }
    }
}

/// Text of an answer that may hold anything, for logs: short, printable.
pub(super) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(120)
        .collect()
}

/// The error in an answer, if it is one.
pub(super) fn refusal(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Error(text) => Some(shown(text)),
        _ => None,
    }
}

/// A host that may be connected to: nothing of it reaches a log or a resolver unseen.
pub(super) fn host(text: &[u8]) -> Option<&str> {
    const LONGEST: usize = 253;
    let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%'));
    let text = std::str::from_utf8(text).ok()?;
    (!text.is_empty() && text.len() <= LONGEST && !text.contains(odd)).then_some(text)
}

/// A port, as a number or, as Sentinel writes it, as text.
pub(super) fn port(value: &Value<'_>) -> Option<u16> {
    let number = match value {
        Value::Integer(number) => *number,
        Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
        _ => return None,
    };
    u16::try_from(number).ok().filter(|port| *port != 0)
}
