//! Answers: JSON, and errors as RFC 9457 describes them. Each names the value and the remedy.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde_json::{Value, json};

use super::body;

/// A whole answer.
pub(crate) type Answer = Response<Full<Bytes>>;

const MAX_SHOWN: usize = 80;

/// An error for the client.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

// === impl Problem ===

impl Problem {
    pub(crate) fn new(status: StatusCode, title: &'static str) -> Self {
        Self {
            status,
            title,
            detail: None,
            headers: Vec::new(),
        }
    }

    pub(crate) fn detail(self, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..self
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn answer(self) -> Answer {
        let Self {
            status,
            title,
            detail,
            headers,
        } = self;
        let mut problem = json!({"type": "about:blank", "title": title, "status": status.as_u16()});
        if let Some(detail) = detail {
            problem["detail"] = Value::String(detail);
        }
        let mut answer = json(status, "application/problem+json", &problem);
        answer.headers_mut().extend(headers);
        answer
    }
}

/// JSON for people and programs: indented, with a line break at the end.
pub(crate) fn json(status: StatusCode, kind: &'static str, value: &Value) -> Answer {
    let text = format!("{value:#}\n");
    let mut answer = Response::new(body::full(text));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// The beginning of what a client sent, for messages.
pub(crate) fn short(text: &str) -> String {
    if text.chars().count() <= MAX_SHOWN {
        return text.to_owned();
    }
    text.chars().take(MAX_SHOWN).chain(['…']).collect()
}
