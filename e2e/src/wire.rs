//! A raw Redis connection: bytes in, bytes out. It understands both protocol versions but hides
//! nothing: each encoding is a [`Value`] of its own, so equal values mean equal bytes.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// One reply, with its encoding.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// `+OK`
    Simple(Vec<u8>),
    /// `-ERR …`
    Error(Vec<u8>),
    /// `:1`
    Integer(Vec<u8>),
    /// `$3`
    Bulk(Vec<u8>),
    /// `$-1`
    NullBulk,
    /// `*-1`
    NullArray,
    /// `_`
    Null,
    /// `*2`
    Array(Vec<Value>),
    /// `%1`, as a flat list
    Map(Vec<Value>),
    /// `~2`
    Set(Vec<Value>),
    /// `>2`
    Push(Vec<Value>),
    /// `,1.5`
    Double(Vec<u8>),
    /// `#t`
    Bool(Vec<u8>),
    /// `(123`
    BigNumber(Vec<u8>),
    /// `=7`
    Verbatim(Vec<u8>),
    /// `!5`
    BlobError(Vec<u8>),
}

/// A connection.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

impl Wire {
    /// Connects; RESP2 until `HELLO 3` is sent.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address)
            .unwrap_or_else(|error| crate::environment::unusable(&format!("{address}: {error}")))
    }

    /// Connects, or says why not.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self::of(stream))
    }

    /// Over a stream that is connected already.
    pub const fn of(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// A second handle, for reading in one thread and writing in another.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::of(self.stream.try_clone()?))
    }

    /// Connects and switches to RESP3.
    pub fn connect_resp3(address: SocketAddr) -> Self {
        let mut wire = Self::connect(address);
        let hello = wire.run("HELLO 3");
        assert!(matches!(hello, Value::Map(_)), "HELLO 3: {hello}");
        wire
    }

    /// Changes how long a read may take.
    pub fn patience(&mut self, patience: Duration) {
        self.stream
            .set_read_timeout(Some(patience))
            .expect("a timeout above zero is accepted");
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Tells the other side that nothing more will come.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Sends one command and reads one reply.
    pub fn call<T: AsRef<[u8]>>(&mut self, arguments: &[T]) -> Value {
        self.try_call(arguments).unwrap_or_else(|error| {
            let name = String::from_utf8_lossy(arguments[0].as_ref());
            crate::environment::unusable(&format!("no reply to {name}: {error}"))
        })
    }

    /// Sends one command and reads one reply, or says what broke.
    pub fn try_call<T: AsRef<[u8]>>(&mut self, arguments: &[T]) -> io::Result<Value> {
        self.send(&encode(arguments))?;
        self.read()
    }

    /// Sends a command written as one line, words split at blanks.
    pub fn run(&mut self, line: &str) -> Value {
        self.call(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Reads one reply.
    pub fn read(&mut self) -> io::Result<Value> {
        loop {
            if let Some((value, used)) = parse(&self.buffer[self.start..])? {
                self.start += used;
                if self.start == self.buffer.len() {
                    self.buffer.clear();
                    self.start = 0;
                }
                return Ok(value);
            }
            let mut chunk = [0; 16 * 1024];
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&chunk[..read]);
        }
    }

    /// Reads until the other side closes and returns all of it.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = self.buffer.split_off(self.start);
        self.buffer.clear();
        self.start = 0;
        match self.stream.read_to_end(&mut rest) {
            // A peer that closes with unread input answers with a reset: closed is closed.
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            _ => Ok(rest),
        }
    }

    /// Whether the other side has closed; waits for it at most as long as a read may take.
    pub fn is_closed(&mut self) -> bool {
        loop {
            match self.read() {
                Ok(_) => {}
                Err(error) => {
                    return matches!(
                        error.kind(),
                        io::ErrorKind::UnexpectedEof
                            | io::ErrorKind::ConnectionReset
                            | io::ErrorKind::BrokenPipe
                    );
                }
            }
        }
    }
}

/// A command as bytes.
pub fn encode<T: AsRef<[u8]>>(arguments: &[T]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The first value in `bytes` and its length, `None` if it is not complete yet.
pub fn parse(bytes: &[u8]) -> io::Result<Option<(Value, usize)>> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
        return Ok(None);
    };
    let line = bytes[1..end].to_vec();
    let next = end + 2;
    let bad = || io::Error::other(format!("not a reply: {:?}", &bytes[..end]));
    let value = match bytes[0] {
        b'+' => Value::Simple(line),
        b'-' => Value::Error(line),
        b':' => Value::Integer(line),
        b',' => Value::Double(line),
        b'#' => Value::Bool(line),
        b'(' => Value::BigNumber(line),
        b'_' => Value::Null,
        b'$' if line == b"-1" => Value::NullBulk,
        b'*' if line == b"-1" => Value::NullArray,
        b'$' | b'=' | b'!' => {
            let length = number(&line).ok_or_else(bad)?;
            let Some(body) = bytes.get(next..next + length + 2) else {
                return Ok(None);
            };
            let body = body[..length].to_vec();
            let value = match bytes[0] {
                b'$' => Value::Bulk(body),
                b'=' => Value::Verbatim(body),
                _ => Value::BlobError(body),
            };
            return Ok(Some((value, next + length + 2)));
        }
        kind @ (b'*' | b'%' | b'~' | b'>') => {
            let mut count = number(&line).ok_or_else(bad)?;
            if kind == b'%' {
                count *= 2;
            }
            return parse_items(bytes, next, kind, count);
        }
        _ => return Err(bad()),
    };
    Ok(Some((value, next)))
}

