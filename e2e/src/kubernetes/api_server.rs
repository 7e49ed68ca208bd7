//! The API server that a test of the operator runs against: ours, without nodes, or that of the
//! cluster that the user names. Of a borrowed one nothing is stopped, cut or looked into: what a test
//! needs beyond an API server, it asks of [`ApiServer::own`].

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock, PoisonError},
};

use k8s_openapi::{ByteString, api::core::v1::Namespace};
use kube::{
    Api, Client, Resource as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};

use super::{
    Access, Binaries, ControlPlane, Target, Unavailable,
    client::{apply_crds, blocking, service_account_token},
    target,
};
use crate::{environment::unusable, process::Folder};

/// Namespace, account and role binding by which the tests are known in a borrowed cluster.
const NAME: &str = "pannier-e2e";
/// Label of every namespace that tests make, and of what they make outside of one.
pub const LABEL: (&str, &str) = ("app.kubernetes.io/created-by", NAME);

/// An API server with our custom resources.
pub enum ApiServer {
    /// Started by the harness.
    Own(&'static ControlPlane),
    /// That of the cluster that the user names.
    Borrowed(Box<Borrowed>),
}

/// The way to a borrowed one, as an account that may do everything.
pub struct Borrowed {
    access: Access,
    kubeconfig: PathBuf,
    binaries: Binaries,
    _folder: Folder,
}

impl ApiServer {
    /// The one that the user names, else ours; one for all tests of this process, each of which has
    /// namespaces of its own.
    pub fn shared() -> Result<&'static Self, Unavailable> {
        static SHARED: OnceLock<ApiServer> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = SHARED.get() {
            return Ok(shared);
        }
        let made = match target::named() {
            Some(file) => Self::borrow(&file)?,
            None => Self::Own(ControlPlane::shared()?),
        };
        Ok(SHARED.get_or_init(|| made))
    }

    /// Prepares another's cluster: our custom resources, and an account for the tests.
    pub fn borrow(file: &Path) -> Result<Self, Unavailable> {
        let binaries = Binaries::get()?;
        let folder = Folder::new("borrowed");
        let (address, authority) = server(file).map_err(|why| cannot(file, &why))?;
        let authority = folder.write("ca.crt", &authority);
        let token = blocking(async {
            let client = Target::Borrowed(file.to_owned()).client().await;
            apply_crds(&client).await;
            account(&client).await;
            service_account_token(&client, NAME, NAME).await
        });
        let access = Access {
            address,
            authority: PathBuf::from(authority),
            token,
        };
        let kubeconfig = folder.write("kubeconfig", &access.kubeconfig());
        Ok(Self::Borrowed(Box::new(Borrowed {
            access,
            kubeconfig: PathBuf::from(kubeconfig),
            binaries,
            _folder: folder,
        })))
    }

    /// The administrator's way.
    pub fn access(&self) -> &Access {
        match self {
            Self::Own(plane) => plane.access(),
            Self::Borrowed(borrowed) => &borrowed.access,
        }
    }

    /// The administrator's client. It belongs to the runtime it is made in.
    pub async fn client(&self) -> Client {
        self.access().client().await
    }

    /// `kubectl` as the administrator, to be completed with arguments.
    pub fn kubectl(&self) -> Command {
        match self {
            Self::Own(plane) => plane.kubectl(),
            Self::Borrowed(borrowed) => {
                let mut command = Command::new(borrowed.binaries.program("kubectl"));
                command.env("KUBECONFIG", &borrowed.kubeconfig);
                command
            }
        }
    }
}

fn cannot(file: &Path, why: &str) -> Unavailable {
    Unavailable::Unusable {
        file: file.to_owned(),
        why: why.to_owned(),
    }
}

/// Address of the server that a kubeconfig file leads to, and whom to trust there, in PEM.
fn server(file: &Path) -> Result<(String, String), String> {
    let config = Kubeconfig::read_from(file).map_err(|error| error.to_string())?;
    let context = config.current_context.as_deref().unwrap_or_default();
    let context = config.contexts.iter().find(|one| one.name == context);
    let context = context.and_then(|one| one.context.as_ref());
    let context = context.ok_or("it has no current context; kubectl config use-context")?;
    let mut clusters = config.clusters.iter();
    let cluster = clusters.find(|one| one.name == context.cluster);
    let cluster = cluster.and_then(|one| one.cluster.as_ref());
    let cluster = cluster.ok_or("it has no cluster of its current context")?;
    let address = cluster.server.clone().ok_or("its cluster has no server")?;
    let authority = match (
        &cluster.certificate_authority_data,
        &cluster.certificate_authority,
    ) {
        (Some(data), _) => {
            let decoded: ByteString = serde_json::from_value(Value::from(data.as_str()))
                .map_err(|error| format!("certificate-authority-data: {error}"))?;
            String::from_utf8(decoded.0).map_err(|error| error.to_string())?
        }
        (None, Some(path)) => {
            std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?
        }
        (None, None) => {
            return Err("it names no certificate authority; give certificate-authority".to_owned());
        }
    };
    Ok((address, authority))
}

/// An account that may do everything: tests give it away to programs that know tokens only.
async fn account(client: &Client) {
    let labels = json!({LABEL.0: LABEL.1});
    let account = json!({"kind": "ServiceAccount", "name": NAME, "namespace": NAME});
    let role = json!({
        "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin",
    });
    for object in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME, "labels": labels}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": NAME, "namespace": NAME}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": NAME, "labels": labels}, "subjects": [account], "roleRef": role}),
    ] {
        let object: DynamicObject = serde_json::from_value(object).expect("it is an object");
        let types = object.types.clone().expect("it says what it is");
        let group = kube::core::GroupVersionKind::try_from(&types).expect("it is well-formed");
        let resource = ApiResource::from_gvk(&group);
        let api: Api<DynamicObject> = match object.meta().namespace.as_deref() {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let params = PatchParams::apply(NAME).force();
        api.patch(NAME, &params, &Patch::Apply(&object))
            .await
            .unwrap_or_else(|error| unusable(&format!("{} {NAME}: {error}", types.kind)));
    }
}

/// Removes from the cluster that the user names what tests have made there; gives the names. The
/// definitions and cluster roles stay: others may use them by now.
pub async fn sweep(file: &Path) -> Result<Vec<String>, kube::Error> {
    let client = Target::Borrowed(file.to_owned()).client().await;
    let selector = format!("{}={}", LABEL.0, LABEL.1);
    let ours = ListParams::default().labels(&selector);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut removed = Vec::new();
    for namespace in namespaces.list(&ours).await? {
        let name = namespace.metadata.name.unwrap_or_default();
        namespaces.delete(&name, &DeleteParams::default()).await?;
        removed.push(format!("namespace {name}"));
    }
    let bindings: Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> = Api::all(client);
    bindings
        .delete_collection(&DeleteParams::default(), &ours)
        .await?;
    Ok(removed)
}
