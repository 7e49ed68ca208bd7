//! `/metrics`: reads the counters when Prometheus asks and writes them under the names of `table`.

use std::{collections::HashMap, sync::Arc};

use prometheus::{
    Registry, TextEncoder,
    core::{Collector, Desc},
    proto::{self, MetricFamily, MetricType},
};

use super::STALES;
use super::{
    BUCKETS_US, Counter, FLUSHES, Histogram, LoopCounters, Outcome, PROBED,
    rules::RuleFigures,
    table::{self, Kind, Metric},
};
use crate::{
    command::CommandId,
    state::{CoherenceState, Connection, Shared},
    upstream::health::CIRCUITS,
};

/// What `/metrics` shows.
pub struct Exporter(Registry);

/// Reads [`Shared`] when asked.
struct Counters {
    shared: Arc<Shared>,
    descriptions: Vec<Desc>,
}

/// The families of one answer.
#[derive(Default)]
struct Families(Vec<MetricFamily>);

// === impl Exporter ===

impl Exporter {
    /// An exporter of all counters of the process.
    pub fn new(shared: Arc<Shared>) -> Self {
        let describe = |metric: &Metric| {
            let labels = metric.labels.iter().map(ToString::to_string).collect();
            Desc::new(
                metric.name.to_owned(),
                metric.help.to_owned(),
                labels,
                HashMap::new(),
            )
            .expect("the table holds valid names only")
        };
        let descriptions = table::ALL.iter().map(describe).collect();
        let registry = Registry::new();
        registry
            .register(Box::new(Counters {
                shared,
                descriptions,
            }))
            .expect("the registry is new");
        Self(registry)
    }

    /// The text format of Prometheus.
    pub fn text(&self) -> String {
        let mut text = String::new();
        TextEncoder::new()
            .encode_utf8(&self.0.gather(), &mut text)
            .expect("families without samples are left out");
        text
    }
}

impl Collector for Counters {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        self.cache(&mut families);
        self.coherence(&mut families);
        self.rules(&mut families);
        self.commands(&mut families);
        self.clients(&mut families);
        self.upstream(&mut families);
        self.memory(&mut families);
        self.process(&mut families);
        families.0
    }
}

// === impl Counters ===

impl Counters {
    fn sum(&self, of: impl Fn(&LoopCounters) -> &Counter) -> u64 {
        self.shared.sum(of)
    }

    fn cache(&self, families: &mut Families) {
        let stats = self.shared.tier.stats();
        families.plain(
            &table::CACHE_COALESCED,
            self.sum(|counters| &counters.coalesced),
        );
        families.labelled(&table::CACHE_EVICTIONS, [(["size"], stats.evicted)]);
        families.plain(&table::CACHE_ENTRIES, stats.entries);
        families.plain(&table::CACHE_USED, stats.bytes);
        families.plain(&table::CACHE_MAX, stats.max_bytes);
        let flushes = (0..FLUSHES.len()).map(|index| {
            (
                [FLUSHES[index]],
                self.sum(|counters| &counters.flushes[index]),
            )
        });
        families.labelled(&table::CACHE_FLUSHES, flushes);
        families.plain(
            &table::CACHE_TOUCHES,
            self.sum(|counters| &counters.touches),
        );
        families.plain(
            &table::INVALIDATIONS,
            self.sum(|counters| &counters.invalidations),
        );
    }

