//! subPath: a part of a volume, which must not lead out of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

/// The place in the volume, made if missing; links are followed now, once, and must stay inside.
///
/// # Errors
/// The path goes up or a link leads out of the volume.
pub fn resolve(volume: &Path, sub_path: &str) -> Result<PathBuf, String> {
    let relative = Path::new(sub_path);
    let down = |component: Component<'_>| matches!(component, Component::Normal(_) | Component::CurDir);
    if !relative.components().all(down) {
        return Err(format!("subPath \"{sub_path}\" must be a relative path without '..'"));
    }
    let fail = |error: std::io::Error| format!("failed to prepare subPath \"{sub_path}\": {error}");
    let root = volume.canonicalize().map_err(fail)?;
    let mut at = root.clone();
    for component in relative.components() {
        at.push(component);
        if fs::symlink_metadata(&at).is_err() {
            fs::create_dir(&at).map_err(fail)?;
            let mode = fs::metadata(&root).map_err(fail)?.permissions().mode();
            fs::set_permissions(&at, fs::Permissions::from_mode(mode)).map_err(fail)?;
        }
        at = at.canonicalize().map_err(fail)?;
        if !at.starts_with(&root) {
            return Err(format!("subPath \"{sub_path}\" leads out of the volume"));
        }
    }
    Ok(at)
}

/// The same for a file that must be there already.
///
/// # Errors
/// It is not there, or leads out of the volume.
pub fn resolve_existing(volume: &Path, sub_path: &str) -> Result<PathBuf, String> {
    match fs::metadata(volume.join(sub_path)) {
        Ok(_) => resolve(volume, sub_path),
        Err(error) => Err(format!("{sub_path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_must_stay_inside() {
        let volume = tempfile::tempdir().unwrap();
        let made = resolve(volume.path(), "a/b").unwrap();
        assert!(made.is_dir() && made.ends_with("a/b"));
        std::os::unix::fs::symlink("/etc", volume.path().join("out")).unwrap();
        assert!(resolve(volume.path(), "out/passwd").unwrap_err().contains("leads out"));
        assert!(resolve(volume.path(), "../x").is_err());
        std::os::unix::fs::symlink("a", volume.path().join("in")).unwrap();
        assert!(resolve(volume.path(), "in/b").unwrap().ends_with("a/b"));
    }
}
