//! Taints keep Pods away that do not tolerate them; PreferNoSchedule only makes a node less liked.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{FilterNode, ScoreNode, Unfit};
use crate::{pod::PodInfo, snapshot::Snapshot};

pub fn filter<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<FilterNode<'a>> {
    Some(Box::new(|node| {
        let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        let untolerated = node.taints().iter().filter(hard).find(|taint| !is_tolerated(pod, taint));
        match untolerated {
            None => Ok(()),
            Some(taint) => {
                let value = taint.value.as_deref().unwrap_or_default();
                Err(Unfit::for_good(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)))
            }
        }
    }))
}

/// How many soft taints the Pod does not tolerate.
pub fn score<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<ScoreNode<'a>> {
    Some(Box::new(|node| {
        let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
        soft.filter(|taint| !is_tolerated(pod, taint)).count().try_into().unwrap_or(i64::MAX)
    }))
}

fn is_tolerated(pod: &PodInfo, taint: &Taint) -> bool {
    pod.tolerations().iter().any(|toleration| tolerates(toleration, taint))
}

/// Whether this toleration covers this taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        "Lt" | "Gt" => {
            let numbers = (text(&taint.value).parse::<i64>(), text(&toleration.value).parse::<i64>());
            match (numbers, toleration.operator.as_deref()) {
                ((Ok(taint), Ok(limit)), Some("Lt")) => taint < limit,
                ((Ok(taint), Ok(limit)), _) => taint > limit,
                _ => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(toleration: serde_json::Value, taint: serde_json::Value) -> bool {
        tolerates(&serde_json::from_value(toleration).unwrap(), &serde_json::from_value(taint).unwrap())
    }

    #[test]
    fn tolerations_cover_taints_as_upstreams_table_says() {
        let taint = serde_json::json!({"key": "k", "value": "v", "effect": "NoSchedule"});
        let rows = [
            (serde_json::json!({"operator": "Exists"}), true),
            (serde_json::json!({"key": "k", "operator": "Exists"}), true),
            (serde_json::json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (serde_json::json!({"key": "k", "value": "v"}), true),
            (serde_json::json!({"key": "k", "value": "w", "effect": "NoSchedule"}), false),
            (serde_json::json!({"key": "other", "operator": "Exists"}), false),
        ];
        for (toleration, expected) in rows {
            assert_eq!(covers(toleration.clone(), taint.clone()), expected, "{toleration}");
        }
    }
}
