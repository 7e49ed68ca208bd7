//! Starts `pannier-sidecar` from a configuration file written here, and reads its admin port.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::process::{Core, Folder, Launch, Process, free_ports};

/// What the configuration file says; everything else keeps its default, so tracking is on.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Port of the Redis behind it.
    pub upstream: u16,
    /// Number of rules. The rule that matches the benchmark's keys is the last one.
    pub rules: u32,
    /// `local.memory`.
    pub memory: &'static str,
    /// `keyspace.prefix`.
    pub prefix: &'static str,
    /// Whether that Redis is a node of a cluster.
    pub cluster: bool,
    /// Core to run on.
    pub core: Core,
}

impl Settings {
    /// 50 rules and room for every key.
    pub fn new(upstream: u16, core: Core) -> Self {
        Self {
            upstream,
            rules: 50,
            memory: "64Mi",
            prefix: "",
            cluster: false,
            core,
        }
    }

    /// The file's text. Half of the rules share their first segment with the benchmark's keys.
    fn yaml(&self) -> String {
        let mut text = format!(
            "tier: bench/bench\n\
             keyspace:\n  prefix: \"{}\"\n\
             upstream:\n  mode: {}\n  host: 127.0.0.1\n  port: {}\n\
             local:\n  memory: {}\n\
             sidecar:\n  maxClients: 12000\n\
             rules:\n",
            self.prefix,
            if self.cluster {
                "Cluster"
            } else {
                "Standalone"
            },
            self.upstream,
            self.memory
        );
        for n in 1..self.rules {
            let pattern = match n % 2 {
                0 => format!("bench:area{n}:{{id}}"),
                _ => format!("app{n}:{{tenant}}:orders:{{id}}"),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "- name: rule-{n}\n  match: \"{pattern}\"");
        }
        text.push_str("- name: bench\n  match: \"bench:kv:{id}\"\n");
        text
    }
}

/// A running sidecar.
#[derive(Debug)]
pub struct Sidecar {
    /// The process under test.
    pub process: Process,
    /// Its Redis port.
    pub port: u16,
    /// Its probes and metrics.
    pub admin: u16,
    /// From before its start to the first 200 of `/ready`.
    pub ready_after: Duration,
}

impl Sidecar {
    /// Starts it and asks `/ready` every millisecond until it says yes.
    pub fn start(name: &str, binary: &Path, settings: &Settings, folder: &Folder) -> Outcome<Self> {
        Self::launch(name, Launch::new(binary, &[]), settings, folder)
    }

    /// The same with a command line to which the sidecar's arguments are added.
    pub fn launch(
        name: &str,
        mut launch: Launch,
        settings: &Settings,
        folder: &Folder,
    ) -> Outcome<Self> {
        let config = folder.write(&format!("{name}.yaml"), &settings.yaml())?;
        let [port, http, admin] = free_ports()?;
        let address = |port: u16| format!("127.0.0.1:{port}");
        let config = config.display().to_string();
        let args = [
            "--config",
            &config,
            "--listen",
            &address(port),
            "--http",
            &address(http),
            "--admin",
            &address(admin),
            "--log",
            "json",
        ];
        launch.args.extend(args.iter().map(ToString::to_string));
        launch.core = settings.core;
        let command = launch.command();
        let begin = Instant::now();
        let mut process = Process::spawn(name, command, folder.path())?;
        loop {
            if get(admin, "/ready").is_ok_and(|(status, _)| status == 200) {
                break;
            }
            process.check_alive()?;
            if begin.elapsed() > Duration::from_mins(1) {
                return Err(Failure::Program {
                    program: name.to_owned(),
                    detail: "not ready after a minute".to_owned(),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Self {
            process,
            port,
            admin,
            ready_after: begin.elapsed(),
        })
    }

    /// The value of a metric, the sum of its series if it has labels.
    pub fn metric(&self, name: &str) -> Outcome<f64> {
        let (_, text) = get(self.admin, "/metrics")?;
        sum_of_series(&text, name)
            .ok_or_else(|| Failure::Missing(format!("/metrics has no {name}")))
    }
}

fn sum_of_series(text: &str, name: &str) -> Option<f64> {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = rest.strip_prefix(' ').or_else(|| {
                let labels = rest.strip_prefix('{')?;
                Some(labels.split_once("} ")?.1)
            })?;
            value.trim().parse::<f64>().ok()
        })
        .reduce(|sum, value| sum + value)
}

/// One HTTP/1.1 request; status and body.
fn get(port: u16, path: &str) -> Outcome<(u16, String)> {
    let failed = || Failure::io(format!("get {path}"));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed())?;
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .map_err(failed())?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed())?;
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Failure::Answer {
        request: path.to_owned(),
        answer: text.lines().next().unwrap_or_default().to_owned(),
    })?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

/// The binary to measure: the one given, else the one built beside the bench, else the workspace's.
pub fn binary(given: Option<PathBuf>) -> Outcome<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .map(|bench| bench.with_file_name("pannier-sidecar"));
    let places = match given {
        Some(path) => vec![path],
        None => beside
            .into_iter()
            .chain([PathBuf::from("target/release/pannier-sidecar")])
            .collect(),
    };
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let tried: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
        Failure::Missing(format!(
            "no sidecar at {}; run `cargo build --release -p pannier-sidecar` or give --sidecar",
            tried.join(" or ")
        ))
    })
}

/// The sidecar's version line.
pub fn version(binary: &Path) -> String {
    let output = Command::new(binary).arg("--version").output();
    output.map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_of_the_benchmark_is_the_last_of_the_number_asked_for() {
        let yaml = Settings {
            rules: 10,
            ..Settings::new(6379, Core::Any)
        }
        .yaml();
        assert_eq!(yaml.matches("- name: ").count(), 10);
        assert!(yaml.ends_with("match: \"bench:kv:{id}\"\n"));
    }

    #[test]
    fn a_metric_is_the_sum_of_its_series_and_of_no_other_metric() {
        let text = "# TYPE a gauge\na{tier=\"l1\"} 2\na{tier=\"l2\"} 3\na_total 9\nb 7\n";
        assert_eq!(sum_of_series(text, "a"), Some(5.0));
        assert_eq!(sum_of_series(text, "b"), Some(7.0));
        assert_eq!(sum_of_series(text, "c"), None);
    }
}
