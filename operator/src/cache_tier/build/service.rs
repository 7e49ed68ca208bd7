//! Names in DNS: a headless Service per set of pods, and one address for the clients of a
//! Standalone. Clients of a Replicated ask the Sentinels: a Service cannot tell the primary.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use policy::names;

use crate::cache_tier::{
    object_names::Component,
    validate::{Servers, ValidatedTier},
};

pub(super) fn build(tier: &ValidatedTier, servers: &Servers) -> Vec<Service> {
    let names = &tier.names;
    let mut services: Vec<Service> = (0..servers.shards)
        .map(|shard| {
            let port = ("redis", names::REDIS_PORT);
            headless(
                tier,
                names.shard(shard),
                Component::Redis,
                Some(shard),
                port,
            )
        })
        .collect();
    if servers.sentinels > 0 {
        let port = ("sentinel", names::SENTINEL_PORT);
        services.push(headless(
            tier,
            names.sentinel(),
            Component::Sentinel,
            None,
            port,
        ));
    } else {
        services.push(Service {
            metadata: names.meta(names.tier.clone(), Component::Redis, None),
            spec: Some(ServiceSpec {
                type_: Some("ClusterIP".to_owned()),
                selector: Some(names.selector(Component::Redis, Some(0))),
                ports: Some(vec![port("redis", names::REDIS_PORT)]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        });
    }
    services
}

fn headless(
    tier: &ValidatedTier,
    name: String,
    component: Component,
    shard: Option<u32>,
    (port_name, number): (&str, u16),
) -> Service {
    Service {
        metadata: tier.names.meta(name, component, shard),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            // Servers find each other before they are ready: readiness waits for the sync.
            publish_not_ready_addresses: Some(true),
            selector: Some(tier.names.selector(component, shard)),
            ports: Some(vec![
                port(port_name, number),
                port("agent", names::AGENT_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(i32::from(number))),
        ..ServicePort::default()
    }
}
