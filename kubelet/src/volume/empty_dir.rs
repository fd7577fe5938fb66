//! emptyDir: a folder of the Pod's own, on disk or in memory.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::EmptyDirVolumeSource;

use super::mounts;

/// Makes the folder, writable for everybody and with fsGroup as its group.
///
/// # Errors
/// The medium is not supported or the folder cannot be made.
pub fn prepare(folder: &Path, source: &EmptyDirVolumeSource, fs_group: Option<i64>) -> Result<(), String> {
    let fail = |error: io::Error| format!("mkdir {}: {error}", folder.display());
    let new = !folder.exists();
    fs::create_dir_all(folder).map_err(fail)?;
    let limit = source.size_limit.as_ref().map(|limit| Quantity::of(limit).value()).filter(|limit| *limit > 0);
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => mounts::tmpfs(folder, limit, 0o777).map_err(|error| format!("mount tmpfs: {error}"))?,
        other => return Err(format!("unknown storage medium \"{other}\"")),
    }
    if new {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).map_err(fail)?;
        if let Some(group) = fs_group.and_then(|group| u32::try_from(group).ok()) {
            chown(folder, None, Some(group)).map_err(fail)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o2777)).map_err(fail)?;
        }
    }
    Ok(())
}

/// Disk space that a folder takes, without following links.
///
/// # Errors
/// The folder cannot be read.
pub fn used_bytes(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            sum += metadata.blocks() * 512;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_may_write_and_size_is_counted() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("v");
        prepare(&folder, &EmptyDirVolumeSource::default(), None).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o777);
        fs::create_dir(folder.join("sub")).unwrap();
        fs::write(folder.join("sub/file"), vec![1; 100_000]).unwrap();
        assert!(used_bytes(&folder).unwrap() >= 100_000);
        let huge = EmptyDirVolumeSource { medium: Some("HugePages".into()), ..Default::default() };
        assert!(prepare(&folder, &huge, None).is_err());
    }
}
