//! Just enough of a Redis client to load keys, read them through a sidecar and ask for figures.
//! Not a measuring client: that is `redis-benchmark`.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::failure::{Failure, Outcome};

/// Commands written before their replies are read.
const BATCH: u32 = 500;

/// One reply; what a number or a nested array says is never needed here.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+`, `:`, `-`, with the sign.
    Line(String),
    /// A bulk string.
    Bulk(Vec<u8>),
    /// No such key.
    Nothing,
}

/// A RESP2 connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects to a port on loopback.
    pub fn connect(port: u16) -> Outcome<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))
            .map_err(Failure::io(format!("connect to port {port}")))?;
        let set = stream.set_read_timeout(Some(Duration::from_secs(10)));
        set.map_err(Failure::io("set a read timeout"))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    fn send(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.stream
            .get_mut()
            .write_all(bytes)
            .map_err(Failure::io("send commands"))
    }

    fn receive(&mut self) -> Outcome<Reply> {
        let mut line = String::new();
        self.stream
            .read_line(&mut line)
            .map_err(Failure::io("read a reply"))?;
        let line = line.trim_end();
        let Some(length) = line.strip_prefix('$') else {
            return Ok(Reply::Line(line.to_owned()));
        };
        if length == "-1" {
            return Ok(Reply::Nothing);
        }
        let length: usize = length.parse().map_err(|_| Failure::Answer {
            request: "a command".to_owned(),
            answer: line.to_owned(),
        })?;
        let mut bulk = vec![0; length + 2];
        self.stream
            .read_exact(&mut bulk)
            .map_err(Failure::io("read a reply"))?;
        bulk.truncate(length);
        Ok(Reply::Bulk(bulk))
    }

    /// One command, one reply.
    pub fn call(&mut self, words: &[&str]) -> Outcome<Reply> {
        let mut text = String::new();
        encode(&mut text, words);
        self.send(text.as_bytes())?;
        self.receive()
    }

    /// Writes `count` keys with values of `bytes` bytes.
    pub fn load(&mut self, prefix: &str, count: u32, bytes: usize) -> Outcome<()> {
        let value = "x".repeat(bytes);
        self.batches(
            count,
            |text, n| encode(text, &["SET", &key(prefix, n), &value]),
            |reply| *reply == Reply::Line("+OK".to_owned()),
        )
    }

    /// Reads each of `count` keys once; every one must be there.
    pub fn read_all(&mut self, prefix: &str, count: u32) -> Outcome<()> {
        self.batches(
            count,
            |text, n| encode(text, &["GET", &key(prefix, n)]),
            |reply| matches!(reply, Reply::Bulk(_)),
        )
    }

    fn batches(
        &mut self,
        count: u32,
        command: impl Fn(&mut String, u32),
        expected: impl Fn(&Reply) -> bool,
    ) -> Outcome<()> {
        let mut next = 0;
        while next < count {
            let end = count.min(next + BATCH);
            let mut text = String::new();
            for n in next..end {
                command(&mut text, n);
            }
            self.send(text.as_bytes())?;
            for n in next..end {
                let reply = self.receive()?;
                if !expected(&reply) {
                    return Err(Failure::Answer {
                        request: format!("command number {n} of a batch"),
                        answer: format!("{reply:?}"),
                    });
                }
            }
            next = end;
        }
        Ok(())
    }

    /// A section of `INFO`.
    pub fn info(&mut self, section: &str) -> Outcome<String> {
        match self.call(&["INFO", section])? {
            Reply::Bulk(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
            other => Err(Failure::Answer {
                request: format!("INFO {section}"),
                answer: format!("{other:?}"),
            }),
        }
    }

    /// How many `GET`s this server has answered.
    pub fn gets(&mut self) -> Outcome<u64> {
        let text = self.info("commandstats")?;
        let calls = text
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_get:calls="))
            .and_then(|rest| rest.split(',').next())
            .and_then(|calls| calls.parse().ok());
        // The line is absent until the first GET.
        Ok(calls.unwrap_or(0))
    }

    /// Bytes allocated by this server.
    pub fn used_memory(&mut self) -> Outcome<u64> {
        let text = self.info("memory")?;
        text.lines()
            .find_map(|line| line.strip_prefix("used_memory:"))
            .and_then(|bytes| bytes.trim().parse().ok())
            .ok_or(Failure::Answer {
                request: "INFO memory".to_owned(),
                answer: text,
            })
    }
}

/// The key that `redis-benchmark` makes of `prefix__rand_int__`.
pub fn key(prefix: &str, n: u32) -> String {
    format!("{prefix}{n:012}")
}

/// One command as an array of bulk strings.
pub fn encode(text: &mut String, words: &[&str]) {
    // Writing to a string cannot fail.
    let _ = write!(text, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(text, "${}\r\n{word}\r\n", word.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_benchmark_are_21_bytes_and_their_request_is_41() {
        let key = key("bench:kv:", 42);
        assert_eq!(key, "bench:kv:000000000042");
        let mut text = String::new();
        encode(&mut text, &["GET", &key]);
        assert_eq!(text, "*2\r\n$3\r\nGET\r\n$21\r\nbench:kv:000000000042\r\n");
        assert_eq!((key.len(), text.len()), (21, 41));
    }
}