fn parse_items(
    bytes: &[u8],
    mut next: usize,
    kind: u8,
    count: usize,
) -> io::Result<Option<(Value, usize)>> {
    let mut items = Vec::new();
    for _ in 0..count {
        let Some((item, used)) = bytes.get(next..).map_or(Ok(None), parse)? else {
            return Ok(None);
        };
        items.push(item);
        next += used;
    }
    let value = match kind {
        b'*' => Value::Array(items),
        b'%' => Value::Map(items),
        b'~' => Value::Set(items),
        _ => Value::Push(items),
    };
    Ok(Some((value, next)))
}

fn number(line: &[u8]) -> Option<usize> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

impl Value {
    /// The integer in it.
    pub fn integer(&self) -> i64 {
        let Self::Integer(digits) = self else {
            crate::environment::unusable(&format!("not an integer: {self}"));
        };
        std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .expect("an integer reply holds digits")
    }

    /// The items of an aggregate.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) | Self::Map(items) | Self::Set(items) | Self::Push(items) => items,
            other => crate::environment::unusable(&format!("not an aggregate: {other}")),
        }
    }

    /// The bytes of a string of any kind.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Simple(bytes)
            | Self::Bulk(bytes)
            | Self::Error(bytes)
            | Self::Verbatim(bytes)
            | Self::Integer(bytes)
            | Self::Double(bytes) => bytes,
            other => crate::environment::unusable(&format!("not a string: {other}")),
        }
    }

    /// Its bytes as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// Whether it is an error reply.
    pub const fn is_error(&self) -> bool {
        matches!(self, Self::Error(_) | Self::BlobError(_))
    }
}

impl PartialEq<&str> for Value {
    fn eq(&self, other: &&str) -> bool {
        self.to_string().as_str() == *other
    }
}

/// Bytes as text; what cannot be shown is escaped.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b' '..=b'~' => text.push(char::from(*byte)),
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            other => text.extend(["\\x".to_owned(), format!("{other:02x}")]),
        }
    }
    text
}

/// With the kind of encoding, strings as text.
impl fmt::Debug for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes) = match self {
            Self::Simple(bytes) => ("Simple", bytes),
            Self::Error(bytes) => ("Error", bytes),
            Self::Integer(bytes) => ("Integer", bytes),
            Self::Bulk(bytes) => ("Bulk", bytes),
            Self::Double(bytes) => ("Double", bytes),
            Self::Bool(bytes) => ("Bool", bytes),
            Self::BigNumber(bytes) => ("BigNumber", bytes),
            Self::Verbatim(bytes) => ("Verbatim", bytes),
            Self::BlobError(bytes) => ("BlobError", bytes),
            Self::NullBulk => return out.write_str("NullBulk"),
            Self::NullArray => return out.write_str("NullArray"),
            Self::Null => return out.write_str("Null"),
            Self::Array(items) => return write!(out, "Array{items:?}"),
            Self::Map(items) => return write!(out, "Map{items:?}"),
            Self::Set(items) => return write!(out, "Set{items:?}"),
            Self::Push(items) => return write!(out, "Push{items:?}"),
        };
        write!(out, "{name}({})", shown(bytes))
    }
}

/// As `redis-cli` would show it, on one line.
impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |out: &mut fmt::Formatter<'_>, open: &str, items: &[Self], close: &str| {
            out.write_str(open)?;
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.write_str(" ")?;
                }
                write!(out, "{item}")?;
            }
            out.write_str(close)
        };
        match self {
            Self::Simple(bytes) | Self::Bulk(bytes) | Self::Verbatim(bytes) => {
                write!(out, "{}", shown(bytes))
            }
            Self::Error(bytes) | Self::BlobError(bytes) => {
                write!(out, "-{}", shown(bytes))
            }
            Self::Integer(digits)
            | Self::Double(digits)
            | Self::Bool(digits)
            | Self::BigNumber(digits) => write!(out, "{}", shown(digits)),
            Self::NullBulk | Self::NullArray | Self::Null => out.write_str("(nil)"),
            Self::Array(items) => list(out, "[", items, "]"),
            Self::Map(items) => list(out, "{", items, "}"),
            Self::Set(items) => list(out, "~[", items, "]"),
            Self::Push(items) => list(out, ">[", items, "]"),
        }
    }
}
