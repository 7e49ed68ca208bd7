//! What is asked of Redis for a cached read, what its answer tells about the key, and how it is
//! passed on.

use smallvec::SmallVec;

use crate::{
    command::CommandId,
    resp::{
        Proto, downgrade,
        reply::{Value, is_error, is_null},
        write::{Reply, command},
    },
    tier::{
        Body, Part, Parts, Query, Range, Ranges, Sorted, Span,
        parts::{self, MAX_PARTIAL, Named},
        ranges, sorted,
    },
};

/// What is asked of Redis for a query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// `GET`
    Value,
    /// `STRLEN`
    Length,
    /// `TYPE`, for everything that only depends on whether there is such a key
    Type,
    /// `HGET`
    Field(Box<[u8]>),
    /// `HMGET`
    SomeFields(Box<[Box<[u8]>]>),
    /// `HEXISTS`
    HasField(Box<[u8]>),
    /// `HLEN`
    FieldCount,
    /// `HGETALL`
    Fields,
    /// `SMEMBERS`
    Members,
    /// `SISMEMBER`
    HasMember(Box<[u8]>),
    /// `SCARD`
    MemberCount,
    /// `LRANGE`
    ListRange(Span),
    /// `LLEN`
    ListLength,
    /// `ZRANGE`
    SortedRange(Span),
    /// `ZSCORE`
    Score(Box<[u8]>),
    /// `ZCARD`
    SortedCount,
}

/// A number of a command line, in decimal.
type Digits = SmallVec<[u8; 24]>;

impl Question {
    /// The question that answers a query; `None` if the answer could not be kept.
    pub fn of(query: Query<'_>) -> Option<Self> {
        Some(match query {
            Query::Get => Self::Value,
            Query::StrLen => Self::Length,
            Query::Exists | Query::Type | Query::Ttl | Query::Pttl => Self::Type,
            Query::HGet(field) => Self::Field(field.into()),
            Query::HGetAll => Self::Fields,
            Query::HMGet(fields) if fields.len() > MAX_PARTIAL => return None,
            Query::HMGet(fields) => {
                Self::SomeFields(fields.iter().map(|field| Box::from(*field)).collect())
            }
            Query::HExists(field) => Self::HasField(field.into()),
            Query::HLen => Self::FieldCount,
            Query::SMembers => Self::Members,
            Query::SIsMember(member) => Self::HasMember(member.into()),
            Query::SCard => Self::MemberCount,
            Query::LRange(span) => Self::ListRange(span),
            Query::LLen => Self::ListLength,
            Query::ZRange(span) => Self::SortedRange(span),
            Query::ZScore(member) => Self::Score(member.into()),
            Query::ZCard => Self::SortedCount,
        })
    }

    /// Appends it as a command.
    pub fn write(&self, key: &[u8], out: &mut Vec<u8>) {
        self.with_words(self.name(), key, |words| command(out, words));
    }

    /// The words of a command `name` that asks this of `key`.
    pub fn with_words<T>(&self, name: &[u8], key: &[u8], run: impl FnOnce(&[&[u8]]) -> T) -> T {
        let numbers: [Digits; 2];
        let mut words: SmallVec<[&[u8]; 8]> = SmallVec::new();
        words.extend([name, key]);
        match self {
            Self::Field(name)
            | Self::HasField(name)
            | Self::HasMember(name)
            | Self::Score(name) => {
                words.push(name);
            }
            Self::SomeFields(names) => words.extend(names.iter().map(|name| &**name)),
            Self::ListRange(span) | Self::SortedRange(span) => {
                numbers = [digits(span.start), digits(span.stop)];
                words.extend(numbers.iter().map(|number| &**number));
                if span.scores {
                    words.push(b"WITHSCORES");
                }
            }
            Self::Value
            | Self::Length
            | Self::Type
            | Self::Fields
            | Self::FieldCount
            | Self::Members
            | Self::MemberCount
            | Self::ListLength
            | Self::SortedCount => {}
        }
        run(&words)
    }

