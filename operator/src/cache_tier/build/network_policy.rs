//! Who may talk to servers and Sentinels. Redis and Sentinel ports are open to every pod that
//! knows a password, as clients live in many namespaces; everything else but the agent's port is
//! closed, and servers and Sentinels themselves reach nothing but each other and DNS.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use policy::names;

use crate::cache_tier::{
    object_names::Component,
    validate::{Servers, ValidatedTier},
};

pub(super) fn build(tier: &ValidatedTier, servers: &Servers) -> Vec<NetworkPolicy> {
    let mut policies = vec![policy(
        tier,
        tier.names.redis(),
        Component::Redis,
        names::REDIS_PORT,
    )];
    if servers.sentinels > 0 {
        policies.push(policy(
            tier,
            tier.names.sentinel(),
            Component::Sentinel,
            names::SENTINEL_PORT,
        ));
    }
    policies
}

fn policy(tier: &ValidatedTier, name: String, component: Component, port: u16) -> NetworkPolicy {
    let of = |component| LabelSelector {
        match_labels: Some(tier.names.selector(component, None)),
        ..LabelSelector::default()
    };
    let peers = [Component::Redis, Component::Sentinel]
        .map(|component| NetworkPolicyPeer {
            pod_selector: Some(of(component)),
            ..NetworkPolicyPeer::default()
        })
        .to_vec();
    NetworkPolicy {
        metadata: tier.names.meta(name, component, None),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(of(component)),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                ports: Some(vec![tcp(port), tcp(names::AGENT_PORT)]),
                ..NetworkPolicyIngressRule::default()
            }]),
            egress: Some(vec![
                NetworkPolicyEgressRule {
                    to: Some(peers),
                    ports: Some(vec![
                        tcp(names::REDIS_PORT),
                        tcp(names::SENTINEL_PORT),
                        tcp(names::AGENT_PORT),
                    ]),
                },
                NetworkPolicyEgressRule {
                    to: None,
                    ports: Some(vec![number("UDP", 53), number("TCP", 53)]),
                },
            ]),
        }),
    }
}

fn tcp(port: u16) -> NetworkPolicyPort {
    number("TCP", port)
}

fn number(protocol: &str, port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(i32::from(port))),
        ..NetworkPolicyPort::default()
    }
}
