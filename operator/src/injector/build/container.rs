//! The container: a native sidecar, fit for Pod Security `restricted`.
//!
//! It is up when its ports are bound; neither that nor its life depends on Redis. It has no
//! readiness probe of its own, so it never takes a pod out of a Service.

use std::collections::BTreeMap;

use crds::SidecarResources;
use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
        ObjectFieldSelector, Probe, ResourceRequirements, SeccompProfile, SecurityContext,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use policy::names;

use super::volumes;
use crate::{
    cache_tier::build::quantity,
    injector::decide::{Plan, Ports},
};

/// User and group of the process: that of nobody's in images without users.
const USER: i64 = 65532;

pub(super) fn build(plan: &Plan) -> Container {
    Container {
        name: names::SIDECAR.to_owned(),
        image: Some(plan.image.clone()),
        restart_policy: Some("Always".to_owned()),
        args: Some(args(plan)),
        env: Some(vec![field("POD_NAME", "metadata.name")]),
        ports: Some(vec![ContainerPort {
            name: Some(names::ADMIN_PORT_NAME.to_owned()),
            container_port: i32::from(plan.ports.admin),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: plan.resources.as_ref().map(resources),
        security_context: Some(security()),
        startup_probe: Some(probe("/ready", 1, 60)),
        liveness_probe: Some(probe("/live", 10, 3)),
        volume_mounts: Some(volumes::of_sidecar(plan)),
        ..Container::default()
    }
}

/// Ports and socket are flags, although the configuration has them: it may change while the pod,
/// its probes and the app's variables stay as they are.
fn args(plan: &Plan) -> Vec<String> {
    let Ports { redis, http, admin } = plan.ports;
    let socket = plan.unix_socket.as_deref().unwrap_or_default();
    [
        format!("--config={}/{}", names::SIDECAR_FOLDER, names::SIDECAR_FILE),
        format!("--listen=127.0.0.1:{redis}"),
        format!("--http=127.0.0.1:{http}"),
        format!("--admin=[::]:{admin}"),
        format!("--unix-socket={socket}"),
        "--log=json".to_owned(),
    ]
    .to_vec()
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn resources(resources: &SidecarResources) -> ResourceRequirements {
    let SidecarResources {
        cpu_request,
        cpu_limit,
        memory_request,
        memory_limit,
    } = resources;
    let amounts = |cpu: Option<&String>, memory| {
        let mut amounts: BTreeMap<String, Quantity> = BTreeMap::new();
        if let Some(cpu) = cpu {
            amounts.insert("cpu".to_owned(), quantity::cores(cpu));
        }
        amounts.insert("memory".to_owned(), quantity::bytes(memory));
        amounts
    };
    ResourceRequirements {
        requests: Some(amounts(Some(cpu_request), *memory_request)),
        limits: Some(amounts(cpu_limit.as_ref(), *memory_limit)),
        ..ResourceRequirements::default()
    }
}

fn security() -> SecurityContext {
    SecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(names::ADMIN_PORT_NAME.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}
