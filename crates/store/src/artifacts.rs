//! Deployment packages by the hash of their bytes: the zip as it came, and unpacked for execution
//! environments. Archives are hostile until proven otherwise: nothing leaves the folder, sizes and counts
//! are bounded by what is really written, and nothing but files, folders and inner links is made.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Limits of AWS on a package given inline and on what is in it.
pub const ZIPPED_BYTES_MAX: usize = 52_428_800;
pub const UNZIPPED_BYTES_MAX: u64 = 262_144_000;
/// Ours: an archive of more entries is a bomb.
pub const ENTRIES_MAX: usize = 100_000;
const PATH_BYTES_MAX: usize = 1_024;

#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The sentence AWS answers for any archive it cannot read.
    #[error("Could not unzip uploaded file. Please check your file, then try to upload again.")]
    Unreadable(String),
    #[error("Zipped size must be smaller than {ZIPPED_BYTES_MAX} bytes")]
    Zipped,
    #[error("Unzipped size must be smaller than {UNZIPPED_BYTES_MAX} bytes")]
    Unzipped,
    #[error("the artifacts folder {0}: {1}")]
    Folder(PathBuf, #[source] io::Error),
}

#[derive(Debug, Clone)]
pub struct Artifacts {
    folder: PathBuf,
}

impl Artifacts {
    pub fn open(folder: PathBuf) -> Result<Self, ArtifactError> {
        for inner in ["zip", "unpacked", "incoming"] {
            let path = folder.join(inner);
            fs::create_dir_all(&path).map_err(|error| ArtifactError::Folder(path, error))?;
        }
        let artifacts = Self { folder };
        // What an earlier server was unpacking when it died.
        let _ = fs::remove_dir_all(artifacts.incoming()).and_then(|()| fs::create_dir(artifacts.incoming()));
        Ok(artifacts)
    }

    fn incoming(&self) -> PathBuf {
        self.folder.join("incoming")
    }

    /// Where the package is unpacked.
    pub fn unpacked(&self, sha256: &str) -> PathBuf {
        self.folder.join("unpacked").join(sha256)
    }

    pub fn zip(&self, sha256: &str) -> PathBuf {
        self.folder.join("zip").join(sha256)
    }

    /// Checks, unpacks and keeps a package; gives the hex of its hash. Blocking: call it off the hot path.
    pub fn put(&self, bytes: &[u8]) -> Result<String, ArtifactError> {
        if bytes.len() > ZIPPED_BYTES_MAX {
            return Err(ArtifactError::Zipped);
        }
        let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if self.unpacked(&sha256).exists() && self.zip(&sha256).exists() {
            return Ok(sha256);
        }
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| ArtifactError::Folder(path, error)
        };
        let fresh = self.incoming().join(format!("{sha256}-{:?}", std::thread::current().id()));
        let _ = fs::remove_dir_all(&fresh);
        let contents = fresh.join("contents");
        fs::create_dir_all(&contents).map_err(at(&contents))?;
        let unpacked = unpack(bytes, &contents);
        let kept = unpacked.and_then(|()| {
            let zip = fresh.join("zip");
            let mut file = File::create(&zip).map_err(at(&zip))?;
            file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(&zip))?;
            fs::rename(&zip, self.zip(&sha256)).map_err(at(&zip))?;
            match fs::rename(&contents, self.unpacked(&sha256)) {
                // The same package came in twice at the same time.
                Err(_) if self.unpacked(&sha256).exists() => Ok(()),
                other => other.map_err(at(&contents)),
            }
        });
        let _ = fs::remove_dir_all(&fresh);
        kept.map(|()| sha256)
    }
}

