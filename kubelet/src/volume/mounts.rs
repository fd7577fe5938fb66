//! tmpfs on the node: mounting, and finding what is mounted.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts a tmpfs unless something is mounted there already. Without a limit half of the memory may be used.
///
/// # Errors
/// The kernel refuses; as a rule because we are not root.
pub fn tmpfs(path: &Path, size_bytes: Option<i64>, mode: u32) -> io::Result<()> {
    if below(path)?.iter().any(|mounted| mounted == path) {
        return Ok(());
    }
    let size = size_bytes.map(|size| format!(",size={size}")).unwrap_or_default();
    let options = format!("mode={mode:o}{size}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str())).map_err(io::Error::from)
}

/// Unmounts everything at or below a path, the deepest first.
///
/// # Errors
/// The kernel refuses, or does not tell what is mounted.
pub fn unmount_below(path: &Path) -> io::Result<()> {
    let mut mounted = below(path)?;
    mounted.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in mounted {
        // Detached at once, gone when the last user is.
        umount2(&path, MntFlags::MNT_DETACH).map_err(io::Error::from)?;
    }
    Ok(())
}

fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?, path))
}

fn parse(mountinfo: &str, path: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(|point| PathBuf::from(unescape(point))).filter(|point| point.starts_with(path)).collect()
}

/// The kernel writes space, tab, newline and backslash as octal.
fn unescape(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_string(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_counts() {
        let mountinfo = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /var/lib/k/pods/u rw - tmpfs tmpfs rw\n\
                         3 1 0:3 / /var/lib/k/pods/u/v\\0401 rw - tmpfs tmpfs rw\n4 1 0:4 / /var/lib/k/pods/u2 rw - t t rw\n";
        let found = parse(mountinfo, Path::new("/var/lib/k/pods/u"));
        assert_eq!(found, [PathBuf::from("/var/lib/k/pods/u"), PathBuf::from("/var/lib/k/pods/u/v 1")]);
    }
}
