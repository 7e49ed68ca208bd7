//! What a scrape shows.

use policy::{Policy, SidecarConfig};

use super::*;
use crate::{config::Credentials, state::Active};

fn shared(yaml: &str, threads: usize) -> Arc<Shared> {
    let config = SidecarConfig::from_yaml(yaml).unwrap();
    let policy = Policy::compile(&config).unwrap();
    Shared::new(
        Active {
            config,
            policy,
            prefix: None,
            credentials: Credentials::default(),
        },
        threads,
    )
}

const RULES: &str = "upstream: {host: h}\nrules: [{name: ghosts, match: 'a:{id}'}]";

#[test]
fn every_metric_of_the_table_is_shown_with_its_labels() {
    // Shown where a circuit breaker is declared, for servers that have links.
    let breaker = "resilience: {circuitBreaker: {failures: 3, openFor: 1s}}";
    let shared = shared(&format!("{RULES}\n{breaker}"), 1);
    let _server = shared.healths.get("h:6379");
    let get = CommandId::Get as usize;
    shared.counters[0].commands[get].outcomes[Outcome::Ok as usize].inc();
    shared.counters[0].commands[get].duration.observe(1, 1);
    // Shown once the server has said them.
    shared.upstream.update(|facts| {
        facts.tracking_table.keys = Some(1);
        facts.tracking_table.max_keys = Some(2);
    });
    let counters = Counters {
        shared,
        descriptions: Vec::new(),
    };
    let families = counters.collect();
    assert_eq!(families.len(), table::ALL.len());
    for metric in table::ALL {
        let family = families
            .iter()
            .find(|family| family.name() == metric.name)
            .unwrap();
        assert_eq!(family.help(), metric.help);
        for sample in family.get_metric() {
            let labels: Vec<&str> = sample.get_label().iter().map(|pair| pair.name()).collect();
            assert_eq!(labels, metric.labels, "{}", metric.name);
        }
    }
}

#[test]
fn counters_of_all_loops_are_added() {
    let shared = shared(RULES, 2);
    for (index, counters) in shared.counters.iter().enumerate() {
        counters.rules[0].hits.add(3 + index as u64);
        counters.flushes[0].inc();
        let get = &counters.commands[CommandId::Get as usize];
        get.outcomes[Outcome::Ok as usize].add(2);
        get.duration.observe(80_000, 1);
        get.duration.observe(2_000_000_000, 1);
    }
    shared.counters_of_listener.connections.add(4);
    let text = Exporter::new(shared).text();
    for line in [
        "pannier_connections_total 4",
        "# TYPE pannier_cache_requests_total counter",
        "pannier_cache_requests_total{tier=\"l1\",result=\"hit\"} 7",
        "pannier_rule_requests_total{rule=\"ghosts\",result=\"hit\"} 7",
        "pannier_cache_flushes_total{reason=\"link_lost\"} 2",
        "pannier_commands_total{cmd=\"get\",outcome=\"ok\"} 4",
        "pannier_command_duration_seconds_bucket{cmd=\"get\",le=\"0.00005\"} 0",
        "pannier_command_duration_seconds_bucket{cmd=\"get\",le=\"0.0001\"} 2",
        "pannier_command_duration_seconds_bucket{cmd=\"get\",le=\"1\"} 2",
        "pannier_command_duration_seconds_bucket{cmd=\"get\",le=\"+Inf\"} 4",
        "pannier_command_duration_seconds_count{cmd=\"get\"} 4",
        "pannier_command_duration_seconds_sum{cmd=\"get\"} 4.00016",
        "pannier_upstream_up 0",
        "pannier_config_last_reload_successful 1",
        concat!(
            "pannier_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        ),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line:?} is missing in:\n{text}"
        );
    }
    assert!(
        !text.contains("cmd=\"set\""),
        "commands that were not seen are left out"
    );
}

#[test]
fn without_redis_there_is_no_series_that_says_it_is_down() {
    let text = Exporter::new(shared("tier: t", 1)).text();
    assert!(!text.contains("pannier_upstream_up"), "{text}");
    assert!(text.contains("pannier_memory_max_bytes 67108864"), "{text}");
}

#[test]
fn what_was_counted_stays_when_a_rule_goes() {
    let shared = shared(RULES, 1);
    shared.counters[0].rules[0].hits.add(5);
    let config = SidecarConfig::from_yaml("rules: [{name: other, match: 'b:{id}'}]").unwrap();
    let policy = Policy::compile(&config).unwrap();
    shared.activate(Active {
        config,
        policy,
        prefix: None,
        credentials: Credentials::default(),
    });
    let text = Exporter::new(shared).text();
    assert!(
        text.contains("pannier_cache_requests_total{tier=\"l1\",result=\"hit\"} 5"),
        "{text}"
    );
    assert!(
        text.contains("pannier_rule_requests_total{rule=\"other\",result=\"hit\"} 0"),
        "{text}"
    );
    assert!(!text.contains("ghosts"), "{text}");
}
