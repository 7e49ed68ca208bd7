//! The log: lines for people or one JSON object per line, on standard error.
//!
//! `PANNIER_LOG_LEVEL` is the level of everything. Nothing that is logged holds a key's value or a
//! secret; that is up to the callers, whose types redact themselves (P10).

use std::{fmt, io::IsTerminal as _};

use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use crate::args::LogForm;

const LEVEL: &str = "PANNIER_LOG_LEVEL";

/// The level is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{LEVEL} is {0:?}, which is not a log level; write error, warn, info, debug or trace")]
pub struct LevelError(String);

/// Starts logging; to be called once, before anything else.
pub fn init(form: LogForm) -> Result<(), LevelError> {
    let text = std::env::var_os(LEVEL).map(|text| text.to_string_lossy().into_owned());
    let level = level(text.as_deref())?;
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr);
    match form {
        LogForm::Plain => {
            let colours = std::io::stderr().is_terminal();
            builder.with_ansi(colours).event_format(Plain).init();
        }
        LogForm::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

fn level(text: Option<&str>) -> Result<LevelFilter, LevelError> {
    let text = text.unwrap_or_default();
    match text.to_ascii_lowercase().as_str() {
        "" | "info" => Ok(LevelFilter::INFO),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(LevelError(text.to_owned())),
    }
}

/// `2026-01-02T03:04:05.678901Z INFO  message field=value`: time, level, words.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        let level = event.metadata().level();
        match (writer.has_ansi_escapes(), colour(*level)) {
            (true, Some(colour)) => write!(writer, " \x1b[{colour}m{level:<5}\x1b[0m ")?,
            _ => write!(writer, " {level:<5} ")?,
        }
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

fn colour(level: Level) -> Option<&'static str> {
    match level {
        Level::ERROR => Some("31"),
        Level::WARN => Some("33"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Buffer {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    impl Buffer {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn a_plain_line_has_time_level_and_words() {
        let buffer = Buffer::default();
        let log = tracing_subscriber::fmt()
            .with_writer(buffer.clone())
            .with_ansi(false)
            .event_format(Plain)
            .finish();
        tracing::subscriber::with_default(log, || tracing::warn!(rule = "ghosts", "never applies"));
        let text = buffer.text();
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{text}");
        assert_eq!(rest, "WARN  never applies rule=\"ghosts\"\n");
    }

    #[test]
    fn a_json_line_is_one_object_with_a_timestamp() {
        let buffer = Buffer::default();
        let log = tracing_subscriber::fmt()
            .with_writer(buffer.clone())
            .json()
            .flatten_event(true)
            .finish();
        tracing::subscriber::with_default(log, || tracing::info!(rules = 3, "two\nlines"));
        let text = buffer.text();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "two\nlines");
        assert_eq!(line["rules"], 3);
        assert!(line["timestamp"].as_str().unwrap().starts_with("20"));
    }

    #[test]
    fn a_level_that_does_not_exist_is_named() {
        assert_eq!(level(None), Ok(LevelFilter::INFO));
        assert_eq!(level(Some("DEBUG")), Ok(LevelFilter::DEBUG));
        let error = level(Some("loud")).unwrap_err().to_string();
        assert!(
            error.contains("\"loud\"") && error.contains("PANNIER_LOG_LEVEL"),
            "{error}"
        );
    }
}
