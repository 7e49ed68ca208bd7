//! What cannot change under servers that exist, seen from the sets that run.

use std::collections::BTreeMap;

use crds::cache_tier::Topology;
use k8s_openapi::api::apps::v1::StatefulSet;
use policy::ByteSize;

use super::Servers;

/// Sentences about changes that are not possible; empty for new servers.
pub(super) fn refused(
    tier: &str,
    wanted: &Servers,
    sets: &BTreeMap<String, StatefulSet>,
) -> Vec<String> {
    let mut sentences = Vec::new();
    let shard = format!("{tier}-shard-0");
    let Some(set) = sets.get(&shard) else {
        return sentences;
    };
    let has_sentinels = sets.contains_key(&format!("{tier}-sentinel"));
    match (wanted.topology, has_sentinels) {
        (Topology::Standalone, true) => sentences.push(
            "spec.redis.topology cannot change from Replicated to Standalone yet; set it back, or create a second CacheTier and move the apps to it".to_owned(),
        ),
        // A Replicated tier whose Sentinels were deleted by hand has the replicas in its set.
        (Topology::Replicated, false) if !was_replicated(set) => sentences.push(
            "spec.redis.topology cannot change from Standalone to Replicated yet; set it back, or create a second CacheTier and move the apps to it".to_owned(),
        ),
        _ => {}
    }
    sentences.extend(volumes(wanted, set));
    sentences
}

fn was_replicated(set: &StatefulSet) -> bool {
    let annotations = set.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(super::super::build::TOPOLOGY))
        == Some(&format!("{:?}", Topology::Replicated))
}

fn volumes(wanted: &Servers, set: &StatefulSet) -> Option<String> {
    let templates = set
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_claim_templates.as_ref());
    let claim = templates.and_then(|templates| templates.first());
    match (&wanted.persistence, claim) {
        (None, None) => None,
        (None, Some(_)) => Some(
            "spec.redis.persistence cannot be switched off while servers with volumes run; set it back, or create a second CacheTier and move the apps to it".to_owned(),
        ),
        (Some(_), None) => Some(
            "spec.redis.persistence cannot be switched on for servers that run without volumes; set it back, or create a second CacheTier and move the apps to it".to_owned(),
        ),
        (Some(persistence), Some(claim)) => {
            let has = claim
                .spec
                .as_ref()
                .and_then(|spec| spec.resources.as_ref())
                .and_then(|resources| resources.requests.as_ref())
                .and_then(|requests| requests.get("storage"))
                .and_then(|quantity| quantity.0.parse::<ByteSize>().ok());
            let size = persistence.size.unwrap_or_default();
            (has != Some(size)).then(|| {
                format!(
                    "spec.redis.persistence.size: the volumes have {}, and changing them to {size} is not available yet; set it back",
                    has.map_or_else(|| "another size".to_owned(), |has| has.to_string())
                )
            })
        }
    }
}
