//! What the scheduler writes: bindings, the PodScheduled condition, events.

use client::events::{EventRecorder, EventType};
use clock::Clock;
use k8s_openapi::{
    api::core::v1::{Binding, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use crate::{cycle::Placement, devices::ASSIGNMENT_ANNOTATION, key_of, pod::PodInfo, queue::Key};

/// How a binding ended.
pub struct Outcome {
    pub key: Key,
    pub uid: String,
    pub is_bound: bool,
}

/// Executes decisions; tells how it went through `outcomes`.
pub struct Writer {
    pub client: Client,
    pub clock: Clock,
    pub events: EventRecorder,
    pub outcomes: UnboundedSender<Outcome>,
}

impl Writer {
    /// Writes the binding. A Pod that is gone or has a node already counts as settled.
    pub async fn bind(&self, pod: &PodInfo, placement: Placement) {
        let mut annotations = None;
        if !placement.devices.is_empty() {
            let text = serde_json::to_string(&placement.devices).unwrap_or_default();
            annotations = Some([(ASSIGNMENT_ANNOTATION.to_owned(), text)].into());
        }
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.name().into()),
                namespace: Some(pod.namespace().into()),
                uid: Some(pod.uid().into()),
                annotations,
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".into()),
                name: Some(placement.node.clone()),
                ..ObjectReference::default()
            },
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pod.namespace());
        let answer: kube::Result<serde_json::Value> =
            api.create_subresource("binding", pod.name(), &PostParams::default(), &binding).await;
        let is_bound = match answer {
            Ok(_) => {
                let message = format!("Successfully assigned {}/{} to {}", pod.namespace(), pod.name(), placement.node);
                self.events.event(reference(pod), EventType::Normal, "Scheduled", message);
                true
            }
            Err(kube::Error::Api(status)) if status.code == 404 => true,
            Err(error) => {
                warn!(%error, pod = pod.name(), namespace = pod.namespace(), "binding failed");
                self.events.event(
                    reference(pod),
                    EventType::Warning,
                    "FailedScheduling",
                    format!("binding rejected: {error}"),
                );
                false
            }
        };
        // The receiver is gone only when the scheduler stops.
        let _ = self.outcomes.send(Outcome { key: key_of(&pod.pod), uid: pod.uid().into(), is_bound });
    }

    /// Says why a Pod was not placed: as its condition, where that changed, and as an event.
    pub async fn refuse(&self, pod: &PodInfo, reason: &str, message: String) {
        self.events.event(reference(pod), EventType::Warning, "FailedScheduling", message.clone());
        let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let current = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
        let is_said = current.is_some_and(|condition| {
            condition.status == "False"
                && condition.reason.as_deref() == Some(reason)
                && condition.message.as_deref() == Some(&message)
        });
        if is_said {
            return;
        }
        let since =
            current.filter(|condition| condition.status == "False").and_then(|c| c.last_transition_time.clone());
        let since = since.unwrap_or_else(|| self.clock.now().into());
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "lastTransitionTime": since, "observedGeneration": pod.pod.metadata.generation,
        }]}});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pod.namespace());
        let answer = api.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch)).await;
        match answer {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => warn!(%error, pod = pod.name(), "cannot write the Pod's condition"),
        }
    }
}

fn reference(pod: &PodInfo) -> ObjectReference {
    let meta = &pod.pod.metadata;
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..ObjectReference::default()
    }
}
