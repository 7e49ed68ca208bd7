//! Names that several programs of Pannier must spell alike: labels, annotations, ports, and where
//! the files of a sidecar are mounted.

/// Who writes the objects of a tier: the field manager of server-side apply.
pub const FIELD_MANAGER: &str = "pannier-operator";

/// Label: the tier that an object belongs to.
pub const TIER: &str = "pannier.dev/tier";
/// Label: number of the shard that an object belongs to.
pub const SHARD: &str = "pannier.dev/shard";
/// Label: UID of the tier that a copy in another namespace belongs to.
pub const OWNER_UID: &str = "pannier.dev/owner-uid";
/// Label: namespace of the tier that a copy in another namespace belongs to.
pub const OWNER_NAMESPACE: &str = "pannier.dev/owner-namespace";
/// Label of a namespace that accepts tiers: `<this>/<namespace of the tier>: allow`.
pub const ALLOW_TIERS_FROM: &str = "tiers-from.pannier.dev";

/// Annotation of a tier: `true` stops the operator from changing anything that belongs to it.
pub const PAUSED: &str = "pannier.dev/paused";
/// Annotation of a tier: a new value changes the generated passwords.
pub const ROTATE_PASSWORDS: &str = "pannier.dev/rotate-passwords";
/// Annotation of an object: hash of what the operator applied last.
pub const APPLIED: &str = "pannier.dev/applied";
/// Annotation of a pod: hash of everything whose change needs a new pod.
pub const WORKLOAD: &str = "pannier.dev/workload";
/// Annotation of a pod: versions of the files that are mounted. Writing it makes the kubelet look
/// at the pod's volumes at once.
pub const MOUNTED: &str = "pannier.dev/mounted";

/// Port of a server.
pub const REDIS_PORT: u16 = 6379;
/// Port of a Sentinel.
pub const SENTINEL_PORT: u16 = 26379;
/// Port of the agent in a server's or Sentinel's container.
pub const AGENT_PORT: u16 = 8090;

/// Key of the sidecar's configuration in its `ConfigMap`.
pub const SIDECAR_FILE: &str = "sidecar.yaml";
/// Where the Secret of the sidecar is mounted.
pub const SIDECAR_SECRETS: &str = "/etc/pannier/credentials";

/// Longest name of a tier: names of its objects and pods are made from it.
pub const MAX_TIER_NAME: usize = 40;

/// Files in the Secret of the sidecar.
pub mod secret_file {
    /// ACL user.
    pub const USERNAME: &str = "username";
    /// Password.
    pub const PASSWORD: &str = "password";
    /// Password of the Sentinels.
    pub const SENTINEL_PASSWORD: &str = "sentinel-password";
    /// User at the Sentinels.
    pub const SENTINEL_USERNAME: &str = "sentinel-username";
    /// Certificate authorities to trust.
    pub const CA: &str = "ca.crt";
    /// Client certificate chain.
    pub const CERTIFICATE: &str = "tls.crt";
    /// Private key of the client certificate.
    pub const KEY: &str = "tls.key";
}
