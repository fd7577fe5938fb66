//! hostPath: a place of the node itself, which must be (or becomes) what `type` says.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// Checks or creates the path.
///
/// # Errors
/// It is something else, in upstream's words.
pub fn prepare(source: &HostPathVolumeSource) -> Result<PathBuf, String> {
    let path = Path::new(&source.path);
    let shown = path.display();
    let wrong = |what: &str| format!("hostPath type check failed: {shown} is not {what}");
    let kind = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let is = |check: fn(&fs::FileType) -> bool| kind.as_ref().is_some_and(check);
    match source.type_.as_deref().unwrap_or_default() {
        "" => {
            // Docker makes missing bind sources only for the old syntax: do what people are used to.
            if kind.is_none() {
                create_dir(path)?;
            }
        }
        "DirectoryOrCreate" if kind.is_none() => create_dir(path)?,
        "DirectoryOrCreate" | "Directory" if is(fs::FileType::is_dir) => {}
        "DirectoryOrCreate" | "Directory" => return Err(wrong("a directory")),
        "FileOrCreate" if kind.is_none() => {
            fs::write(path, []).map_err(|error| format!("create {shown}: {error}"))?;
            set_mode(path, 0o644)?;
        }
        "FileOrCreate" | "File" if is(fs::FileType::is_file) => {}
        "FileOrCreate" | "File" => return Err(wrong("a file")),
        "Socket" if is(FileTypeExt::is_socket) => {}
        "Socket" => return Err(wrong("a socket file")),
        "CharDevice" if is(FileTypeExt::is_char_device) => {}
        "CharDevice" => return Err(wrong("a character device")),
        "BlockDevice" if is(FileTypeExt::is_block_device) => {}
        "BlockDevice" => return Err(wrong("a block device")),
        other => return Err(format!("hostPath type \"{other}\" is not supported")),
    }
    Ok(path.to_path_buf())
}

fn create_dir(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| format!("mkdir {}: {error}", path.display()))?;
    set_mode(path, 0o755)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), String> {
    let set = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    set.map_err(|error| format!("chmod {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_created() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, r#type: &str| HostPathVolumeSource {
            path: folder.path().join(name).to_string_lossy().into_owned(),
            type_: Some(r#type.into()),
        };
        assert!(prepare(&of("d", "Directory")).unwrap_err().ends_with("d is not a directory"));
        prepare(&of("d", "DirectoryOrCreate")).unwrap();
        prepare(&of("d", "Directory")).unwrap();
        prepare(&of("f", "FileOrCreate")).unwrap();
        assert!(prepare(&of("f", "Directory")).is_err());
        assert!(prepare(&of("f", "Socket")).is_err());
    }
}
