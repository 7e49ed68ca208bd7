//! CPU and memory of the injected container, and the local tier that fits into it.
//!
//! One of the two decides the other: a limit that is given bounds the local tier; without one the
//! limit is made for the local tier. So a full local tier never gets the container killed.

use policy::ByteSize;

use super::resolve;
use crate::cache_tier::{CacheTierSpec, ResourceAmounts};

/// What a sidecar needs beside its local tier: the process, buffers of connections.
const BESIDE: u64 = 48 << 20;
/// The smallest local tier.
const LEAST: u64 = 1 << 20;
/// CPU that the scheduler reserves where nothing is given.
const CPU: &str = "20m";

/// CPU and memory of the injected container, every value given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarResources {
    /// Reserved CPU.
    pub cpu_request: String,
    /// Most CPU; none means no limit.
    pub cpu_limit: Option<String>,
    /// Reserved memory.
    pub memory_request: ByteSize,
    /// Most memory.
    pub memory_limit: ByteSize,
}

/// The resources of the injected container. Memory is reserved whole unless the tier says
/// otherwise: a local tier fills up.
pub fn sidecar_resources(spec: &CacheTierSpec) -> SidecarResources {
    let given = spec.sidecar.as_ref().and_then(|it| it.resources.clone());
    let given = given.unwrap_or_default();
    let requests: ResourceAmounts = given.requests.unwrap_or_default();
    let limits: ResourceAmounts = given.limits.unwrap_or_default();
    let local = resolve(spec).config.local.memory.0;
    let made = ByteSize(local + local / 4 + BESIDE);
    let asked = requests.memory.unwrap_or_default();
    let memory_limit = limits.memory.unwrap_or(made.max(asked));
    SidecarResources {
        // A request above the limit is refused by the API server; so is one that is left out
        // beside a smaller limit.
        cpu_request: requests
            .cpu
            .or_else(|| limits.cpu.clone())
            .unwrap_or_else(|| CPU.to_owned()),
        cpu_limit: limits.cpu,
        memory_request: requests.memory.unwrap_or(memory_limit),
        memory_limit,
    }
}

/// The largest local tier that fits into a container with this limit.
pub(super) fn fits(limit: ByteSize) -> ByteSize {
    ByteSize((limit.0.saturating_sub(BESIDE) / 5 * 4).max(LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> CacheTierSpec {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn the_local_tier_and_the_limit_fit_each_other_b6() {
        for (local, sidecar, memory, limit) in [
            ("{}", "{}", 64, 128),
            ("{memory: 256Mi}", "{}", 256, 368),
            ("{}", "{resources: {limits: {memory: 128Mi}}}", 64, 128),
            ("{}", "{resources: {limits: {memory: 1Gi}}}", 64, 1024),
            ("{}", "{resources: {limits: {memory: 64Mi}}}", 12, 64),
            ("{}", "{resources: {limits: {memory: 32Mi}}}", 1, 32),
            (
                "{memory: 1Gi}",
                "{resources: {limits: {memory: 128Mi}}}",
                64,
                128,
            ),
            (
                "{memory: 1Gi}",
                "{resources: {limits: {memory: 4Gi}}}",
                1024,
                4096,
            ),
        ] {
            let spec = spec(&format!(
                "{{redis: {{topology: None}}, local: {local}, sidecar: {sidecar}}}"
            ));
            let found = resolve(&spec).config.local.memory;
            assert_eq!(found.0 >> 20, memory, "{local} {sidecar}");
            let resources = sidecar_resources(&spec);
            assert_eq!(resources.memory_limit.0 >> 20, limit, "{local} {sidecar}");
            assert!(resources.memory_request <= resources.memory_limit);
        }
    }

    #[test]
    fn what_is_given_wins_and_no_request_is_above_its_limit() {
        let of = |resources: &str| {
            let spec = spec(&format!(
                "{{redis: {{topology: None}}, sidecar: {{resources: {resources}}}}}"
            ));
            let it = sidecar_resources(&spec);
            (
                it.cpu_request,
                it.cpu_limit,
                it.memory_request.to_string(),
                it.memory_limit.to_string(),
            )
        };
        let text = |text: &str| text.to_owned();
        assert_eq!(of("{}"), (text("20m"), None, text("128Mi"), text("128Mi")));
        assert_eq!(
            of("{requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: '1', memory: 64Mi}}"),
            (text("100m"), Some(text("1")), text("32Mi"), text("64Mi"))
        );
        assert_eq!(
            of("{limits: {cpu: 10m}}"),
            (text("10m"), Some(text("10m")), text("128Mi"), text("128Mi"))
        );
        assert_eq!(
            of("{requests: {memory: 512Mi}}"),
            (text("20m"), None, text("512Mi"), text("512Mi"))
        );
    }
}
