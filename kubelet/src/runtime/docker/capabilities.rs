//! Which capabilities this machine can give at all (its bounding set): a container in a container may lack some.

/// In the kernel's order: the position is the bit.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    missing: Vec<String>,
}

impl Capabilities {
    /// Of this process; Docker runs on the same machine. All, where the kernel does not say.
    pub fn of_this_machine() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        let bounding = bounding.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        Self::from_bounding_set(bounding.unwrap_or(u64::MAX))
    }

    pub fn from_bounding_set(bits: u64) -> Self {
        let missing = NAMES.iter().enumerate().filter(|(bit, _)| bits & 1 << bit == 0);
        Self { missing: missing.map(|(_, name)| name.to_string()).collect() }
    }

    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Lowering the OOM score takes CAP_SYS_RESOURCE.
    pub fn may_lower_oom_score(&self) -> bool {
        !self.missing.iter().any(|name| name == "SYS_RESOURCE")
    }

    /// The wanted ones in Docker's spelling.
    pub fn possible(&self, wanted: &[String]) -> Vec<String> {
        wanted.iter().map(|name| name.trim_start_matches("CAP_").to_uppercase()).collect()
    }
}