    fn name(&self) -> &'static [u8] {
        match self {
            Self::Value => b"GET",
            Self::Length => b"STRLEN",
            Self::Type => b"TYPE",
            Self::Field(_) => b"HGET",
            Self::SomeFields(_) => b"HMGET",
            Self::HasField(_) => b"HEXISTS",
            Self::FieldCount => b"HLEN",
            Self::Fields => b"HGETALL",
            Self::Members => b"SMEMBERS",
            Self::HasMember(_) => b"SISMEMBER",
            Self::MemberCount => b"SCARD",
            Self::ListRange(_) => b"LRANGE",
            Self::ListLength => b"LLEN",
            Self::SortedRange(_) => b"ZRANGE",
            Self::Score(_) => b"ZSCORE",
            Self::SortedCount => b"ZCARD",
        }
    }

    /// The command of a client that waits for the answer: several commands ask for the type.
    pub fn command(&self, asked: CommandId) -> &'static [u8] {
        match asked {
            CommandId::Exists => b"EXISTS",
            CommandId::Ttl => b"TTL",
            CommandId::Pttl => b"PTTL",
            CommandId::PannierRead => b"PANNIER.READ",
            _ => self.name(),
        }
    }

    /// What a reply says about the key; `None`: nothing that could be kept. `absent`: there is no
    /// such key, which most replies do not tell from an empty value.
    pub fn body<'a>(
        &self,
        frame: &'a [u8],
        absent: bool,
        scratch: &'a mut Vec<u8>,
    ) -> Option<Body<'a>> {
        let value = Value::read(frame).ok()?;
        if self.is_empty(&value) && (absent || self.has_no_empty_form()) {
            return Some(Body::Missing);
        }
        Some(match (self, value) {
            (_, Value::Error(_)) => return None,
            (Self::Value, Value::Text(text)) => Body::Text(text),
            (Self::Type, Value::Text(name)) => Body::Typed(name),
            (Self::Length, Value::Integer(len)) => Body::TextLen(len.unsigned_abs()),
            (Self::Field(field), value) => some_fields(scratch, &[(field, part(&value)?)]),
            (Self::HasField(field), Value::Integer(has)) => {
                some_fields(scratch, &[(field, presence(has))])
            }
            (Self::SomeFields(names), Value::List(values)) if names.len() == values.len() => {
                let fields: Option<Vec<Named<'_>>> = names
                    .iter()
                    .zip(&values)
                    .map(|(name, value)| Some((&**name, part(value)?)))
                    .collect();
                some_fields(scratch, &fields?)
            }
            (Self::FieldCount, Value::Integer(count)) => {
                *scratch = parts::some(Some(count.unsigned_abs()), &[]);
                Body::Hash(Parts::new(false, scratch))
            }
            (Self::Fields, Value::Map(pairs)) => {
                let fields: Option<Vec<Named<'_>>> = pairs
                    .iter()
                    .map(|(field, value)| Some((field.text()?, Part::Value(value.text()?))))
                    .collect();
                *scratch = parts::all(&fields?)?;
                Body::Hash(Parts::new(true, scratch))
            }
            (Self::Members, Value::List(members)) => {
                let members: Option<Vec<Named<'_>>> = members
                    .iter()
                    .map(|member| Some((member.text()?, Part::Present)))
                    .collect();
                *scratch = parts::all(&members?)?;
                Body::Set(Parts::new(true, scratch))
            }
            (Self::HasMember(member), Value::Integer(has)) => {
                *scratch = parts::some(None, &[(member, presence(has))]);
                Body::Set(Parts::new(false, scratch))
            }
            (Self::MemberCount, Value::Integer(count)) => {
                *scratch = parts::some(Some(count.unsigned_abs()), &[]);
                Body::Set(Parts::new(false, scratch))
            }
            (Self::ListRange(span), Value::List(items)) => {
                *scratch = ranges::write(None, &[range(*span, &items, frame)?])?;
                Body::List(Ranges::new(scratch))
            }
            (Self::ListLength, Value::Integer(len)) => {
                *scratch = ranges::write(Some(len.unsigned_abs()), &[])?;
                Body::List(Ranges::new(scratch))
            }
            (Self::SortedRange(span), Value::List(items)) => {
                *scratch = sorted::write(None, Some(range(*span, &items, frame)?), None)?;
                Body::Sorted(Sorted::new(scratch))
            }
            (Self::Score(member), value) => {
                *scratch = sorted::write(None, None, Some((member, part(&value)?)))?;
                Body::Sorted(Sorted::new(scratch))
            }
            (Self::SortedCount, Value::Integer(count)) => {
                *scratch = sorted::write(Some(count.unsigned_abs()), None, None)?;
                Body::Sorted(Sorted::new(scratch))
            }
            _ => return None,
        })
    }

    /// Whether this is how Redis answers for a key that does not exist.
    fn is_empty(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Type, Value::Text(b"none")) | (_, Value::Null | Value::Integer(0)) => true,
            (Self::SomeFields(_), Value::List(values)) => {
                values.iter().all(|value| *value == Value::Null)
            }
            (_, Value::List(items)) => items.is_empty(),
            (_, Value::Map(pairs)) => pairs.is_empty(),
            _ => false,
        }
    }

    /// Whether such an answer can have no other reason: a collection without elements is no key.
    fn has_no_empty_form(&self) -> bool {
        matches!(
            self,
            Self::Value
                | Self::Type
                | Self::Fields
                | Self::FieldCount
                | Self::Members
                | Self::MemberCount
                | Self::ListLength
                | Self::SortedCount
        )
    }
}

