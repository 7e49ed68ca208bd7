//! Golden files of the injector: a pod in JSON and what is around it in, the answer out. What comes
//! out is applied to the pod and the pod sent again: a second time nothing may change.

use std::{env, fs, path::Path};

use crds::CacheTier;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use operator::{
    injector::{Decision, Found, Request, Wish, build, decide, wish},
    settings::{UnknownTier, Webhook},
};
use serde::Deserialize;
use serde_json::{Value, json};

/// What is around a pod.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Around {
    /// Labels of the namespace.
    namespace: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    tier: Option<CacheTier>,
    #[serde(default)]
    unknown: Option<String>,
    #[serde(default)]
    not_watched: bool,
    #[serde(default)]
    unreadable: Option<String>,
    #[serde(default)]
    refuse: bool,
}

fn decision(pod: &Pod, around: &Around) -> Decision {
    let request = Request {
        uid: "u".to_owned(),
        namespace: "app".to_owned(),
        dry_run: false,
        pod: pod.clone(),
    };
    let Wish::Sidecar(wanted) = wish(pod.labels(), &around.namespace, "app") else {
        return Decision::Skip(operator::injector::decide::Reason::NotAsked);
    };
    let found = match (&around.tier, &around.unknown, &around.unreadable) {
        (None, None, None) if around.not_watched => Found::NotWatched,
        (Some(tier), None, None) => {
            assert_eq!(tier.name_any(), wanted.name);
            assert_eq!(tier.namespace(), Some(wanted.namespace.clone()));
            Found::Tier(Box::new(tier.clone()))
        }
        (None, Some(why), None) => Found::Unknown(why.clone()),
        (None, None, Some(why)) => Found::Unreadable(why.clone()),
        _ => panic!("one of tier, unknown, not_watched and unreadable"),
    };
    let webhook = Webhook {
        listen: "127.0.0.1:1".parse().unwrap(),
        service: "s".to_owned(),
        configuration: "c".to_owned(),
        sidecar_image: "sidecar:test".to_owned(),
        unknown_tier: if around.refuse {
            UnknownTier::Refuse
        } else {
            UnknownTier::Ignore
        },
    };
    decide(&request, &around.namespace, &wanted, &found, &webhook)
}

/// The answer to a pod, and the pod as it is afterwards.
fn answer(pod: &Value, around: &Around) -> (Value, Value) {
    let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
    match decision(&typed, around) {
        Decision::Skip(reason) => (json!({"skip": reason.to_string()}), pod.clone()),
        Decision::Refuse(reason) => (json!({"refuse": reason.to_string()}), pod.clone()),
        Decision::Inject(plan) => {
            let built = build(&typed, &plan);
            let mut after = pod.clone();
            json_patch::patch(&mut after, &built.patch).unwrap();
            let not_replaced: Vec<String> = built
                .not_replaced
                .iter()
                .map(|one| format!("{}: {:?}", one.container, one.by))
                .collect();
            let answer = json!({"patch": built.patch, "redisUrlNotReplaced": not_replaced});
            (answer, after)
        }
    }
}

#[test]
fn pods_get_the_golden_patches_and_a_second_visit_changes_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject");
    let mut cases = 0;
    for case in fs::read_dir(&folder).unwrap() {
        let case = case.unwrap().path();
        if !case.is_dir() {
            continue;
        }
        let pod = fs::read_to_string(case.join("pod.json")).unwrap();
        let pod: Value = serde_json::from_str(&pod).unwrap();
        let around = fs::read_to_string(case.join("around.yaml")).unwrap();
        let around: Around = serde_yaml::from_str(&with_kind(&around)).unwrap();
        let (found, after) = answer(&pod, &around);
        let expected = serde_json::to_string_pretty(&found).unwrap() + "\n";
        let file = case.join("answer.json");
        if env::var_os("UPDATE").is_some() {
            fs::write(&file, &expected).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            golden == expected,
            "{}: the answer differs; run `make generate` and review the difference",
            file.display()
        );
        let (again, end) = answer(&after, &around);
        assert_eq!(end, after, "{}: twice is not once", case.display());
        let patch = again.get("patch").and_then(Value::as_array);
        assert!(patch.is_none_or(Vec::is_empty), "{}", case.display());
        cases += 1;
    }
    assert!(cases >= 12, "{cases}");
}

/// Kind and version of the tier are the same in every case.
fn with_kind(around: &str) -> String {
    let kind = "tier:\n  apiVersion: pannier.dev/v1alpha1\n  kind: CacheTier";
    around.replace("tier:", kind)
}

fn case(name: &str) -> (Value, Around) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject");
    let read = |file: &str| fs::read_to_string(folder.join(name).join(file)).unwrap();
    (
        serde_json::from_str(&read("pod.json")).unwrap(),
        serde_yaml::from_str(&with_kind(&read("around.yaml"))).unwrap(),
    )
}

#[test]
fn a_pod_that_others_changed_in_between_keeps_their_work_and_gets_what_is_missing() {
    let (pod, around) = case("plain");
    let (_, mut pod) = answer(&pod, &around);
    // A mesh puts its container in front, gives ours a variable, and takes our restart away; the
    // app gets a second container.
    let init = pod["spec"]["initContainers"].as_array_mut().unwrap();
    init[0]["env"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "MESH", "value": "1"}));
    init[0].as_object_mut().unwrap().remove("restartPolicy");
    init.insert(
        0,
        json!({"name": "mesh", "image": "m", "restartPolicy": "Always"}),
    );
    let apps = pod["spec"]["containers"].as_array_mut().unwrap();
    apps.push(json!({"name": "late", "image": "l"}));
    let (_, after) = answer(&pod, &around);
    let init = after["spec"]["initContainers"].as_array().unwrap();
    let names: Vec<&Value> = init.iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["mesh", "pannier-sidecar"]);
    assert_eq!(init[1]["restartPolicy"], "Always");
    assert_eq!(init[1]["env"][1]["name"], "MESH");
    assert_eq!(
        init[0],
        json!({"name": "mesh", "image": "m", "restartPolicy": "Always"})
    );
    let late = &after["spec"]["containers"][1]["env"];
    assert_eq!(
        late[0],
        json!({"name": "REDIS_URL", "value": "redis://localhost:6379"})
    );
}

#[test]
fn a_pod_copied_from_one_of_another_tier_gets_its_own_sidecar() {
    let (pod, around) = case("plain");
    let (_, mut copied) = answer(&pod, &around);
    let text = copied.to_string().replace("shop-sidecar", "old-sidecar");
    copied = serde_json::from_str(&text).unwrap();
    copied["metadata"]["labels"]["pannier.dev/injected"] = json!("old");
    copied["spec"]["initContainers"][0]["image"] = json!("old:1");
    let (_, after) = answer(&copied, &around);
    let (_, fresh) = answer(&pod, &around);
    assert_eq!(after, fresh);
}
