//! What configMap, secret, downwardAPI and projected volumes hold, as files. Pure, given the objects.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use super::atomic::{File, Payload};
use crate::downward::{self, Place};

pub const MODE_DEFAULT: i32 = 0o644;

/// Who may read the files.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Owner {
    /// fsGroup.
    pub gid: Option<i64>,
}

impl Owner {
    /// The group can always read what is its own.
    pub fn file(&self, content: Vec<u8>, mode: i32) -> File {
        let gid = self.gid.and_then(|gid| u32::try_from(gid).ok());
        let shared = if gid.is_some() { 0o440 } else { 0 };
        File { content, mode: (mode as u32 & 0o7777) | shared, uid: None, gid }
    }
}

/// How keys become files.
pub struct Selection<'a> {
    pub items: Option<&'a [KeyToPath]>,
    pub default_mode: Option<i32>,
    pub optional: bool,
    pub owner: Owner,
}

pub fn of_config_map(map: &ConfigMap, selection: &Selection<'_>) -> Result<Payload, String> {
    let mut data: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    data.extend(map.data.iter().flatten().map(|(key, text)| (key.as_str(), text.clone().into_bytes())));
    data.extend(map.binary_data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.clone())));
    select(data, selection, "configmap")
}

pub fn of_secret(secret: &Secret, selection: &Selection<'_>) -> Result<Payload, String> {
    let data = secret.data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.clone())).collect();
    select(data, selection, "secret")
}

fn select(data: BTreeMap<&str, Vec<u8>>, selection: &Selection<'_>, kind: &str) -> Result<Payload, String> {
    let default_mode = selection.default_mode.unwrap_or(MODE_DEFAULT);
    let file = |content: Vec<u8>, mode: Option<i32>| selection.owner.file(content, mode.unwrap_or(default_mode));
    let Some(items) = selection.items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, content)| (key.to_string(), file(content, None))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(content) => {
                payload.insert(item.path.clone(), file(content.clone(), item.mode));
            }
            None if selection.optional => {}
            None => return Err(format!("{kind} references non-existent {kind} key: {}", item.key)),
        }
    }
    Ok(payload)
}

pub fn of_downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    owner: Owner,
    place: &Place,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(pod, &field.field_path, place)?,
            (None, Some(resource)) => downward::resource(pod, None, resource, place)?,
            (None, None) => String::new(),
        };
        let mode = item.mode.or(default_mode).unwrap_or(MODE_DEFAULT);
        payload.insert(item.path.clone(), owner.file(text.into_bytes(), mode));
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_files_with_modes() {
        let map: ConfigMap =
            serde_json::from_value(serde_json::json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}}))
                .unwrap();
        let all = Selection { items: None, default_mode: Some(0o400), optional: false, owner: Owner::default() };
        let payload = of_config_map(&map, &all).unwrap();
        assert_eq!(payload.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((payload["a"].mode, &payload["c"].content[..]), (0o400, &[0, 1][..]));
        let item = |key: &str| KeyToPath { key: key.into(), path: "deep/x".into(), mode: Some(0o600) };
        let (present, missing) = ([item("b")], [item("z")]);
        let one = Selection { items: Some(&present), owner: Owner { gid: Some(7) }, ..all };
        assert_eq!(of_config_map(&map, &one).unwrap()["deep/x"].mode, 0o640);
        let wrong = Selection { items: Some(&missing), ..one };
        assert_eq!(of_config_map(&map, &wrong).unwrap_err(), "configmap references non-existent configmap key: z");
    }
}
