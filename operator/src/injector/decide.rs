//! Third step, pure: whether a pod gets the sidecar that its labels ask for, and which one.
//!
//! What would keep the pod from starting, or from working as it does without us, is a reason to
//! leave it alone.

use std::collections::BTreeMap;

use crds::{CacheTier, SidecarResources, cache_tier::Sidecar, sidecar_resources};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::ResourceExt as _;
use policy::{config, names};

use super::{Request, TierName, build, wish::Labels};
use crate::{
    settings::{UnknownTier, Webhook},
    socket,
};

/// What is known of a tier.
#[derive(Clone, Debug)]
pub enum Found {
    /// It is there.
    Tier(Box<CacheTier>),
    /// It is known not to be there, or not to be usable: why.
    Unknown(String),
    /// It would be in a namespace that this installation does not watch; another one may.
    NotWatched,
    /// Whether it is there could not be learned: why.
    Unreadable(String),
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It gets a sidecar.
    Inject(Box<Plan>),
    /// It is created as it is.
    Skip(Reason),
    /// It is not created.
    Refuse(Reason),
}

/// The sidecar that a pod gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Whose sidecar it is.
    pub tier: TierName,
    /// Its image.
    pub image: String,
    /// Its ports.
    pub ports: Ports,
    /// Where it listens beside TCP.
    pub unix_socket: Option<String>,
    /// CPU and memory; none where the pod as a whole has them.
    pub resources: Option<SidecarResources>,
    /// Where the container stands, or is to stand, among the init containers.
    pub at: usize,
    /// What stands there already.
    pub there: There,
    /// Whether variables that the app sets itself are replaced.
    pub override_env: bool,
}

/// TCP ports inside the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Redis protocol.
    pub redis: u16,
    /// HTTP interface.
    pub http: u16,
    /// Probes and metrics.
    pub admin: u16,
}

/// Whether a pod has been here before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// No.
    Nothing,
    /// It has the sidecar of this tier: others have changed the pod since.
    Ours,
    /// It has the sidecar of another tier: copied from another pod.
    Other,
}

/// Why a pod is left alone, in a sentence with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Nothing asks for a sidecar.
    #[error("no label asks for a sidecar")]
    NotAsked,
    /// A server of ours.
    #[error("it is a server of a tier")]
    Server,
    /// A file on a node.
    #[error("it is a static pod: the kubelet does not take over changes to its mirror")]
    Mirror,
    /// The tier is not there.
    #[error("{0}; create the tier, or correct the labels {inject} and {namespace}", inject = names::INJECT, namespace = names::TIER_NAMESPACE)]
    UnknownTier(String),
    /// What is in that namespace is no business of this installation.
    #[error(
        "this installation does not watch namespace {0}; add it to watchNamespaces of the chart, unless another installation serves it"
    )]
    NotWatched(String),
    /// The tier could not be read.
    #[error("whether the tier exists is not known: {0}")]
    Unreadable(String),
    /// The tier does not allow it.
    #[error(
        "CacheTier {tier} does not allow namespace {namespace}; add it to spec.allowedNamespaces of the tier"
    )]
    NotAllowed {
        /// The tier.
        tier: TierName,
        /// Namespace of the pod.
        namespace: String,
    },
    /// The namespace does not agree.
    #[error("namespace {namespace} does not agree to use tiers of {from}; kubectl label namespace {namespace} {label}/{from}=allow", label = names::ALLOW_TIERS_FROM)]
    NoConsent {
        /// Namespace of the pod.
        namespace: String,
        /// Namespace of the tier.
        from: String,
    },
    /// Loopback is that of the node.
    #[error(
        "the pod uses the network of its node, where a sidecar would serve every process; remove hostNetwork"
    )]
    HostNetwork,
    /// No image for it.
    #[error("the pod is for Windows, and the sidecar runs on Linux only")]
    Windows,
    /// The app listens where the sidecar would.
    #[error(
        "container {container} uses port {port}, which the sidecar needs for {purpose}; {remedy}"
    )]
    PortTaken {
        /// The container.
        container: String,
        /// The port.
        port: u16,
        /// What the sidecar uses it for.
        purpose: &'static str,
        /// What to do.
        remedy: String,
    },
    /// The annotation is no port, or one of our own.
    #[error("annotation {annotation}: {value:?} is not a port that is free; give a number from 1 to 65535 other than {http} and {admin}", annotation = names::PORT)]
    BadPort {
        /// Its value.
        value: String,
        /// Port of the HTTP interface.
        http: u16,
        /// Port of the probes.
        admin: u16,
    },
    /// Something of that name is not ours.
    #[error("the pod has {0} already, and the injector did not make it; rename it, or label the pod {inject}: {disabled}", inject = names::INJECT, disabled = names::DISABLED)]
    NameTaken(String),
    /// The socket's folder is one that somebody else needs.
    #[error("spec.sidecar.unixSocket of the tier {0}")]
    SocketFolder(String),
}