    fn coherence(&self, families: &mut Families) {
        let loops = &self.shared.counters;
        let staleness = ["sent", "answered"]
            .iter()
            .enumerate()
            .map(|(index, since)| {
                let histograms = loops.iter().map(|counters| &counters.staleness[index]);
                ([*since], histogram(histograms))
            });
        families.histograms(&table::STALENESS, staleness);
        let probes = PROBED.iter().enumerate().map(|(index, result)| {
            let count = self.sum(|counters| &counters.probes[index]);
            ([*result], count)
        });
        families.labelled(&table::PROBES, probes);
        families.plain(&table::SAMPLES, self.sum(|counters| &counters.samples));
        let holds = self.shared.serving.mode();
        let modes = ["Active", "Shadow", "FellBack"];
        let modes = modes.map(|name| ([name], u64::from(name == holds.name())));
        families.labelled(&table::LOCAL_MODE, modes);
        let sampled = ["changed", "same"]
            .iter()
            .enumerate()
            .map(|(index, result)| {
                let count = self.sum(|counters| &counters.sampled_invalidations[index]);
                ([*result], count)
            });
        families.labelled(&table::SAMPLED_INVALIDATIONS, sampled);
        let tracked = self.shared.upstream.facts().tracking_table;
        for (metric, value) in [
            (&table::TRACKING_KEYS, tracked.keys),
            (&table::TRACKING_MAX_KEYS, tracked.max_keys),
        ] {
            if let Some(value) = value {
                families.plain(metric, value);
            }
        }
        let holds = match self.shared.upstream.facts().coherence {
            CoherenceState::Idle => "idle",
            CoherenceState::Tracking => "tracking",
            CoherenceState::Broadcast => "broadcast",
            CoherenceState::TtlOnly => "ttl_only",
            CoherenceState::Degraded(_) => "degraded",
        };
        let all = ["idle", "tracking", "broadcast", "ttl_only", "degraded"];
        let all = all.map(|name| ([name], u64::from(name == holds)));
        families.labelled(&table::COHERENCE, all);
    }

