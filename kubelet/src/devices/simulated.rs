//! GPUs that exist only in a file (YAML or JSON): for tests, labs and rehearsals on machines without any.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use super::{Device, Inventory};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    devices: Vec<Entry>,
    #[serde(default)]
    driver_version: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(flatten)]
    device: Device,
    /// `Healthy` or anything else; another way to write `healthy`.
    #[serde(default)]
    health: Option<String>,
}

/// Empty by default.
#[derive(Debug, Default)]
pub struct Simulated {
    devices: Vec<Device>,
    driver_version: Option<String>,
}

impl Simulated {
    /// # Errors
    /// The file is missing or says something else.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read inventory {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("inventory {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: File = serde_saphyr::from_str(text)?;
        let device = |entry: Entry| {
            let sick = entry.health.is_some_and(|health| !health.eq_ignore_ascii_case("healthy"));
            Device { healthy: entry.device.healthy && !sick, ..entry.device }
        };
        Ok(Self { devices: file.devices.into_iter().map(device).collect(), driver_version: file.driver_version })
    }
}

impl Inventory for Simulated {
    fn devices(&self) -> Vec<Device> {
        self.devices.clone()
    }

    fn is_real(&self) -> bool {
        false
    }

    fn driver_version(&self) -> Option<String> {
        self.driver_version.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_are_read() {
        let yaml = "driverVersion: '550.54'\ndevices:\n- {index: 0, uuid: GPU-a, model: A100, memoryMiB: 81920, numa: 1}\n\
                    - {index: 1, uuid: GPU-b, health: Xid79}\n";
        let read = Simulated::parse(yaml).unwrap();
        assert_eq!(read.devices.len(), 2);
        assert_eq!((read.devices[0].memory_mib, read.devices[0].numa), (81_920, Some(1)));
        assert!(read.devices[0].healthy && !read.devices[1].healthy);
        let json = r#"{"devices": [{"uuid": "GPU-c"}]}"#;
        assert_eq!(Simulated::parse(json).unwrap().devices[0].uuid, "GPU-c");
    }
}