// === impl Reason ===

impl Reason {
    /// A fixed word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotAsked => "not-asked",
            Self::Server => "server",
            Self::Mirror => "mirror",
            Self::UnknownTier(_) => "unknown-tier",
            Self::NotWatched(_) => "not-watched",
            Self::Unreadable(_) => "unreadable",
            Self::NotAllowed { .. } => "not-allowed",
            Self::NoConsent { .. } => "no-consent",
            Self::HostNetwork => "host-network",
            Self::Windows => "windows",
            Self::PortTaken { .. } | Self::BadPort { .. } => "port",
            Self::NameTaken(_) => "name",
            Self::SocketFolder(_) => "socket",
        }
    }

    /// Whether nobody expects a sidecar here.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::NotAsked | Self::Server | Self::Mirror)
    }
}

/// Decides. `wanted` is what the labels ask for, `found` what is known of it.
pub fn decide(
    request: &Request,
    in_namespace: &Labels,
    wanted: &TierName,
    found: &Found,
    webhook: &Webhook,
) -> Decision {
    let pod = &request.pod;
    let tier = match (exempt(pod), found) {
        (Some(reason), _) => return Decision::Skip(reason),
        (None, Found::Unreadable(why)) => return Decision::Skip(Reason::Unreadable(why.clone())),
        // Never refused: the installation that watches it may have the tier.
        (None, Found::NotWatched) => {
            return Decision::Skip(Reason::NotWatched(wanted.namespace.clone()));
        }
        (None, Found::Unknown(why)) => {
            let reason = Reason::UnknownTier(why.clone());
            return match webhook.unknown_tier {
                UnknownTier::Ignore => Decision::Skip(reason),
                UnknownTier::Refuse => Decision::Refuse(reason),
            };
        }
        (None, Found::Tier(tier)) => tier,
    };
    let plan = allowed(request, in_namespace, wanted, tier)
        .and_then(|()| plan(pod, wanted.clone(), tier, webhook));
    match plan {
        Ok(plan) => Decision::Inject(Box::new(plan)),
        Err(reason) => Decision::Skip(reason),
    }
}

/// Pods that never get one, whatever their labels say.
fn exempt(pod: &Pod) -> Option<Reason> {
    let spec = pod.spec.as_ref()?;
    // A namespace is labelled for apps; the servers of a tier may live in it as well.
    let component = pod.labels().get("app.kubernetes.io/component");
    let component = component.map(String::as_str);
    if pod.labels().contains_key(names::TIER) && matches!(component, Some("redis" | "sentinel")) {
        Some(Reason::Server)
    } else if pod
        .annotations()
        .contains_key("kubernetes.io/config.mirror")
    {
        Some(Reason::Mirror)
    } else if spec.host_network == Some(true) {
        Some(Reason::HostNetwork)
    } else if is_for_windows(spec) {
        Some(Reason::Windows)
    } else {
        None
    }
}

/// By its own word, or by the nodes that it wants: `spec.os` is rarely given.
fn is_for_windows(spec: &PodSpec) -> bool {
    let os = spec.os.iter().map(|os| &os.name);
    let nodes = ["kubernetes.io/os", "beta.kubernetes.io/os"]
        .into_iter()
        .filter_map(|label| spec.node_selector.as_ref()?.get(label));
    os.chain(nodes).any(|name| name == "windows")
}

/// Both sides of a border between namespaces agree, or there is none.
fn allowed(
    request: &Request,
    in_namespace: &Labels,
    wanted: &TierName,
    tier: &CacheTier,
) -> Result<(), Reason> {
    let namespace = &request.namespace;
    if *namespace == wanted.namespace {
        return Ok(());
    }
    if !tier.spec.allowed_namespaces.contains(namespace) {
        return Err(Reason::NotAllowed {
            tier: wanted.clone(),
            namespace: namespace.clone(),
        });
    }
    let label = format!("{}/{}", names::ALLOW_TIERS_FROM, wanted.namespace);
    if in_namespace.get(&label).map(String::as_str) != Some("allow") {
        return Err(Reason::NoConsent {
            namespace: namespace.clone(),
            from: wanted.namespace.clone(),
        });
    }
    Ok(())
}

