//! `e2e-app`: see the library's module `app`. Its image is built by the tests and knows nothing of
//! Pannier.
//!
//!   e2e-app first                            one command, then the end: exit code 1 if it failed
//!   e2e-app run [--for SECONDS] [--linger SECONDS]
//!                                            traffic until SIGTERM, and for so long after it
//!   e2e-app idle ADDRESS                     answers every HTTP request, for comparison

use std::{
    fs,
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use e2e::app::{PORT, Report, Traffic, cache, first, serve};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// Where the kubelet looks for last words.
const TERMINATION_MESSAGE: &str = "/dev/termination-log";

fn main() -> ExitCode {
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(run(begun)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("e2e-app: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(begun: Instant) -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = |name: &str| -> Result<Option<Duration>, String> {
        let Some(at) = arguments.iter().position(|one| one == name) else {
            return Ok(None);
        };
        let value = arguments.get(at + 1).and_then(|text| text.parse().ok());
        let value = value.ok_or_else(|| format!("{name} needs a number of seconds"))?;
        Ok(Some(Duration::from_secs(value)))
    };
    let mut term = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    match arguments.first().map(String::as_str) {
        Some("idle") => {
            let address = arguments.get(1).and_then(|text| text.parse().ok());
            let address = address.ok_or("idle needs an address such as 0.0.0.0:9464")?;
            serve(address, None).map_err(|error| format!("{address}: {error}"))?;
            term.recv().await;
            Ok(())
        }
        Some("first") => {
            let traffic = opened(begun)?;
            let report = traffic.report();
            last_words(&report)?;
            if report.first == "PONG" {
                Ok(())
            } else {
                Err(report.first)
            }
        }
        Some("run") => {
            let traffic = opened(begun)?;
            let address = SocketAddr::from(([0, 0, 0, 0], PORT));
            serve(address, Some(traffic.clone())).map_err(|error| format!("{address}: {error}"))?;
            traffic.start();
            let end = seconds("--for")?.unwrap_or(Duration::from_hours(24 * 365));
            tokio::select! {
                _ = term.recv() => {
                    traffic.terminate();
                    sleep(seconds("--linger")?.unwrap_or_default()).await;
                }
                () = sleep(end) => {}
            }
            last_words(&traffic.report())
        }
        _ => Err(
            "usage: e2e-app first | run [--for SECONDS] [--linger SECONDS] | idle ADDRESS"
                .to_owned(),
        ),
    }
}

/// The first command, before anything else is done.
fn opened(begun: Instant) -> Result<Traffic, String> {
    let address = cache()?;
    let answer = first(&address);
    let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "app".to_owned());
    let traffic = Traffic::new(&address, &name);
    traffic.note_first(
        answer.map_or_else(|error| error, |()| "PONG".to_owned()),
        begun.elapsed(),
    );
    Ok(traffic)
}

fn last_words(report: &Report) -> Result<(), String> {
    let text = serde_json::to_string(report).map_err(|error| error.to_string())?;
    println!("{text}");
    // Absent outside a pod.
    match fs::write(TERMINATION_MESSAGE, &text) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{TERMINATION_MESSAGE}: {error}"))
        }
        _ => Ok(()),
    }
}
