//! The roles of the chart are those that the operator's own tests run with.

use std::{collections::BTreeSet, fs};

use e2e::environment::available;
use serde_json::Value;

use super::helm::{Helm, documents, repository, variants};

/// The roles that the operator's own tests run with, as an installation of that name has them.
fn tested<const COUNT: usize>(file: &str, installation: &str) -> [Value; COUNT] {
    let file = repository().join("operator/rbac").join(file);
    let text = fs::read_to_string(file).unwrap();
    let text = text.replace("[pannier-operator]", &format!("[{installation}]"));
    documents(&text).try_into().unwrap()
}

/// The rules of a role.
fn rules(role: &Value) -> BTreeSet<String> {
    let rules = role["rules"].as_array().unwrap().iter();
    rules.map(Value::to_string).collect()
}

#[test]
fn the_rights_are_those_that_the_operators_tests_run_with_and_none_is_a_wildcard() {
    let test = "the_rights_are_those_that_the_operators_tests_run_with_and_none_is_a_wildcard";
    let Some(helm) = available(test, Helm::offline()) else {
        return;
    };
    for values in variants() {
        let name = values.display().to_string();
        let all = documents(&helm.render(&values));
        let in_shop = all.iter().any(|one| one["metadata"]["namespace"] == "shop");
        // Of several installations each has its own objects outside of its namespace.
        let installation = if in_shop {
            "pannier-system-pannier-operator"
        } else {
            "pannier-operator"
        };
        let given = |kind: &str, namespace: &str| {
            all.iter().find(|one| {
                let place = one["metadata"]["namespace"].as_str().unwrap_or_default();
                let named = one["metadata"]["name"] == installation;
                one["kind"] == kind && place == namespace && named
            })
        };
        let [tiers, copies, injector] = tested("namespace.yaml", installation);
        let [namespaces, bundle] = tested("cluster.yaml", installation);
        let webhook = given("MutatingWebhookConfiguration", "").is_some();
        let (cluster, apps) = (given("ClusterRole", ""), given("Role", "shop-apps"));
        let home = given("Role", "shop").or(cluster);
        for (role, tested, needed) in [
            (home, &tiers, true),
            (apps, &copies, true),
            (apps, &injector, webhook),
            (cluster, &namespaces, true),
            (cluster, &bundle, webhook),
        ] {
            let has = role.is_none_or(|role| rules(role).is_superset(&rules(tested)));
            assert!(has || !needed, "{name}: {tested}");
        }
        assert!(home.is_some(), "{name}");
        assert_eq!(apps.is_some(), name.ends_with("/namespaces.values.yaml"));
        for rules in all
            .iter()
            .filter_map(|one| one["rules"].as_array())
            .flatten()
        {
            assert!(!rules.to_string().contains('*'), "{name}: {rules}");
        }
        // Roles only, when namespaces are given: no Secret of another one can be read.
        let cluster = all.iter().filter(|one| one["kind"] == "ClusterRole");
        let secrets = cluster.filter(|one| one["rules"].to_string().contains("secrets"));
        assert!(!in_shop || secrets.count() == 0, "{name}");
        let any = all.iter().any(|one| one["kind"] == "ClusterRole");
        assert!(!any || !name.contains("roles-only"), "{name}");
    }
}