    fn rules(&self, families: &mut Families) {
        let policy = self.shared.active();
        let rules = self.shared.rule_figures();
        // Over all numbers, so that the sum does not shrink when a rule goes.
        let sum = RuleFigures::total(&self.shared.counters);
        let requests = |f: RuleFigures| [("hit", f.hits), ("miss", f.misses)];
        let fills = |f: RuleFigures| [("kept", f.fills), ("overtaken", f.fills_refused)];
        let of_all = requests(sum).map(|(result, count)| (["l1", result], count));
        families.labelled(&table::CACHE_REQUESTS, of_all);
        let of_all = fills(sum).map(|(result, count)| ([result], count));
        families.labelled(&table::CACHE_FILLS, of_all);
        let by_rule = |of: fn(RuleFigures) -> [(&'static str, u64); 2]| {
            let series = move |(name, figures): &(Arc<str>, RuleFigures)| {
                let name = name.to_string();
                of(*figures).map(|(result, count)| ([name.clone(), result.to_owned()], count))
            };
            rules.iter().flat_map(series)
        };
        families.labelled(&table::RULE_REQUESTS, by_rule(requests));
        families.labelled(&table::RULE_FILLS, by_rule(fills));
        let stale = rules.iter().flat_map(|(name, figures)| {
            let series = STALES.into_iter().zip(figures.stale);
            series.map(|(reason, count)| ([name.to_string(), reason.to_owned()], count))
        });
        families.labelled(&table::STALE, stale);
        let masked = rules
            .iter()
            .map(|(name, figures)| ([name.to_string()], figures.write_errors_masked));
        families.labelled(&table::RULE_MASKED, masked);
        let of_rule = |of: fn(&RuleFigures) -> u64| {
            let series =
                move |(name, figures): &(Arc<str>, RuleFigures)| ([name.to_string()], of(figures));
            rules.iter().map(series).collect::<Vec<_>>()
        };
        families.labelled(&table::STALE_SAMPLES, of_rule(|f| f.stale_samples));
        families.labelled(&table::SHADOW_HITS, of_rule(|f| f.shadow_hits));
        families.labelled(&table::SHADOW_MISMATCHES, of_rule(|f| f.shadow_mismatches));
        families.plain(&table::RULES, policy.policy.rules().len() as u64);
    }

    /// Only commands that were seen: a scrape is not a list of all of Redis.
    fn commands(&self, families: &mut Families) {
        let loops = &self.shared.counters;
        let mut outcomes = Vec::new();
        let mut durations = Vec::new();
        for index in 0..super::COMMANDS {
            let sum = |outcome: Outcome| -> u64 {
                loops
                    .iter()
                    .map(|c| c.commands[index].outcomes[outcome as usize].get())
                    .sum()
            };
            let (ok, error) = (sum(Outcome::Ok), sum(Outcome::Error));
            if ok + error == 0 {
                continue;
            }
            // The loops count by `CommandId`; its last one is for everything else.
            let name = CommandId::ALL.get(index).map_or("other", |(name, _)| name);
            outcomes.extend([([name, "ok"], ok), ([name, "error"], error)]);
            let histograms = loops.iter().map(|c| &c.commands[index].duration);
            let duration = histogram(histograms);
            // The sidecar's own answers are counted and not timed.
            if duration.get_sample_count() > 0 {
                durations.push(([name], duration));
            }
        }
        families.labelled(&table::COMMANDS, outcomes);
        families.histograms(&table::COMMAND_DURATION, durations);
        families.plain(&table::DENIED, self.sum(|counters| &counters.denied));
    }

    fn clients(&self, families: &mut Families) {
        families.plain(&table::CLIENTS, self.shared.clients.len() as u64);
        families.plain(
            &table::CONNECTIONS,
            self.sum(|counters| &counters.connections),
        );
        families.plain(&table::REJECTED, self.sum(|counters| &counters.rejected));
        families.plain(
            &table::SLOW_READERS,
            self.sum(|counters| &counters.slow_readers),
        );
        families.plain(
            &table::PROTOCOL_ERRORS,
            self.sum(|counters| &counters.protocol_errors),
        );
        families.plain(&table::RECEIVED, self.sum(|counters| &counters.bytes_in));
        families.plain(&table::SENT, self.sum(|counters| &counters.bytes_out));
    }

    fn upstream(&self, families: &mut Families) {
        match self.shared.upstream.facts().connection {
            Connection::None => {}
            state => families.plain(&table::UPSTREAM_UP, u64::from(state == Connection::Ready)),
        }
        let histograms = self
            .shared
            .counters
            .iter()
            .map(|counters| &counters.upstream);
        families.histograms(
            &table::UPSTREAM_DURATION,
            [([""; 0], histogram(histograms))],
        );
        families.plain(
            &table::UPSTREAM_CONNECTS,
            self.sum(|counters| &counters.upstream_connects),
        );
        families.plain(
            &table::UPSTREAM_ERRORS,
            self.sum(|counters| &counters.upstream_errors),
        );
        families.plain(
            &table::UPSTREAM_RETRIES,
            self.sum(|counters| &counters.upstream_retries),
        );
        self.topology(families);
        if self
            .shared
            .active()
            .config
            .resilience
            .circuit_breaker
            .is_some()
        {
            let servers = self.shared.healths.all();
            let states = servers.iter().flat_map(|server| {
                let now = server.circuit() as usize;
                let series = move |(index, state): (usize, &'static str)| {
                    let labels = [server.address.to_string(), state.to_owned()];
                    (labels, u64::from(index == now))
                };
                CIRCUITS.into_iter().enumerate().map(series)
            });
            families.labelled(&table::CIRCUIT, states);
        }
        families.plain(&table::CIRCUIT_OPENED, self.shared.healths.opened());
        let offline = self.shared.offline.figures();
        families.plain(&table::OFFLINE_COMMANDS, offline.commands);
        let dropped = [(["full"], offline.full), (["expired"], offline.expired)];
        families.labelled(&table::OFFLINE_DROPPED, dropped);
        families.plain(
            &table::UPSTREAM_REDIRECTS,
            self.sum(|counters| &counters.redirects),
        );
    }

    fn topology(&self, families: &mut Families) {
        if self.shared.upstream.facts().connection == Connection::None {
            return;
        }
        let topology = self.shared.topology.load();
        let replicas: usize = topology.nodes.iter().map(|node| node.replicas.len()).sum();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        families.labelled(
            &table::UPSTREAM_NODES,
            [
                (["primary"], count(topology.nodes.len())),
                (["replica"], count(replicas)),
            ],
        );
        let facts = self.shared.topology.facts();
        families.plain(&table::TOPOLOGY_CHANGES, facts.changes);
        families.plain(&table::TOPOLOGY_REFUSED, facts.refused);
    }

    fn memory(&self, families: &mut Families) {
        let stats = self.shared.store.lock().stats();
        families.plain(&table::MEMORY_KEYS, stats.keys as u64);
        families.plain(&table::MEMORY_USED, stats.bytes as u64);
        families.plain(&table::MEMORY_MAX, stats.limit as u64);
        families.plain(&table::MEMORY_EVICTIONS, stats.evicted);
        families.plain(&table::MEMORY_EXPIRED, stats.expired);
        families.plain(
            &table::MEMORY_WRITES,
            self.sum(|counters| &counters.memory_writes),
        );
        families.plain(
            &table::MEMORY_DISCARDED,
            self.sum(|counters| &counters.memory_discarded),
        );
    }

    fn process(&self, families: &mut Families) {
        let reload = self.shared.reload.lock().clone();
        let results = [(["applied"], reload.applied), (["refused"], reload.refused)];
        families.labelled(&table::RELOADS, results);
        families.plain(&table::RELOAD_OK, u64::from(reload.error.is_none()));
        families.labelled(&table::BUILD_INFO, [([env!("CARGO_PKG_VERSION")], 1)]);
    }
}

// === impl Families ===

impl Families {
    fn plain(&mut self, metric: &Metric, value: u64) {
        self.labelled(metric, [([""; 0], value)]);
    }

