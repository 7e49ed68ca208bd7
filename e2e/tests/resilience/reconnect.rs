//! After an outage, the sidecars of many pods do not come back in step.

use std::{collections::BTreeMap, fmt::Write as _};

use e2e::{Engine, RedisServer, ServerOptions, Sidecar, SidecarOptions, wait};
use serde_json::json;

const SIDECARS: usize = 20;
/// Width of a bar of the histogram, in milliseconds.
const BAR: u64 = 10;

/// The times of `Accepted` in the log of the server, in milliseconds of the day.
fn accepted(log: &str) -> Vec<u64> {
    let time = |line: &str| {
        // 12345:M 21 Nov 2026 18:10:36.123 - Accepted 127.0.0.1:40000
        let clock = line.split_whitespace().nth(4)?;
        let (clock, millis) = clock.split_once('.')?;
        let seconds = clock
            .split(':')
            .try_fold(0, |sum, part| Some(sum * 60 + part.parse::<u64>().ok()?))?;
        Some(seconds * 1000 + millis.parse::<u64>().ok()?)
    };
    log.lines()
        .filter(|line| line.contains(" - Accepted "))
        .filter_map(time)
        .collect()
}

#[test]
fn twenty_sidecars_do_not_reconnect_in_step_after_a_restart() {
    let mut server = RedisServer::start(ServerOptions::of(Engine::Redis7).with("loglevel verbose"));
    let options = SidecarOptions::before(&server)
        .rule("cached", "c:{id}", json!({}))
        .config(json!({"resilience": {"backoffBase": "200ms", "backoffMax": "800ms"}}));
    let sidecars: Vec<Sidecar> = (0..SIDECARS).map(|_| Sidecar::start(&options)).collect();
    let connect = || {
        for sidecar in &sidecars {
            sidecar.until_connected();
            // Both links, the plain and the tracked one.
            assert!(!sidecar.connect().run("GET c:1").is_error());
        }
    };
    connect();
    server.kill();
    for sidecar in &sidecars {
        sidecar.until_disconnected();
    }
    let before = accepted(&server.log()).len();
    server.restart();
    connect();
    let times = wait::until("everyone is back", || {
        let mut times = accepted(&server.log()).split_off(before);
        times.sort_unstable();
        (times.len() >= 2 * SIDECARS).then_some(times)
    });
    let first = times[0];
    let mut bars: BTreeMap<u64, usize> = BTreeMap::new();
    for time in &times {
        *bars.entry((time - first) / BAR).or_default() += 1;
    }
    let mut histogram = String::new();
    for (bar, count) in &bars {
        let _ = writeln!(histogram, "{:>5} ms {}", bar * BAR, "#".repeat(*count));
    }
    println!("{} connections\n{histogram}", times.len());
    let most = bars.values().max().copied().unwrap_or(0);
    assert!(most * 3 < times.len(), "too many at a time:\n{histogram}");
    let (early, late) = (times[times.len() / 10], times[times.len() * 9 / 10]);
    assert!(late - early >= 40, "too close together:\n{histogram}");
}
