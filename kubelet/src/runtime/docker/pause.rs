//! The program inside every sandbox, and the image that holds it, made without any registry.
//!
//! `pause` holds the namespaces of a Pod and does nothing. As PID 1 of a shared PID namespace it must reap orphans
//! (SIGCHLD ignored: the kernel does it) and, as the kernel gives PID 1 no default handlers, wait for SIGTERM itself
//! (blocked, then taken with rt_sigtimedwait), so that a sandbox stops in milliseconds and needs no SIGKILL.

/// Name of the image; the number changes with its content.
pub const IMAGE: &str = "skiff/pause:1";
pub const REPOSITORY: &str = "skiff/pause";
pub const TAG: &str = "1";
pub const PROGRAM: &str = "/pause";

/// Where the file is mapped.
const BASE: u64 = 0x40_0000;
const HEADERS_BYTES: usize = 64 + 56;
/// `struct kernel_sigaction { handler = SIG_IGN, flags, restorer, mask }`.
const ACTION_BYTES: usize = 32;
const SIGCHLD: u32 = 17;
/// Bits of SIGINT (2) and SIGTERM (15).
const SIGNALS: u64 = 1 << 1 | 1 << 14;

/// A static ELF executable for this machine, a few hundred bytes.
pub fn program(architecture: &str) -> Option<Vec<u8>> {
    let action = BASE + HEADERS_BYTES as u64;
    let set = action + ACTION_BYTES as u64;
    let (machine, code) = match architecture {
        "x86_64" => (62u16, x86_64(action as u32, set as u32)),
        "aarch64" => (183u16, aarch64(action as u32, set as u32)),
        _ => return None,
    };
    let mut data = Vec::new();
    for word in [1u64, 0, 0, 0, SIGNALS] {
        data.extend(word.to_le_bytes());
    }
    Some([headers(machine, (HEADERS_BYTES + data.len() + code.len()) as u64), data, code].concat())
}

/// ELF header and one program header that maps the whole file readable and executable.
fn headers(machine: u16, size: u64) -> Vec<u8> {
    let entry = BASE + (HEADERS_BYTES + ACTION_BYTES + 8) as u64;
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend(2u16.to_le_bytes()); // executable
    out.extend(machine.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend(entry.to_le_bytes());
    out.extend(64u64.to_le_bytes()); // program headers follow
    out.extend(0u64.to_le_bytes()); // no sections
    out.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    out.extend(1u32.to_le_bytes()); // PT_LOAD
    out.extend(5u32.to_le_bytes()); // read, execute
    for word in [0, BASE, BASE, size, size, 0x1000] {
        out.extend(word.to_le_bytes());
    }
    out
}

fn x86_64(action: u32, set: u32) -> Vec<u8> {
    let mut code = Vec::new();
    let mut emit = |bytes: &[u8]| code.extend_from_slice(bytes);
    let le = |value: u32| value.to_le_bytes();
    // rt_sigaction(SIGCHLD, action, 0, 8)
    emit(&[0xb8, 13, 0, 0, 0, 0xbf]);
    emit(&le(SIGCHLD));
    emit(&[0xbe]);
    emit(&le(action));
    emit(&[0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0, 0x0f, 0x05]);
    // rt_sigprocmask(SIG_BLOCK, set, 0, 8)
    emit(&[0xb8, 14, 0, 0, 0, 0x31, 0xff, 0xbe]);
    emit(&le(set));
    emit(&[0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0, 0x0f, 0x05]);
    // wait: rt_sigtimedwait(set, 0, 0, 8); interrupted: again
    emit(&[0xb8, 128, 0, 0, 0, 0xbf]);
    emit(&le(set));
    emit(&[0x31, 0xf6, 0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0, 0x0f, 0x05]);
    emit(&[0x85, 0xc0, 0x78, 0xe6]); // test eax, eax; js wait (26 bytes back)
    // exit(0)
    emit(&[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]);
    code
}

fn aarch64(action: u32, set: u32) -> Vec<u8> {
    let movz = |register: u32, value: u32| 0xd280_0000 | (value & 0xffff) << 5 | register;
    let movk_high = |register: u32, value: u32| 0xf2a0_0000 | (value >> 16) << 5 | register;
    const SVC: u32 = 0xd400_0001;
    let code = [
        // rt_sigaction(SIGCHLD, action, 0, 8)
        [movz(8, 134), movz(0, SIGCHLD), movz(1, action), movk_high(1, action), movz(2, 0), movz(3, 8), SVC],
        // rt_sigprocmask(SIG_BLOCK, set, 0, 8)
        [movz(8, 135), movz(0, 0), movz(1, set), movk_high(1, set), movz(2, 0), movz(3, 8), SVC],
        // wait: rt_sigtimedwait(set, 0, 0, 8)
        [movz(8, 137), movz(0, set), movk_high(0, set), movz(1, 0), movz(2, 0), movz(3, 8), SVC],
    ];
    const BACK_TO_WAIT: u32 = 0xb7f8_0000 | ((0x3fff - 6) << 5); // tbnz x0, #63, seven instructions back
    let end = [BACK_TO_WAIT, movz(8, 93), movz(0, 0), SVC];
    code.as_flattened().iter().chain(&end).flat_map(|instruction| instruction.to_le_bytes()).collect()
}

/// A tar archive with one executable file.
pub fn archive(content: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, PROGRAM.trim_start_matches('/'));
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = header.to_vec();
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512) + 1024, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_branch_goes_back_to_the_wait() {
        let code = x86_64(0, 0);
        let branch = code.iter().position(|byte| *byte == 0x78).unwrap();
        let target = (branch as i64 + 2 + i64::from(code[branch + 1] as i8)) as usize;
        assert_eq!(code[target..target + 5], [0xb8, 128, 0, 0, 0]);
        assert_eq!(aarch64(0, 0).len(), 25 * 4);
    }

    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    #[test]
    fn it_runs_here_and_ends_on_sigterm() {
        use std::os::unix::{fs::PermissionsExt, process::ExitStatusExt};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pause");
        std::fs::write(&path, program(std::env::consts::ARCH).unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM).unwrap();
        let status = child.wait().unwrap();
        // The signal may come before the program has blocked it.
        assert!(status.code() == Some(0) || status.signal() == Some(15), "{status:?}");
    }
}
