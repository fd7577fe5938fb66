//! Ending one container: preStop hook, the signal, and the kill at the deadline. The deadline only moves earlier.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use client::events::{EventRecorder, EventType};
use clock::Clock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, ObjectReference};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{hooks, runtime::ContainerRuntime};

/// What a container always gets between SIGTERM and SIGKILL, however long the preStop hook took; as upstream.
const WINDOW_MIN: Duration = Duration::from_secs(2);
/// Between attempts when the runtime does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Who is to end, and how.
pub struct Order {
    pub id: String,
    pub container: Container,
    pub pre_stop: Option<LifecycleHandler>,
    pub about: ObjectReference,
    /// Full name of the Pod, for messages.
    pub pod: String,
    pub ip: String,
    pub deadline: Timestamp,
}

struct Kill {
    deadline: watch::Sender<Timestamp>,
    task: JoinHandle<()>,
}

/// The kills of one Pod; ended with it.
pub struct Kills {
    runtime: Arc<dyn ContainerRuntime>,
    recorder: EventRecorder,
    clock: Clock,
    wake: Arc<Notify>,
    running: BTreeMap<String, Kill>,
}

impl Drop for Kills {
    fn drop(&mut self) {
        self.running.values().for_each(|kill| kill.task.abort());
    }
}

impl Kills {
    /// `wake` is rung at the end of each.
    pub fn new(runtime: Arc<dyn ContainerRuntime>, recorder: EventRecorder, clock: Clock, wake: Arc<Notify>) -> Self {
        Self { runtime, recorder, clock, wake, running: BTreeMap::new() }
    }

    /// Containers that are being ended now, by id.
    pub fn ids(&mut self) -> BTreeSet<String> {
        self.running.retain(|_, kill| !kill.task.is_finished());
        self.running.keys().cloned().collect()
    }

    pub fn start(&mut self, order: Order) {
        if self.running.get(&order.id).is_some_and(|kill| !kill.task.is_finished()) {
            return;
        }
        let (deadline, watched) = watch::channel(order.deadline);
        let id = order.id.clone();
        let (runtime, recorder, clock) = (self.runtime.clone(), self.recorder.clone(), self.clock.clone());
        let wake = self.wake.clone();
        let task = tokio::spawn(async move {
            end(&*runtime, &recorder, &clock, order, watched).await;
            wake.notify_one();
        });
        self.running.insert(id, Kill { deadline, task });
    }

    /// Nobody gets longer than this any more.
    pub fn hasten(&mut self, deadline: Timestamp) {
        for kill in self.running.values() {
            kill.deadline.send_if_modified(|present| {
                let earlier = deadline < *present;
                *present = deadline.min(*present);
                earlier
            });
        }
    }
}

async fn end(
    runtime: &dyn ContainerRuntime,
    recorder: &EventRecorder,
    clock: &Clock,
    order: Order,
    mut deadline: watch::Receiver<Timestamp>,
) {
    if let Some(handler) = &order.pre_stop {
        let hook = hooks::run(runtime, &order.id, &order.container, handler, &order.pod, &order.ip);
        tokio::select! {
            done = hook => if let Err(error) = done {
                tracing::info!(pod = order.pod, container = order.container.name, error, "preStop hook failed");
                recorder.event(order.about, EventType::Warning, "FailedPreStopHook", "PreStopHook failed".into());
            },
            () = passed(clock, &mut deadline) => {
                tracing::info!(pod = order.pod, container = order.container.name, "preStop hook took too long");
            }
        }
    }
    loop {
        let left = clock.until(*deadline.borrow_and_update()).max(WINDOW_MIN);
        tokio::select! {
            stopped = runtime.stop_container(&order.id, left) => match stopped {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(pod = order.pod, container = order.container.name, %error, "not stopped");
                    tokio::time::sleep(RETRY).await;
                    return;
                }
            },
            // Asked again with less time.
            Ok(()) = deadline.changed() => {}
        }
    }
}

async fn passed(clock: &Clock, deadline: &mut watch::Receiver<Timestamp>) {
    loop {
        let left = clock.until(*deadline.borrow_and_update());
        tokio::select! {
            () = tokio::time::sleep(left) => return,
            Ok(()) = deadline.changed() => {}
        }
    }
}
