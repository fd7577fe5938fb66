//! Files that change all at once: `name -> ..data/name`, `..data -> ..<time>`; an update swaps `..data`.
//!
//! A reader sees the old set or the new set, never a mixture, also through a bind mount of the whole folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
};

use jiff::Timestamp;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct File {
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// By path inside the volume; no path is absolute or goes up.
pub type Payload = BTreeMap<String, File>;

/// Makes `folder` hold exactly `payload`.
///
/// # Errors
/// The disk does not take it; the old content is still whole then.
pub fn write(folder: &Path, payload: &Payload, now: Timestamp) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let time = now.strftime("%Y_%m_%d_%H_%M_%S");
    let version = format!("..{time}.{:09}", now.subsec_nanosecond());
    let old = fs::read_link(folder.join(DATA)).ok();
    let new = folder.join(&version);
    fs::create_dir(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        write_file(&new.join(path), file)?;
    }
    let swap = folder.join(DATA_NEW);
    let _ = fs::remove_file(&swap);
    symlink(&version, &swap)?;
    fs::rename(&swap, folder.join(DATA))?;
    publish(folder, payload)?;
    if let Some(old) = old.filter(|old| *old != Path::new(&version)) {
        fs::remove_dir_all(folder.join(old))?;
    }
    Ok(())
}

fn write_file(path: &Path, file: &File) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, &file.content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(file.mode))?;
    if file.uid.is_some() || file.gid.is_some() {
        chown(path, file.uid, file.gid)?;
    }
    Ok(())
}

/// The names that users see: one link for each first component.
fn publish(folder: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            fs::remove_file(folder.join(name.as_ref()))?;
        }
    }
    for name in wanted {
        let link = folder.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { content: text.into(), mode: 0o640, uid: None, gid: None };
        files.iter().map(|(path, text)| (path.to_string(), file(text))).collect()
    }

    #[test]
    fn an_update_replaces_everything_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        write(folder.path(), &payload(&[("a", "1"), ("deep/b", "2")]), now).unwrap();
        assert_eq!((read("a"), read("deep/b")), (Some("1".into()), Some("2".into())));
        let mode = fs::metadata(folder.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        write(folder.path(), &payload(&[("a", "3"), ("c", "4")]), now + std::time::Duration::from_secs(1)).unwrap();
        assert_eq!((read("a"), read("deep/b"), read("c")), (Some("3".into()), None, Some("4".into())));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }
}
