//! Whether an event is new, a repetition, one of many similar ones, or too much.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, ObjectReference};

use super::Said;

/// Objects and events remembered of each sort; beyond it the oldest half is forgotten.
const REMEMBERED_MAX: usize = 4096;
/// Distinct messages of similar events within [`SIMILAR_WINDOW`], beyond which they are combined.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// Events about one object at once, and the seconds in which one more is earned.
const BURST_MAX: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
const COMBINED: &str = "(combined from similar events): ";

/// What makes events the same.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct EventKey {
    object: String,
    r#type: super::EventType,
    reason: String,
    /// Empty for combined ones.
    message: String,
}

/// What to do about an event.
#[derive(Debug)]
pub(super) enum Verdict {
    Drop,
    Create { key: EventKey, message: String, suffix: String },
    Repeat { key: EventKey, repeat: Repeat, message: String, suffix: String },
}

/// An event that exists, and its next count.
#[derive(Clone, Debug)]
pub(super) struct Repeat {
    pub namespace: String,
    pub name: String,
    pub count: i32,
}

struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

struct Bucket {
    tokens: f64,
    last: Timestamp,
}

/// Remembers what was said lately.
#[derive(Default)]
pub(super) struct Correlator {
    similar: HashMap<EventKey, Similar>,
    written: HashMap<EventKey, (Repeat, Timestamp)>,
    buckets: HashMap<String, Bucket>,
    last_nanosecond: i128,
    now: Timestamp,
}

fn identity(about: &ObjectReference) -> String {
    let part = |field: &Option<String>| field.clone().unwrap_or_default();
    let fields = [&about.kind, &about.namespace, &about.name, &about.uid, &about.api_version, &about.field_path];
    fields.map(part).join("\0")
}

impl Correlator {
    pub fn consider(&mut self, said: &Said, now: Timestamp) -> Verdict {
        self.now = now;
        let object = identity(&said.about);
        if !self.afford(&object, now) {
            return Verdict::Drop;
        }
        let group = EventKey { object, r#type: said.r#type, reason: said.reason.clone(), message: String::new() };
        let (key, message) = if self.is_one_of_many(&group, &said.message, now) {
            (group, format!("{COMBINED}{}", said.message))
        } else {
            (EventKey { message: said.message.clone(), ..group }, said.message.clone())
        };
        let suffix = self.suffix(now);
        match self.written.get(&key) {
            Some((repeat, _)) => {
                let repeat = Repeat { count: repeat.count.saturating_add(1), ..repeat.clone() };
                Verdict::Repeat { key, repeat, message, suffix }
            }
            None => Verdict::Create { key, message, suffix },
        }
    }

    /// The server has it now.
    pub fn written(&mut self, key: EventKey, event: &Event) {
        let repeat = Repeat {
            namespace: event.metadata.namespace.clone().unwrap_or_default(),
            name: event.metadata.name.clone().unwrap_or_default(),
            count: event.count.unwrap_or(1),
        };
        self.written.insert(key, (repeat, self.now));
        forget_oldest(&mut self.written, |(_, last)| *last);
    }

    fn afford(&mut self, object: &str, now: Timestamp) -> bool {
        let bucket = self.buckets.entry(object.to_owned()).or_insert(Bucket { tokens: BURST_MAX, last: now });
        let earned = now.duration_since(bucket.last).as_secs_f64().max(0.0) / REFILL_SECONDS;
        bucket.tokens = (bucket.tokens + earned).min(BURST_MAX);
        bucket.last = now;
        let affordable = bucket.tokens >= 1.0;
        if affordable {
            bucket.tokens -= 1.0;
        }
        forget_oldest(&mut self.buckets, |bucket| bucket.last);
        affordable
    }

    fn is_one_of_many(&mut self, group: &EventKey, message: &str, now: Timestamp) -> bool {
        let similar =
            self.similar.entry(group.clone()).or_insert_with(|| Similar { messages: HashSet::new(), last: now });
        if now.duration_since(similar.last) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = now;
        let is_known = similar.messages.contains(message);
        let many = !is_known && similar.messages.len() >= SIMILAR_MAX;
        if !is_known && !many {
            similar.messages.insert(message.to_owned());
        }
        forget_oldest(&mut self.similar, |similar| similar.last);
        many
    }

    /// Nanoseconds in hexadecimal, as upstream names events; never the same twice.
    fn suffix(&mut self, now: Timestamp) -> String {
        self.last_nanosecond = now.as_nanosecond().max(self.last_nanosecond + 1);
        format!("{:x}", self.last_nanosecond)
    }
}

fn forget_oldest<K: Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>, last: impl Fn(&V) -> Timestamp) {
    if map.len() <= REMEMBERED_MAX {
        return;
    }
    let mut times: Vec<Timestamp> = map.values().map(&last).collect();
    times.sort_unstable();
    let median = times[times.len() / 2];
    map.retain(|_, value| last(value) > median);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventType;

    fn said(message: &str) -> Said {
        let about = ObjectReference { name: Some("web".into()), ..ObjectReference::default() };
        Said { about, r#type: EventType::Normal, reason: "Scaled".into(), message: message.into() }
    }

    fn accept(correlator: &mut Correlator, message: &str, now: Timestamp) -> String {
        match correlator.consider(&said(message), now) {
            Verdict::Drop => "drop".into(),
            Verdict::Create { key, message, suffix } => {
                let event = Event { count: Some(1), ..Event::default() };
                correlator.written(key, &Event { metadata: Default::default(), ..event });
                format!("create {message} {}", !suffix.is_empty())
            }
            Verdict::Repeat { key, repeat, message, .. } => {
                correlator.written(key, &Event { count: Some(repeat.count), ..Event::default() });
                format!("{} times {message}", repeat.count)
            }
        }
    }

    #[test]
    fn the_same_event_again_is_counted() {
        let (mut correlator, now) = (Correlator::default(), Timestamp::UNIX_EPOCH);
        let heard: Vec<_> = (0..3).map(|_| accept(&mut correlator, "up", now)).collect();
        assert_eq!(heard, ["create up true", "2 times up", "3 times up"]);
    }

    #[test]
    fn many_similar_events_are_combined_and_a_flood_is_dropped() {
        let (mut correlator, now) = (Correlator::default(), Timestamp::UNIX_EPOCH);
        let heard: Vec<_> = (0..26).map(|n| accept(&mut correlator, &format!("m{n}"), now)).collect();
        assert_eq!(heard[9], "create m9 true");
        assert_eq!(heard[10], "create (combined from similar events): m10 true");
        assert_eq!(heard[11], "2 times (combined from similar events): m11");
        assert_eq!(heard[25], "drop");
        let later = now + SignedDuration::from_mins(5);
        assert_ne!(accept(&mut correlator, "m26", later), "drop");
    }
}