fn plan(pod: &Pod, wanted: TierName, tier: &CacheTier, webhook: &Webhook) -> Result<Plan, Reason> {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let sidecar = tier.spec.sidecar.clone().unwrap_or_default();
    let (at, there) = place(pod, spec, &wanted)?;
    let ports = ports(pod, spec, &sidecar, &wanted)?;
    if let Some(refusal) = sidecar.unix_socket.as_deref().and_then(socket::refusal) {
        return Err(Reason::SocketFolder(refusal));
    }
    Ok(Plan {
        tier: wanted,
        image: sidecar
            .image
            .unwrap_or_else(|| webhook.sidecar_image.clone()),
        ports,
        unix_socket: sidecar.unix_socket,
        // The API server refuses containers that add up to more than their pod may have.
        resources: spec
            .resources
            .is_none()
            .then(|| sidecar_resources(&tier.spec)),
        at,
        there,
        override_env: is_true(pod.annotations(), names::OVERRIDE_ENV),
    })
}

fn is_true(annotations: &BTreeMap<String, String>, name: &str) -> bool {
    annotations.get(name).is_some_and(|value| value == "true")
}

/// Where the container goes: before everything that may want the cache, behind the sidecars of
/// others, such as the proxy of a mesh, through which it may have to speak.
fn place(pod: &Pod, spec: &PodSpec, wanted: &TierName) -> Result<(usize, There), Reason> {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let found = init.iter().position(|one| one.name == names::SIDECAR);
    if spec.containers.iter().any(|one| one.name == names::SIDECAR) {
        return Err(Reason::NameTaken(format!("a container {}", names::SIDECAR)));
    }
    match (found, pod.labels().get(names::INJECTED)) {
        (Some(at), Some(tier)) if *tier == wanted.name => Ok((at, There::Ours)),
        (Some(at), Some(_)) => Ok((at, There::Other)),
        (Some(_), None) => Err(Reason::NameTaken(format!(
            "an init container {}",
            names::SIDECAR
        ))),
        (None, _) => {
            let volumes = spec.volumes.as_deref().unwrap_or_default();
            let taken = |name: &str| volumes.iter().any(|volume| volume.name == name);
            if let Some(name) = build::VOLUMES.into_iter().find(|name| taken(name)) {
                return Err(Reason::NameTaken(format!("a volume {name}")));
            }
            let at = init.iter().position(|one| !is_sidecar(one));
            Ok((at.unwrap_or(init.len()), There::Nothing))
        }
    }
}

/// Whether an init container runs as long as the pod does.
fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn ports(pod: &Pod, spec: &PodSpec, sidecar: &Sidecar, tier: &TierName) -> Result<Ports, Reason> {
    let default = config::Sidecar::default();
    let given = sidecar.ports.clone().unwrap_or_default();
    let http = given.http.unwrap_or(default.http_port);
    let admin = given.admin.unwrap_or(default.admin_port);
    let redis = match pod.annotations().get(names::PORT) {
        None => given.redis.unwrap_or(default.redis_port),
        Some(value) => match value.parse() {
            Ok(port) if port != 0 && port != http && port != admin => port,
            _ => {
                return Err(Reason::BadPort {
                    value: value.clone(),
                    http,
                    admin,
                });
            }
        },
    };
    let in_tier = |field: &str| format!("set sidecar.ports.{field} of CacheTier {tier}");
    for (port, purpose, remedy) in [
        (
            redis,
            "the Redis protocol",
            format!("give it another by the annotation {}", names::PORT),
        ),
        (http, "HTTP", in_tier("http")),
        (admin, "probes and metrics", in_tier("admin")),
    ] {
        if let Some(container) = user_of(spec, port) {
            return Err(Reason::PortTaken {
                container,
                port,
                purpose,
                remedy,
            });
        }
    }
    Ok(Ports { redis, http, admin })
}

/// The container that declares a TCP port.
fn user_of(spec: &PodSpec, port: u16) -> Option<String> {
    let init = spec.init_containers.iter().flatten();
    let others = init
        .chain(&spec.containers)
        .filter(|one| one.name != names::SIDECAR);
    let uses = |container: &&Container| {
        let ports = container.ports.as_deref().unwrap_or_default();
        ports.iter().any(|one| {
            let tcp = one.protocol.as_deref().is_none_or(|name| name == "TCP");
            tcp && one.container_port == i32::from(port)
        })
    };
    others.into_iter().find(uses).map(|one| one.name.clone())
}
