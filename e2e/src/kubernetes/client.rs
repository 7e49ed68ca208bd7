//! What nearly every test asks of an API server first.

use std::{
    future::Future,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Namespace, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    client::Body,
};

use super::LABEL;
use crate::{environment::unusable, wait::PATIENCE};

/// Runs a future to its end on a thread of its own; works within and without a runtime.
pub fn blocking<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be built")
                .block_on(future)
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Asks again and again until `probe` has an answer; fails the test after [`PATIENCE`].
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    probe: impl FnMut() -> F,
) -> T {
    eventually_within(PATIENCE, what, probe).await
}

/// As [`eventually`] with a deadline of its own.
pub async fn eventually_within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        if Instant::now() > deadline {
            unusable(&format!("waited {patience:?} in vain: {what}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until an object is gone; a deletion may have to wait for finalizers.
pub async fn until_gone<K>(patience: Duration, api: &Api<K>, name: &str)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let what = format!("{name} is gone");
    eventually_within(patience, &what, || async {
        let found = api.get_opt(name).await;
        let found = found.unwrap_or_else(|error| unusable(&format!("{what}: {error}")));
        found.is_none().then_some(())
    })
    .await;
}

/// The custom resource definitions of this checkout.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../crds"));
    [
        "cachetiers.pannier.dev.yaml",
        "sessionpolicies.pannier.dev.yaml",
    ]
    .map(|file| {
        let text = std::fs::read_to_string(folder.join(file)).expect("it is in the repository");
        serde_yaml::from_str(&text).expect("it is generated")
    })
}

/// Applies the custom resource definitions of this checkout and waits until they are served.
pub async fn apply_crds(client: &Client) {
    apply_definitions(client, &definitions()).await;
}

/// Applies custom resource definitions and waits until they are served.
pub async fn apply_definitions(client: &Client, definitions: &[CustomResourceDefinition]) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in definitions {
        let name = definition.name_any();
        let parameters = PatchParams::apply("pannier-e2e").force();
        api.patch(&name, &parameters, &Patch::Apply(definition))
            .await
            .unwrap_or_else(|error| unusable(&format!("{name} is not accepted: {error}")));
        eventually(&format!("{name} is established"), || async {
            let found = api.get(&name).await.ok()?;
            let conditions = found.status?.conditions?;
            conditions
                .iter()
                .any(|one| one.type_ == "Established" && one.status == "True")
                .then_some(())
        })
        .await;
    }
}

/// Creates a namespace that no other test uses, and waits for its default account, without which
/// no pod can be created.
pub async fn new_namespace(client: &Client, prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{prefix}-{}-{number}", std::process::id());
    create_namespace(client, &name).await;
    name
}

/// Creates a namespace and waits for its default account.
pub async fn create_namespace(client: &Client, name: &str) {
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(
                [LABEL]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap_or_else(|error| unusable(&format!("failed to create {name}: {error}")));
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    eventually("the default account exists", || async {
        accounts.get_opt("default").await.ok()?
    })
    .await;
}

/// A token of a service account, valid for an hour; the account must exist.
pub async fn service_account_token(client: &Client, namespace: &str, account: &str) -> String {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(3600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let answer = api
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .unwrap_or_else(|error| unusable(&format!("no token for {namespace}/{account}: {error}")));
    answer.status.expect("a granted request has a status").token
}

/// One request with strict field validation, carried out or only judged; the message of the refusal,
/// if it is refused.
pub async fn send_strictly(
    client: &Client,
    method: &str,
    path: &str,
    dry: bool,
    body: &serde_json::Value,
) -> Option<String> {
    let dry = if dry { "&dryRun=All" } else { "" };
    let request = http::Request::builder()
        .method(method)
        .uri(format!("{path}?fieldValidation=Strict{dry}"))
        .header("content-type", "application/json")
        .body(Body::from(body.to_string().into_bytes()))
        .expect("it is a request");
    let done = async {
        let answer = client
            .send(request)
            .await
            .map_err(|error| error.to_string())?;
        let accepted = answer.status().is_success();
        let bytes = answer.into_body().collect_bytes().await;
        let bytes = bytes.map_err(|error| error.to_string())?;
        if accepted {
            return Ok(None);
        }
        let status: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let message = status["message"].as_str().unwrap_or_default();
        Ok::<_, String>(Some(message.to_owned()))
    };
    done.await
        .unwrap_or_else(|error| unusable(&format!("{method} {path} is not answered: {error}")))
}
