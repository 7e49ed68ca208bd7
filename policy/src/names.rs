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

/// Label of a pod or a namespace: the tier whose sidecar its pods get, or [`DISABLED`]. The pod's
/// own label wins.
pub const INJECT: &str = "pannier.dev/inject";
/// Value of [`INJECT`] for pods that get no sidecar; no tier can have this name.
pub const DISABLED: &str = "disabled";
/// Label beside [`INJECT`]: where the tier lives, if not in the namespace of the pod.
pub const TIER_NAMESPACE: &str = "pannier.dev/tier-namespace";
/// Label that the injector gives to a pod: the tier whose sidecar it has.
pub const INJECTED: &str = "pannier.dev/injected";
/// Annotation of a pod: `true` replaces `REDIS_URL` and `PANNIER_HTTP_URL` where they are set.
pub const OVERRIDE_ENV: &str = "pannier.dev/override-env";
/// Annotation of a pod: port of the Redis protocol, where the app itself uses that of the tier.
pub const PORT: &str = "pannier.dev/port";
/// Annotation of a pod with a sidecar: version of the configuration that it was told to look at.
pub const CONFIG_GENERATION: &str = "pannier.dev/config-generation";

/// Name of the injected container.
pub const SIDECAR: &str = "pannier-sidecar";
/// Name of the injected container's port for probes, metrics and state.
pub const ADMIN_PORT_NAME: &str = "pannier-admin";

/// Port of a server.
pub const REDIS_PORT: u16 = 6379;
/// Port of a Sentinel.
pub const SENTINEL_PORT: u16 = 26379;
/// Port of the agent in a server's or Sentinel's container.
pub const AGENT_PORT: u16 = 8090;

/// Key of the sidecar's configuration in its `ConfigMap`.
pub const SIDECAR_FILE: &str = "sidecar.yaml";
/// Where the configuration of the sidecar is mounted.
pub const SIDECAR_FOLDER: &str = "/etc/pannier";
/// Where the Secret of the sidecar is mounted, inside [`SIDECAR_FOLDER`].
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

    /// All of them.
    pub const ALL: [&str; 7] = [
        USERNAME,
        PASSWORD,
        SENTINEL_PASSWORD,
        SENTINEL_USERNAME,
        CA,
        CERTIFICATE,
        KEY,
    ];
}

/// The `ConfigMap` and the Secret that the sidecars of a tier read.
pub fn sidecar_objects(tier: &str) -> String {
    format!("{tier}-sidecar")
}
