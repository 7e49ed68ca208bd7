//! First step: bytes from the network to the pod that is about to be created.
//!
//! Anything may come here. What is no review gets a sentence and status 400; what is a review of
//! something else is allowed as it is, because nothing of ours may keep it from being created.

use k8s_openapi::api::core::v1::Pod;
use kube::core::{
    DynamicObject,
    admission::{
        AdmissionRequest, AdmissionResponse, AdmissionReview, META_API_VERSION_V1, META_KIND,
        Operation,
    },
};

use super::Request;

/// A review with everything that the answer needs.
#[derive(Debug)]
pub enum Decoded {
    /// A pod.
    Pod {
        /// The pod.
        request: Box<Request>,
        /// The answer that allows it as it is.
        answer: AdmissionResponse,
    },
    /// Something that gets no sidecar: the answer, and why.
    Other(AdmissionResponse, String),
}

/// Why bytes are no review.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON of that form.
    #[error("this is no AdmissionReview: {0}")]
    Form(#[source] serde_json::Error),
    /// Another kind or version.
    #[error(
        "only AdmissionReview of admission.k8s.io/v1 is understood, this is {kind} of {version}"
    )]
    Version {
        /// The kind.
        kind: String,
        /// The version.
        version: String,
    },
    /// An answer, or nothing.
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

/// Reads a review.
pub fn decode(body: &[u8]) -> Result<Decoded, DecodeError> {
    let review: AdmissionReview<DynamicObject> =
        serde_json::from_slice(body).map_err(DecodeError::Form)?;
    if (
        review.types.kind.as_str(),
        review.types.api_version.as_str(),
    ) != (META_KIND, META_API_VERSION_V1)
    {
        return Err(DecodeError::Version {
            kind: review.types.kind,
            version: review.types.api_version,
        });
    }
    let request: AdmissionRequest<DynamicObject> =
        review.try_into().map_err(|_| DecodeError::NoRequest)?;
    let answer = AdmissionResponse::from(&request);
    match pod(request) {
        Ok(request) => Ok(Decoded::Pod {
            request: Box::new(request),
            answer,
        }),
        Err(why) => Ok(Decoded::Other(answer, why)),
    }
}

fn pod(request: AdmissionRequest<DynamicObject>) -> Result<Request, String> {
    let of = (
        request.kind.group.as_str(),
        request.kind.version.as_str(),
        request.kind.kind.as_str(),
        request.sub_resource.as_deref().unwrap_or_default(),
    );
    if of != ("", "v1", "Pod", "") {
        return Err(format!("it is about {} {}, not about a pod", of.2, of.3));
    }
    if request.operation != Operation::Create {
        return Err("only a pod that is created can get a sidecar".to_owned());
    }
    let object = request.object.ok_or("there is no pod in it")?;
    let object = serde_json::to_value(object).map_err(|error| error.to_string())?;
    let pod: Pod = serde_json::from_value(object)
        .map_err(|error| format!("the pod cannot be read: {error}"))?;
    if pod.spec.is_none() {
        return Err("the pod has no spec".to_owned());
    }
    let namespace = request
        .namespace
        .or_else(|| pod.metadata.namespace.clone())
        .ok_or("the pod is in no namespace")?;
    Ok(Request {
        uid: request.uid,
        namespace,
        dry_run: request.dry_run,
        pod,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn review() -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "u-1",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "shop",
                "operation": "CREATE",
                "userInfo": {"username": "someone"},
                "object": {
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"generateName": "web-"},
                    "spec": {"containers": [{"name": "web", "newField": 1}]},
                },
                "oldObject": null,
                "dryRun": true,
            },
        })
    }

    fn read(review: &Value) -> Result<Decoded, DecodeError> {
        decode(review.to_string().as_bytes())
    }

    #[test]
    fn a_pod_is_read_with_what_the_answer_needs() {
        let Decoded::Pod { request, answer } = read(&review()).unwrap() else {
            panic!("a pod")
        };
        assert_eq!(
            (request.uid.as_str(), request.namespace.as_str()),
            ("u-1", "shop")
        );
        assert!(request.dry_run);
        assert_eq!((answer.uid.as_str(), answer.allowed), ("u-1", true));
    }

    #[test]
    fn what_is_no_review_is_refused_with_a_sentence() {
        for (body, said) in [
            (Vec::new(), "no AdmissionReview"),
            (b"\xff\xfe{".to_vec(), "no AdmissionReview"),
            (b"[]".to_vec(), "no AdmissionReview"),
            (b"{}".to_vec(), "no AdmissionReview"),
            (vec![b'['; 1 << 20], "no AdmissionReview"),
            (
                br#"{"kind":"Pod","apiVersion":"v1"}"#.to_vec(),
                "this is Pod of v1",
            ),
            (
                br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1"}"#.to_vec(),
                "v1beta1",
            ),
            (
                br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#.to_vec(),
                "no request",
            ),
        ] {
            let error = decode(&body).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_review_of_something_else_is_allowed_as_it_is() {
        let change = |path: &str, value: Value| {
            let mut review = review();
            *review.pointer_mut(path).unwrap() = value;
            review
        };
        for (review, said) in [
            (change("/request/kind/kind", json!("Secret")), "Secret"),
            (change("/request/operation", json!("UPDATE")), "created"),
            (change("/request/object", Value::Null), "no pod"),
            (
                change("/request/object/spec", json!("text")),
                "cannot be read",
            ),
            (
                change("/request/object/spec", json!({"containers": 7})),
                "cannot be read",
            ),
        ] {
            let Decoded::Other(answer, why) = read(&review).unwrap() else {
                panic!("{said}")
            };
            assert!(answer.allowed && answer.patch.is_none(), "{said}");
            assert_eq!(answer.uid, "u-1");
            assert!(why.contains(said), "{why}");
        }
    }
}
