//! What this machine is: size, names, identity. Read from /proc, /sys and /etc.

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    path::Path,
};

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Machine {
    pub cpus: u64,
    pub memory_bytes: u64,
    pub machine_id: String,
    pub boot_id: String,
    pub system_uuid: String,
    /// Bytes of the disk that the kubelet's folder is on.
    pub disk_bytes: u64,
    /// `1048576` and `2048` to bytes preallocated.
    pub huge_pages: Vec<(String, u64)>,
    pub swap_bytes: u64,
    pub os_image: String,
    pub kernel: String,
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

/// A figure of /proc/meminfo, in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

impl Machine {
    pub fn observe(root_dir: &Path) -> Self {
        let memory = read("/proc/meminfo").unwrap_or_default();
        let uuid = read("/sys/class/dmi/id/product_uuid");
        let machine_id = read("/etc/machine-id").filter(|id| !id.is_empty()).unwrap_or_default();
        let os = read("/etc/os-release").unwrap_or_default();
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            memory_bytes: meminfo(&memory, "MemTotal").unwrap_or_default(),
            boot_id: read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            system_uuid: uuid.unwrap_or_else(|| machine_id.clone()),
            machine_id,
            disk_bytes: disk(root_dir).map_or(0, |(total, _)| total),
            huge_pages: huge_pages(),
            swap_bytes: meminfo(&memory, "SwapTotal").unwrap_or_default(),
            os_image: pretty_name(&os).unwrap_or_else(|| "Linux".into()),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
        }
    }

    /// The machine that a hollow node claims to be.
    pub fn hollow() -> Self {
        Self {
            cpus: 64,
            memory_bytes: 256 << 30,
            disk_bytes: 1 << 40,
            machine_id: "hollow".into(),
            os_image: "Skiff hollow node".into(),
            kernel: "6.1.0".into(),
            ..Default::default()
        }
    }
}

fn pretty_name(os_release: &str) -> Option<String> {
    os_release.lines().find_map(|line| Some(line.strip_prefix("PRETTY_NAME=")?.trim_matches('"').to_string()))
}

fn huge_pages() -> Vec<(String, u64)> {
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut pages: Vec<_> = sizes
        .filter_map(|size| {
            let name = size.file_name().into_string().ok()?;
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count: u64 = fs::read_to_string(size.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            let unit = if kib >= 1 << 20 { format!("{}Gi", kib >> 20) } else { format!("{}Mi", kib >> 10) };
            Some((format!("hugepages-{unit}"), count * kib * 1024))
        })
        .collect();
    pages.sort();
    pages
}

/// Size and what is free to users of the disk that holds `path`, in bytes.
pub fn disk(path: &Path) -> Option<(u64, u64)> {
    let existing = path.ancestors().find(|path| path.exists())?;
    let disk = nix::sys::statvfs::statvfs(existing).ok()?;
    let fragment = disk.fragment_size();
    Some((disk.blocks() * fragment, disk.blocks_available() * fragment))
}

/// Memory that could be given out now, in bytes.
pub fn available_memory_bytes() -> Option<u64> {
    meminfo(&read("/proc/meminfo")?, "MemAvailable")
}

/// Process ids in use and the most there can be.
pub fn processes() -> Option<(u64, u64)> {
    let loads = read("/proc/loadavg")?;
    let used = loads.split(' ').nth(3)?.split('/').nth(1)?.parse().ok()?;
    Some((used, read("/proc/sys/kernel/pid_max")?.parse().ok()?))
}

/// The address by which other machines reach this one: that of the default route.
pub fn default_address() -> Option<IpAddr> {
    // Connecting a datagram socket sends nothing; it only makes the kernel choose a source address.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    let chosen = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).ok()?.ip();
    (!chosen.is_unspecified() && !chosen.is_loopback()).then_some(chosen)
}

pub fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "localhost".into()).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_in_bytes() {
        assert_eq!(meminfo("MemTotal:       1024 kB\nMemFree: 1 kB\n", "MemTotal"), Some(1 << 20));
        assert_eq!(pretty_name("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), Some("Debian 12".into()));
        assert!(Machine::observe(Path::new("/tmp/none/x")).memory_bytes > 0);
    }
}
