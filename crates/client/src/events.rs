//! The event recorder: tells users what a component did, without ever blocking it.
//!
//! [`correlate`] decides (pure), the recorder's task writes. As in client-go: the same event again is a
//! count on the first one, many similar ones become one, and one source cannot flood one object.

mod correlate;

use clock::Clock;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use tokio::sync::mpsc;

use self::correlate::{Correlator, Repeat, Verdict};

/// Events waiting to be written; beyond it they are dropped.
const QUEUED_EVENTS_MAX: usize = 1000;

/// Normal or Warning, as kubectl shows it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What a component has to say about an object.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    about: ObjectReference,
    r#type: EventType,
    reason: String,
    message: String,
}

/// Writes events in the background; clones share one queue.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    queue: mpsc::Sender<Said>,
}

impl EventRecorder {
    /// Must be called inside a runtime. `component` and `host` are the events' source.
    pub fn new(client: Client, clock: Clock, component: &str, host: &str) -> Self {
        let (queue, said) = mpsc::channel(QUEUED_EVENTS_MAX);
        let source = EventSource {
            component: Some(component.into()),
            host: Some(host.to_owned()).filter(|host| !host.is_empty()),
        };
        tokio::spawn(write_all(client, clock, source, said));
        Self { queue }
    }

    /// Never blocks; drops the event where the queue is full.
    pub fn event(&self, about: ObjectReference, r#type: EventType, reason: &str, message: String) {
        tracing::debug!(kind = ?about.kind, name = ?about.name, reason, message, "event");
        let said = Said { about, r#type, reason: reason.into(), message };
        if self.queue.try_send(said).is_err() {
            tracing::debug!("event dropped: {QUEUED_EVENTS_MAX} are waiting");
        }
    }
}

/// A reference to a typed object, for [`EventRecorder::event`].
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}

async fn write_all(client: Client, clock: Clock, source: EventSource, mut said: mpsc::Receiver<Said>) {
    let mut correlator = Correlator::default();
    while let Some(said) = said.recv().await {
        let written = match correlator.consider(&said, clock.now()) {
            Verdict::Drop => continue,
            Verdict::Create { key, message, suffix } => {
                create(&client, &source, &said, Wording { message, suffix }, &clock, 1).await.map(|event| (key, event))
            }
            Verdict::Repeat { key, repeat, message, suffix } => {
                let patched = count(&client, &repeat, &message, &clock).await;
                let event = match patched {
                    Err(kube::Error::Api(status)) if status.code == 404 => {
                        create(&client, &source, &said, Wording { message, suffix }, &clock, repeat.count).await
                    }
                    patched => patched,
                };
                event.map(|event| (key, event))
            }
        };
        match written {
            Ok((key, event)) => correlator.written(key, &event),
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "event not written"),
        }
    }
}

struct Wording {
    message: String,
    /// Makes the name of the event unique among those of the same object.
    suffix: String,
}

async fn create(
    client: &Client,
    source: &EventSource,
    said: &Said,
    wording: Wording,
    clock: &Clock,
    count: i32,
) -> kube::Result<Event> {
    let namespace = said.about.namespace.clone().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or_else(|| "default".into());
    let now = Time(clock.now());
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{}", said.about.name.as_deref().unwrap_or_default(), wording.suffix)),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: said.about.clone(),
        reason: Some(said.reason.clone()),
        message: Some(wording.message),
        source: Some(source.clone()),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(count),
        type_: Some(said.r#type.as_str().into()),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        ..Event::default()
    };
    Api::namespaced(client.clone(), &namespace).create(&PostParams::default(), &event).await
}

async fn count(client: &Client, repeat: &Repeat, message: &str, clock: &Clock) -> kube::Result<Event> {
    let patch = serde_json::json!({"count": repeat.count, "lastTimestamp": Time(clock.now()), "message": message});
    let api: Api<Event> = Api::namespaced(client.clone(), &repeat.namespace);
    api.patch(&repeat.name, &PatchParams::default(), &Patch::Merge(patch)).await
}
