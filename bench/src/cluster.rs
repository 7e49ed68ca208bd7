//! A Redis Cluster of primaries only, made by hand.

use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::process::{Core, Folder, Process, free_port};
use crate::redis::{Client, Reply};
use crate::target::start_redis_with;
use crate::tools::Tools;

const SLOTS: usize = 16_384;

/// Starts `shards` nodes that share the slots; the port is that of the first.
pub fn start(
    shards: usize,
    tools: &Tools,
    folder: &Folder,
    core: Core,
) -> Outcome<(Vec<Process>, u16)> {
    let mut nodes = Vec::new();
    let mut ports = Vec::new();
    let mut buses = Vec::new();
    for shard in 0..shards {
        let name = format!("shard-{shard}");
        let file = folder.path().join(format!("{name}.nodes"));
        let file = file.display().to_string();
        // By itself it would take the port plus 10,000, which may be too high or taken.
        let bus = free_port()?.to_string();
        let settings = [
            "--cluster-enabled",
            "yes",
            "--cluster-config-file",
            &file,
            "--cluster-port",
            &bus,
        ];
        let (process, port) = start_redis_with(&name, tools, folder, core, &settings)?;
        let (first, last) = (shard * SLOTS / shards, (shard + 1) * SLOTS / shards - 1);
        ok(
            port,
            &[
                "CLUSTER",
                "ADDSLOTSRANGE",
                &first.to_string(),
                &last.to_string(),
            ],
        )?;
        nodes.push(process);
        ports.push(port);
        buses.push(bus);
    }
    let first = *ports
        .first()
        .ok_or_else(|| Failure::Missing("a cluster without shards".to_owned()))?;
    for (port, bus) in ports.iter().zip(&buses).skip(1) {
        let port = port.to_string();
        ok(first, &["CLUSTER", "MEET", "127.0.0.1", &port, bus])?;
    }
    let begin = Instant::now();
    while !ports.iter().all(|port| is_ok(*port)) {
        if begin.elapsed() > Duration::from_secs(30) {
            return Err(Failure::Missing(
                "the cluster is not ready after 30 s".to_owned(),
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((nodes, first))
}

fn ok(port: u16, words: &[&str]) -> Outcome<()> {
    match Client::connect(port)?.call(words)? {
        Reply::Line(line) if line == "+OK" => Ok(()),
        other => Err(Failure::Answer {
            request: words.join(" "),
            answer: format!("{other:?}"),
        }),
    }
}

fn is_ok(port: u16) -> bool {
    let info = Client::connect(port).and_then(|mut node| node.call(&["CLUSTER", "INFO"]));
    matches!(info, Ok(Reply::Bulk(text)) if String::from_utf8_lossy(&text).contains("cluster_state:ok"))
}