fn unpack(bytes: &[u8], into: &Path) -> Result<(), ArtifactError> {
    let unreadable = |what: String| ArtifactError::Unreadable(what);
    let mut archive =
        zip::ZipArchive::new(io::Cursor::new(bytes)).map_err(|error| unreadable(error.to_string()))?;
    if archive.len() > ENTRIES_MAX {
        return Err(unreadable(format!("it has more than {ENTRIES_MAX} entries")));
    }
    let mut left = UNZIPPED_BYTES_MAX;
    let mut links: BTreeSet<PathBuf> = BTreeSet::new();
    for place in 0..archive.len() {
        let mut entry = archive.by_index(place).map_err(|error| unreadable(error.to_string()))?;
        let name = entry.name().to_owned();
        let path = inner_path(&name).ok_or_else(|| unreadable(format!("{name:?} leaves its folder")))?;
        // A link is a leaf: writing through one would leave the folder after all.
        if path.ancestors().any(|ancestor| links.contains(ancestor)) {
            return Err(unreadable(format!("{name:?} goes through a link")));
        }
        let target = into.join(&path);
        let at = |error| ArtifactError::Folder(target.clone(), error);
        let mode = entry.unix_mode().unwrap_or(0o644);
        match mode & 0o170_000 {
            _ if entry.is_dir() => make_folder(&target).map_err(at)?,
            0 | 0o100_000 => {
                if let Some(parent) = target.parent() {
                    make_folder(parent).map_err(at)?;
                }
                let mut file = File::create(&target).map_err(at)?;
                let copied = io::copy(&mut (&mut entry).take(left + 1), &mut file)
                    .map_err(|error| unreadable(format!("{name:?}: {error}")))?;
                left = left.checked_sub(copied).ok_or(ArtifactError::Unzipped)?;
                let executable = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
                file.set_permissions(fs::Permissions::from_mode(executable)).map_err(at)?;
            }
            0o120_000 => {
                let mut to = String::new();
                (&mut entry)
                    .take(PATH_BYTES_MAX as u64)
                    .read_to_string(&mut to)
                    .map_err(|error| unreadable(error.to_string()))?;
                let parent = path.parent().unwrap_or(Path::new(""));
                if !stays_inside(parent, &to) {
                    return Err(unreadable(format!("the link {name:?} leaves its folder")));
                }
                make_folder(&into.join(parent)).map_err(at)?;
                std::os::unix::fs::symlink(&to, &target).map_err(at)?;
                links.insert(path);
            }
            _ => return Err(unreadable(format!("{name:?} is neither a file, a folder nor a link"))),
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// An entry's name as a path below the folder; `None` for anything that could lead out of it.
fn inner_path(name: &str) -> Option<PathBuf> {
    if name.len() > PATH_BYTES_MAX || name.contains(['\0', '\\']) {
        return None;
    }
    let mut path = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!path.as_os_str().is_empty()).then_some(path)
}

/// Whether a relative link in `folder` stays in the archive.
fn stays_inside(folder: &Path, link: &str) -> bool {
    let mut depth = folder.components().count();
    for component in Path::new(link).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::write::SimpleFileOptions;

    fn artifacts(name: &str) -> Artifacts {
        let folder = std::env::temp_dir().join(format!("ondol-artifacts-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        Artifacts::open(folder).unwrap()
    }

    fn archive(entries: &[(&str, &str, u32)]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, text, mode) in entries {
            let options = SimpleFileOptions::default().unix_permissions(mode & 0o777);
            if mode & 0o170_000 == 0o120_000 {
                writer.add_symlink(*name, *text, options).unwrap();
            } else {
                writer.start_file(*name, options).unwrap();
                writer.write_all(text.as_bytes()).unwrap();
            }
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn a_good_package_is_unpacked_with_its_executables_and_inner_links() {
        let artifacts = artifacts("good");
        let zip = archive(&[
            ("app.py", "x", 0o600),
            ("bin/bootstrap", "y", 0o755),
            ("lib/current", "../bin/bootstrap", 0o120_777),
        ]);
        let sha256 = artifacts.put(&zip).unwrap();
        let folder = artifacts.unpacked(&sha256);
        assert_eq!(fs::read_to_string(folder.join("lib/current")).unwrap(), "y");
        let mode = |path: &str| fs::metadata(folder.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("app.py"), mode("bin/bootstrap"), mode("bin")), (0o644, 0o755, 0o755));
        assert_eq!(artifacts.put(&zip).unwrap(), sha256);
        fs::remove_dir_all(&artifacts.folder).unwrap();
    }

    #[test]
    fn bad_packages_are_refused_and_leave_nothing() {
        let artifacts = artifacts("bad");
        let outside = archive(&[("../evil", "x", 0o644)]);
        let absolute = archive(&[("/evil", "x", 0o644)]);
        let link_out = archive(&[("a/l", "../../etc", 0o120_777)]);
        let through_link = archive(&[("l", "a", 0o120_777), ("l/evil", "x", 0o644)]);
        for (name, bytes) in [
            ("outside", outside),
            ("absolute", absolute),
            ("link out", link_out),
            ("through a link", through_link),
            ("not a zip", b"hello".to_vec()),
            ("device", device()),
        ] {
            assert!(matches!(artifacts.put(&bytes), Err(ArtifactError::Unreadable(_))), "{name}");
        }
        for folder in ["zip", "unpacked", "incoming"] {
            assert_eq!(fs::read_dir(artifacts.folder.join(folder)).unwrap().count(), 0, "{folder}");
        }
        fs::remove_dir_all(&artifacts.folder).unwrap();
    }

    /// One byte of the external attributes makes a plain entry a block device.
    fn device() -> Vec<u8> {
        let mut bytes = archive(&[("dev", "", 0o644)]);
        let central = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        bytes[central + 41] = 0x61;
        bytes
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let artifacts = artifacts("bomb");
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        writer.start_file("zeros", SimpleFileOptions::default()).unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..=UNZIPPED_BYTES_MAX >> 20 {
            writer.write_all(&zeros).unwrap();
        }
        let bytes = writer.finish().unwrap().into_inner();
        assert!(bytes.len() < 1 << 20);
        assert!(matches!(artifacts.put(&bytes), Err(ArtifactError::Unzipped)));
        fs::remove_dir_all(&artifacts.folder).unwrap();
    }
}
