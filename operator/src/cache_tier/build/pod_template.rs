//! The pod of a server or Sentinel: an init container brings the agent, which runs as process 1
//! of the engine's image. Fit for Pod Security `restricted`, with a read-only root file system.

use std::collections::BTreeMap;

use crds::cache_tier::{ResourceAmounts, TaintEffect, TolerationOperator};
use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort,
        EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference,
        ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity, PodDNSConfig, PodDNSConfigOption,
        PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
        SecretVolumeSource, SecurityContext, Toleration, TopologySpreadConstraint, Volume,
        VolumeMount, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::{
        api::resource::Quantity, apis::meta::v1::LabelSelector, util::intstr::IntOrString,
    },
};
use kube::api::ObjectMeta;
use policy::{ByteSize, names};

use super::{instance, quantity};
use crate::{
    cache_tier::{
        object_names::Component,
        validate::{Servers, ValidatedTier},
    },
    instance::names as names_file,
    mount::mount,
};

/// User and group of all processes: that of redis and valkey in the usual images.
const USER: i64 = 999;
const BINARY: &str = "/pannier/bin";
/// Kept by the agent: servers and Sentinels find each other's names there when the DNS is away.
const HOSTS: &str = "/etc/hosts";
const SENTINEL_MEMORY: ByteSize = ByteSize(64 << 20);
/// CPU that the scheduler reserves for a server where the tier says nothing. Without a share of its own
/// a server on a busy node is late with everything, and its agent with what it watches.
const SERVER_CPU: &str = "100m";
/// The same for a Sentinel: one that does not run for two seconds takes that for a broken clock, and
/// fails nothing over for half a minute.
const SENTINEL_CPU: &str = "50m";
/// The agent and what the server writes beside its data.
const AGENT_MEMORY: ByteSize = ByteSize(64 << 20);

/// What differs between servers and Sentinels.
pub(super) struct Kind {
    pub component: Component,
    pub shard: Option<u32>,
    /// Name of the file with its configuration.
    pub file: &'static str,
    pub port: u16,
    /// Time to hand over before it is killed.
    pub grace: i64,
    /// Hash of everything whose change needs a new pod.
    pub workload: String,
    /// Whether the data is on a claim of the set.
    pub claimed: bool,
}

/// Grace of a server: a switch-over takes seconds, writing a large snapshot longer.
pub(super) const SERVER_GRACE: i64 = 60;
/// Grace of a Sentinel.
pub(super) const SENTINEL_GRACE: i64 = 30;

pub(super) fn build(tier: &ValidatedTier, servers: &Servers, kind: &Kind) -> PodTemplateSpec {
    let pod = &servers.pod;
    let mut labels = pod.labels.clone();
    labels.extend(tier.names.labels(kind.component, kind.shard));
    // In a namespace that is labelled for apps, too; and no webhook stands in the way of a server.
    labels.insert(names::INJECT.to_owned(), names::DISABLED.to_owned());
    let mut annotations = pod.annotations.clone();
    annotations.insert(names::WORKLOAD.to_owned(), kind.workload.clone());
    let selector = tier.names.selector(kind.component, kind.shard);
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            init_containers: Some(vec![agent(servers)]),
            containers: vec![engine(servers, kind)],
            volumes: Some(volumes(tier, kind)),
            service_account_name: Some(tier.names.redis()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(pod_security()),
            affinity: Some(apart(&selector)),
            topology_spread_constraints: Some(vec![spread(&selector)]),
            termination_grace_period_seconds: Some(kind.grace),
            dns_config: Some(dns()),
            node_selector: (!pod.node_selector.is_empty()).then(|| pod.node_selector.clone()),
            tolerations: (!pod.tolerations.is_empty())
                .then(|| pod.tolerations.iter().map(toleration).collect()),
            priority_class_name: pod.priority_class_name.clone(),
            image_pull_secrets: (!pod.image_pull_secrets.is_empty()).then(|| {
                pod.image_pull_secrets
                    .iter()
                    .map(|name| LocalObjectReference { name: name.clone() })
                    .collect()
            }),
            ..PodSpec::default()
        }),
    }
}

// === containers ===

/// Copies the agent's binary to where the engine's container finds it.
fn agent(servers: &Servers) -> Container {
    Container {
        name: "agent".to_owned(),
        image: Some(servers.agent_image.clone()),
        args: Some(words(&["install", "--to", "/pannier/bin/pannier-operator"])),
        resources: Some(amounts(SENTINEL_MEMORY, None)),
        security_context: Some(security()),
        volume_mounts: Some(vec![mount("bin", BINARY, false)]),
        ..Container::default()
    }
}

