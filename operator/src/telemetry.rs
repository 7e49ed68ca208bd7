//! Logs: JSON lines on standard error, filtered by `RUST_LOG`-like words in `PANNIER_LOG`.

use tracing::Level;

/// Starts the log; `PANNIER_LOG` is `error`, `warn`, `info` (default), `debug` or `trace`.
pub fn start() {
    let level = std::env::var("PANNIER_LOG")
        .ok()
        .and_then(|word| word.parse::<Level>().ok())
        .unwrap_or(Level::INFO);
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .init();
}