/// Writes the answer to `asked` for a client of that protocol version.
pub fn pass_on(asked: CommandId, frame: &[u8], pttl: i64, proto: Proto, out: &mut Vec<u8>) {
    if is_error(frame) {
        return out.extend_from_slice(frame);
    }
    let mut reply = Reply::new(out, proto);
    match asked {
        CommandId::Exists => reply.integer(i64::from(frame != b"+none\r\n")),
        CommandId::Pttl => reply.integer(pttl),
        CommandId::Ttl if pttl < 0 => reply.integer(pttl),
        CommandId::Ttl => reply.integer((pttl + 500) / 1000),
        _ if proto == Proto::Resp3 => out.extend_from_slice(frame),
        CommandId::Hgetall => downgrade::map(frame, out),
        CommandId::Smembers => downgrade::set(frame, out),
        CommandId::Hmget => downgrade::nullables(frame, out),
        CommandId::Zscore => downgrade::double(frame, out),
        CommandId::Zrange if has_scores(frame) => downgrade::scored(frame, out),
        _ if is_null(frame) => reply.null(),
        _ => out.extend_from_slice(frame),
    }
}

/// Whether the elements of a range are pairs.
fn has_scores(frame: &[u8]) -> bool {
    downgrade::split(frame).1.starts_with(b"*")
}

fn some_fields<'a>(scratch: &'a mut Vec<u8>, fields: &[Named<'_>]) -> Body<'a> {
    *scratch = parts::some(None, fields);
    Body::Hash(Parts::new(false, scratch))
}

fn part<'a>(value: &Value<'a>) -> Option<Part<'a>> {
    match value {
        Value::Null => Some(Part::Absent),
        Value::Text(text) => Some(Part::Value(text)),
        _ => None,
    }
}

fn presence(integer: i64) -> Part<'static> {
    if integer == 0 {
        Part::Absent
    } else {
        Part::Present
    }
}

/// A range as it came, if it has the expected shape.
fn range<'a>(span: Span, items: &[Value<'_>], frame: &'a [u8]) -> Option<Range<'a>> {
    let elements = downgrade::split(frame).1;
    let as_expected = items.iter().all(|item| match item {
        Value::Text(_) => !span.scores,
        Value::List(pair) => {
            span.scores && matches!(pair.as_slice(), [Value::Text(_), Value::Text(_)])
        }
        _ => false,
    });
    // What is kept is looked into byte by byte: strings must have their length in front.
    let kind = if span.scores { b'*' } else { b'$' };
    let prefixed = elements.first().is_none_or(|first| *first == kind);
    (as_expected && prefixed).then(|| Range {
        span,
        count: u32::try_from(items.len()).unwrap_or(u32::MAX),
        elements,
    })
}

