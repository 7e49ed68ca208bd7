//! What the findings of a reconcile mean as conditions. Pure.

use crate::{
    cache_tier::{Progress, validate::Behind},
    conditions::{Fact, type_},
};

/// The conditions of a tier whose objects were written.
pub(super) fn facts(progress: &Progress) -> Vec<Fact> {
    let mut facts = Vec::new();
    let waits = progress.waits();
    facts.push(ready(progress, waits.as_deref()));
    facts.push(match &waits {
        Some(why) => Fact::holds(type_::RECONCILING, "UnderWay", why.clone()),
        None => Fact::fails(type_::RECONCILING, "Settled", ""),
    });
    facts.push(Fact::fails(type_::STALLED, "NotStalled", ""));
    facts.push(rules(&progress.tier.warnings));
    facts.extend(progress.written.sharing.fact());
    facts
}

fn ready(progress: &Progress, waits: Option<&str>) -> Fact {
    if let Some(why) = waits {
        return Fact::fails(type_::READY, "UnderWay", why);
    }
    match &progress.tier.behind {
        Behind::Memory => Fact::holds(
            type_::READY,
            "MemoryOnly",
            "sidecars are configured and answer from their own memory",
        ),
        Behind::External(_) => Fact::holds(
            type_::READY,
            "Configured",
            "sidecars are configured for the external Redis",
        ),
        Behind::Servers(_) => Fact::holds(
            type_::READY,
            "Serving",
            "all servers are ready and sidecars are configured",
        ),
    }
}

fn rules(warnings: &[String]) -> Fact {
    if warnings.is_empty() {
        Fact::holds(type_::RULES_EFFECTIVE, "AllApply", "")
    } else {
        Fact::fails(type_::RULES_EFFECTIVE, "Shadowed", warnings.join("; "))
    }
}

/// Ready of wanted servers.
pub(super) fn servers(progress: &Progress) -> Option<String> {
    let _ = progress.tier.servers()?;
    Some(format!("{}/{}", progress.ready_pods, progress.wanted_pods))
}