    fn labelled<const N: usize, L: Into<String>>(
        &mut self,
        metric: &Metric,
        series: impl IntoIterator<Item = ([L; N], u64)>,
    ) {
        let sample = |(labels, value): ([L; N], u64)| {
            let mut sample = labels_of(metric, labels);
            match metric.kind {
                Kind::Counter => {
                    let mut counter = proto::Counter::default();
                    counter.set_value(float(value));
                    sample.set_counter(counter);
                }
                Kind::Gauge => {
                    let mut gauge = proto::Gauge::default();
                    gauge.set_value(float(value));
                    sample.set_gauge(gauge);
                }
                Kind::Histogram => unreachable!("{} has buckets", metric.name),
            }
            sample
        };
        self.family(metric, series.into_iter().map(sample).collect());
    }

    fn histograms<const N: usize, L: Into<String>>(
        &mut self,
        metric: &Metric,
        series: impl IntoIterator<Item = ([L; N], proto::Histogram)>,
    ) {
        let sample = |(labels, histogram)| {
            let mut sample = labels_of(metric, labels);
            sample.set_histogram(histogram);
            sample
        };
        self.family(metric, series.into_iter().map(sample).collect());
    }

    fn family(&mut self, metric: &Metric, samples: Vec<proto::Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(metric.name.to_owned());
        family.set_help(metric.help.to_owned());
        family.set_field_type(match metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(samples);
        self.0.push(family);
    }
}

fn labels_of<const N: usize, L: Into<String>>(metric: &Metric, values: [L; N]) -> proto::Metric {
    debug_assert_eq!(metric.labels.len(), N, "{}", metric.name);
    let pair = |(name, value): (&&str, L)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.into());
        pair
    };
    proto::Metric::from_label(metric.labels.iter().zip(values).map(pair).collect())
}

fn histogram<'a>(loops: impl Iterator<Item = &'a Histogram>) -> proto::Histogram {
    let mut counts = [0; BUCKETS_US.len() + 1];
    let mut sum_ns: u64 = 0;
    for histogram in loops {
        for (count, bucket) in counts.iter_mut().zip(&histogram.buckets) {
            *count += bucket.get();
        }
        sum_ns = sum_ns.wrapping_add(histogram.sum_ns.get());
    }
    let mut cumulative = 0;
    let buckets = BUCKETS_US.iter().zip(counts).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(float(*bound) / 1e6);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(float(sum_ns) / 1e9);
    histogram
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
