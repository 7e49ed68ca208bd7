//! Why a pod does not run, as Kubernetes says. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// Longest sentence of others that is passed on.
const LONGEST: usize = 300;
/// What every pod goes through.
const ORDINARY: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// The kubelet goes to and fro between these.
const NO_IMAGE: [&str; 2] = ["ErrImagePull", "ImagePullBackOff"];

/// It cannot be scheduled, or a container of it cannot be started.
pub fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    let unscheduled = conditions.find(|one| one.type_ == "PodScheduled" && one.status == "False");
    if let Some(condition) = unscheduled {
        let reason = condition.reason.as_deref().unwrap_or("Unschedulable");
        return Some(sentence(reason, condition.message.as_deref()));
    }
    let init = status.init_container_statuses.iter().flatten();
    let mut containers = init.chain(status.container_statuses.iter().flatten());
    containers.find_map(|container| {
        let why = not_started(container)?;
        Some(format!("container {}: {why}", container.name))
    })
}

fn not_started(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if ORDINARY.contains(&reason) {
        return None;
    }
    if NO_IMAGE.contains(&reason) {
        return Some(format!("the image {} cannot be pulled", container.image));
    }
    let last = container.last_state.as_ref();
    // The message tells how long is waited, which is another time with each look.
    let ended = last.and_then(|last| last.terminated.as_ref());
    Some(match ended {
        Some(ended) if reason == "CrashLoopBackOff" => {
            let why = ended.reason.as_deref().unwrap_or("Error");
            format!("{reason}: it ended with code {} ({why})", ended.exit_code)
        }
        _ => sentence(reason, waiting.message.as_deref()),
    })
}

fn sentence(reason: &str, message: Option<&str>) -> String {
    let message = message.unwrap_or_default().trim();
    if message.is_empty() {
        return reason.to_owned();
    }
    let message: String = message.chars().take(LONGEST).collect();
    format!("{reason}: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: &serde_json::Value) -> Option<String> {
        let pod = serde_json::json!({"metadata": {}, "status": status});
        trouble(&serde_json::from_value(pod).unwrap())
    }

    fn waiting(reason: &str, message: &str) -> Option<String> {
        told(&serde_json::json!({"containerStatuses": [{
            "name": "redis", "image": "a:1", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": reason, "message": message}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
        }]}))
    }

    #[test]
    fn a_pod_that_cannot_be_scheduled_says_what_the_scheduler_says() {
        let said = told(&serde_json::json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient memory.",
        }]}));
        assert_eq!(
            said.unwrap(),
            "Unschedulable: 0/3 nodes are available: 3 Insufficient memory."
        );
    }

    #[test]
    fn a_container_that_cannot_start_says_why_and_one_that_is_being_made_nothing() {
        assert_eq!(waiting("ContainerCreating", ""), None);
        assert_eq!(
            waiting("ImagePullBackOff", "Back-off").unwrap(),
            "container redis: the image a:1 cannot be pulled"
        );
        assert_eq!(
            waiting("CreateContainerConfigError", "secret \"s\" not found").unwrap(),
            "container redis: CreateContainerConfigError: secret \"s\" not found"
        );
        assert_eq!(
            waiting("CrashLoopBackOff", "back-off 40s restarting").unwrap(),
            "container redis: CrashLoopBackOff: it ended with code 137 (OOMKilled)"
        );
        assert_eq!(told(&serde_json::json!({"phase": "Running"})), None);
    }
}
