//! The identity of server and Sentinel pods: it has no rights and its token is not mounted.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::cache_tier::{object_names::Component, validate::ValidatedTier};

pub(super) fn build(tier: &ValidatedTier) -> ServiceAccount {
    ServiceAccount {
        metadata: tier.names.meta(tier.names.redis(), Component::Redis, None),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
