//! Real GPUs, by NVIDIA's management library, opened at run time: a machine without it simply has none.

use nvml_wrapper::Nvml;

use super::{Device, Inventory};

const MIB: u64 = 1024 * 1024;

pub struct Real(Option<Nvml>);

impl Real {
    pub fn open() -> Self {
        Self(Nvml::init().inspect_err(|error| tracing::debug!(%error, "no NVML, no GPUs")).ok())
    }

    fn device(nvml: &Nvml, index: u32) -> Option<Device> {
        let device = nvml.device_by_index(index).ok()?;
        let bus = device.pci_info().ok().map(|pci| pci.bus_id.to_lowercase());
        Some(Device {
            uuid: device.uuid().ok()?,
            index,
            model: device.name().unwrap_or_default(),
            memory_mib: device.memory_info().map_or(0, |memory| memory.total / MIB),
            numa: bus.as_deref().and_then(numa_node),
            healthy: true,
        })
    }
}

/// sysfs names buses with four digits of domain, NVML with eight.
fn numa_node(bus: &str) -> Option<u32> {
    let short = if bus.len() > 12 { &bus[bus.len() - 12..] } else { bus };
    let text = std::fs::read_to_string(format!("/sys/bus/pci/devices/{short}/numa_node")).ok()?;
    // -1 where the machine has no such nodes.
    text.trim().parse().ok()
}

impl Inventory for Real {
    fn devices(&self) -> Vec<Device> {
        let Some(nvml) = &self.0 else { return Vec::new() };
        let count = nvml.device_count().unwrap_or_default();
        (0..count).filter_map(|index| Self::device(nvml, index)).collect()
    }

    fn is_real(&self) -> bool {
        true
    }

    fn driver_version(&self) -> Option<String> {
        self.0.as_ref()?.sys_driver_version().ok()
    }
}