fn digits(number: i64) -> Digits {
    let mut text = Digits::new();
    let mut plain = Vec::with_capacity(24);
    Reply::new(&mut plain, Proto::Resp2).integer(number);
    text.extend_from_slice(&plain[1..plain.len() - 2]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(question: &Question, frame: &str, absent: bool) -> String {
        let mut scratch = Vec::new();
        format!(
            "{:?}",
            question.body(frame.as_bytes(), absent, &mut scratch)
        )
    }

    #[test]
    fn errors_and_unexpected_shapes_tell_nothing() {
        let span = Span {
            start: 0,
            stop: -1,
            scores: false,
        };
        let questions = [
            Question::Value,
            Question::Fields,
            Question::SomeFields(Box::new([Box::from(*b"f")])),
            Question::FieldCount,
            Question::Members,
            Question::HasMember(Box::from(*b"m")),
            Question::MemberCount,
            Question::ListRange(span),
            Question::ListLength,
            Question::SortedRange(Span {
                scores: true,
                ..span
            }),
            Question::Score(Box::from(*b"m")),
            Question::SortedCount,
        ];
        for question in &questions {
            for frame in [
                "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
                "*1\r\n*1\r\n:1\r\n",
                "*2\r\n%0\r\n_\r\n",
                "garbage",
            ] {
                assert_eq!(told(question, frame, false), "None", "{question:?} {frame}");
            }
        }
        assert_eq!(
            told(&Question::ListRange(span), "*1\r\n+simple\r\n", false),
            "None"
        );
        assert_eq!(told(&Question::ListRange(span), "-ERR\r\n", true), "None");
    }

    #[test]
    fn an_empty_answer_means_no_key_only_where_it_cannot_mean_else() {
        let span = Span {
            start: 5,
            stop: 9,
            scores: false,
        };
        let field = || Box::from(*b"f");
        for (question, frame, certain) in [
            (Question::Value, "_\r\n", true),
            (Question::Members, "~0\r\n", true),
            (Question::Fields, "%0\r\n", true),
            (Question::FieldCount, ":0\r\n", true),
            (Question::Length, ":0\r\n", false),
            (Question::Field(field()), "_\r\n", false),
            (Question::HasField(field()), ":0\r\n", false),
            (
                Question::SomeFields(Box::new([field()])),
                "*1\r\n_\r\n",
                false,
            ),
            (Question::HasMember(field()), ":0\r\n", false),
            (Question::ListRange(span), "*0\r\n", false),
            (Question::SortedRange(span), "*0\r\n", false),
            (Question::Score(field()), "_\r\n", false),
        ] {
            assert_eq!(
                told(&question, frame, true),
                "Some(Missing)",
                "{question:?}"
            );
            assert_eq!(
                told(&question, frame, false) == "Some(Missing)",
                certain,
                "{question:?}"
            );
        }
    }

    #[test]
    fn a_question_is_asked_with_the_words_of_the_app() {
        let asked = |question: &Question| {
            let mut out = Vec::new();
            question.write(b"k", &mut out);
            String::from_utf8(out).unwrap()
        };
        let span = Span {
            start: i64::MIN,
            stop: -1,
            scores: true,
        };
        assert_eq!(
            asked(&Question::SortedRange(span)),
            "*5\r\n$6\r\nZRANGE\r\n$1\r\nk\r\n$20\r\n-9223372036854775808\r\n$2\r\n-1\r\n$10\r\nWITHSCORES\r\n"
        );
        assert_eq!(
            asked(&Question::SomeFields(Box::new([
                Box::from(*b"a"),
                Box::from(*b"b")
            ]))),
            "*4\r\n$5\r\nHMGET\r\n$1\r\nk\r\n$1\r\na\r\n$1\r\nb\r\n"
        );
    }
}