fn engine(servers: &Servers, kind: &Kind) -> Container {
    let resources = match kind.component {
        Component::Redis => server_resources(servers),
        Component::Sentinel | Component::SidecarConfig => {
            amounts(SENTINEL_MEMORY, Some(SENTINEL_CPU))
        }
    };
    let port_name = kind.component.label();
    Container {
        name: port_name.to_owned(),
        image: Some(servers.image.clone()),
        command: Some(words(&["/pannier/bin/pannier-operator"])),
        args: Some(vec![
            "instance".to_owned(),
            "--config".to_owned(),
            format!("{}/{}", instance::FOLDER, kind.file),
        ]),
        env: Some(vec![
            field("PANNIER_POD_NAME", "metadata.name"),
            field("PANNIER_POD_IP", "status.podIP"),
            EnvVar {
                name: names_file::NAMES.to_owned(),
                value: Some(HOSTS.to_owned()),
                ..EnvVar::default()
            },
        ]),
        ports: Some(vec![
            port(port_name, kind.port),
            port("agent", names::AGENT_PORT),
        ]),
        resources: Some(resources),
        security_context: Some(security()),
        // Up as soon as the agent runs: its guard may have good reasons to wait for long.
        startup_probe: Some(probe("/startup", 1, 60)),
        liveness_probe: Some(probe("/live", 5, 6)),
        readiness_probe: Some(probe("/ready", 2, 2)),
        volume_mounts: Some(vec![
            mount("bin", BINARY, true),
            VolumeMount {
                sub_path: Some(names_file::FILE.to_owned()),
                ..mount("bin", HOSTS, false)
            },
            mount("instance", instance::FOLDER, true),
            mount("auth", instance::AUTH, true),
            mount("data", instance::DATA, false),
            mount("tmp", "/tmp", false),
        ]),
        ..Container::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("agent".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

// === resources ===

/// Memory is reserved whole: a server that is killed for its memory takes its data along.
fn server_resources(servers: &Servers) -> ResourceRequirements {
    let given = servers.pod.resources.clone().unwrap_or_default();
    let cpu = |amounts: Option<ResourceAmounts>| amounts.and_then(|amounts| amounts.cpu);
    let limit = cpu(given.limits);
    // A request that is left out beside a limit is the limit, as everywhere in Kubernetes.
    let request = cpu(given.requests).or_else(|| limit.clone());
    let request = request.as_deref().unwrap_or(SERVER_CPU);
    let mut resources = amounts(servers.memory, Some(request));
    if let Some(limit) = limit {
        let limits = resources.limits.get_or_insert_default();
        limits.insert("cpu".to_owned(), quantity::cores(&limit));
    }
    resources
}

/// Memory is request and limit, CPU a request only.
fn amounts(memory: ByteSize, cpu: Option<&str>) -> ResourceRequirements {
    let limits = BTreeMap::from([("memory".to_owned(), quantity::bytes(memory))]);
    let mut requests = limits.clone();
    requests.extend(cpu.map(|cpu| ("cpu".to_owned(), quantity::cores(cpu))));
    ResourceRequirements {
        requests: Some(requests),
        limits: Some(limits),
        ..ResourceRequirements::default()
    }
}

// === volumes ===

fn volumes(tier: &ValidatedTier, kind: &Kind) -> Vec<Volume> {
    let mut volumes = vec![
        Volume {
            config_map: Some(ConfigMapVolumeSource {
                name: tier.names.redis(),
                default_mode: Some(0o444),
                ..ConfigMapVolumeSource::default()
            }),
            ..volume("instance")
        },
        Volume {
            secret: Some(SecretVolumeSource {
                secret_name: Some(tier.names.auth()),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..volume("auth")
        },
        empty("bin", None),
        empty("tmp", Some(AGENT_MEMORY)),
    ];
    if !kind.claimed {
        volumes.push(empty("data", None));
    }
    volumes
}

fn empty(name: &str, limit: Option<ByteSize>) -> Volume {
    let size_limit: Option<Quantity> = limit.map(quantity::bytes);
    Volume {
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit,
            ..EmptyDirVolumeSource::default()
        }),
        ..volume(name)
    }
}

fn volume(name: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        ..Volume::default()
    }
}

// === security ===

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        // A large volume is not walked at each start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

fn security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        ..SecurityContext::default()
    }
}

// === where pods run ===

/// Pods of one shard on different nodes where that is possible; a small cluster still works.
fn apart(selector: &BTreeMap<String, String>) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm {
                    weight: 100,
                    pod_affinity_term: PodAffinityTerm {
                        label_selector: Some(labels(selector)),
                        topology_key: "kubernetes.io/hostname".to_owned(),
                        ..PodAffinityTerm::default()
                    },
                },
            ]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn spread(selector: &BTreeMap<String, String>) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(labels(selector)),
        ..TopologySpreadConstraint::default()
    }
}

fn labels(selector: &BTreeMap<String, String>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(selector.clone()),
        ..LabelSelector::default()
    }
}

/// Sentinel waits for each name that it resolves: a DNS that is away must not hold it for long.
fn dns() -> PodDNSConfig {
    let options = [("ndots", "1"), ("timeout", "1"), ("attempts", "2")];
    PodDNSConfig {
        options: Some(
            options
                .into_iter()
                .map(|(name, value)| PodDNSConfigOption {
                    name: Some(name.to_owned()),
                    value: Some(value.to_owned()),
                })
                .collect(),
        ),
        ..PodDNSConfig::default()
    }
}

fn toleration(toleration: &crds::cache_tier::Toleration) -> Toleration {
    let crds::cache_tier::Toleration {
        key,
        operator,
        value,
        effect,
    } = toleration;
    Toleration {
        key: key.clone(),
        operator: operator.map(|operator| {
            match operator {
                TolerationOperator::Equal => "Equal",
                TolerationOperator::Exists => "Exists",
            }
            .to_owned()
        }),
        value: value.clone(),
        effect: effect.map(|effect| {
            match effect {
                TaintEffect::NoSchedule => "NoSchedule",
                TaintEffect::PreferNoSchedule => "PreferNoSchedule",
                TaintEffect::NoExecute => "NoExecute",
            }
            .to_owned()
        }),
        toleration_seconds: None,
    }
}
