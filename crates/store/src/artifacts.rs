//! Deployment packages by the hash of their bytes: the zip as it came, and unpacked for execution
//! environments. Archives are hostile until proven otherwise: nothing leaves the folder, sizes and counts
//! are bounded by what is really written, and nothing but files, folders and inner links is made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ondol_failpoint::reach;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

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
    #[error("Unzipped size must be smaller than {UNZIPPED_BYTES_MAX} bytes")]
    Unzipped,
    #[error("The disk of the data folder is full. Nothing was changed. Free some space and try again")]
    DiskFull,
    #[error("the artifacts folder {0}: {1}")]
    Folder(PathBuf, #[source] io::Error),
}

impl ArtifactError {
    fn folder(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Folder(path.to_owned(), error),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Artifacts {
    folder: PathBuf,
    pins: Arc<Pins>,
    zipped_bytes: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Pins {
    /// Packages somebody is about to name in a document, and how many do. Nothing here is removed.
    counts: Mutex<BTreeMap<String, usize>>,
    /// Told when one is let go, as nobody may need it then.
    let_go: Notify,
}

/// A package in the folder that stays there while this lives: time to commit the document that names it.
#[derive(Debug)]
pub struct Pinned {
    pub sha256: String,
    pins: Arc<Pins>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut counts = lock(&self.pins.counts);
        if let Some(count) = counts.get_mut(&self.sha256) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.sha256);
                self.pins.let_go.notify_one();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Artifacts {
    pub fn open(folder: PathBuf) -> Result<Self, ArtifactError> {
        for inner in ["zip", "unpacked", "incoming"] {
            let path = folder.join(inner);
            fs::create_dir_all(&path).map_err(|error| ArtifactError::Folder(path, error))?;
        }
        let zips = fs::read_dir(folder.join("zip")).into_iter().flatten().flatten();
        let zipped: u64 = zips.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum();
        let artifacts = Self { folder, pins: Arc::default(), zipped_bytes: Arc::new(zipped.into()) };
        // What an earlier server was unpacking when it died.
        let incoming = artifacts.incoming();
        let _ = fs::remove_dir_all(&incoming).and_then(|()| fs::create_dir(&incoming));
        Ok(artifacts)
    }

    /// Bytes of all packages that are here, those no longer needed included until they are removed.
    pub fn zipped_bytes(&self) -> u64 {
        self.zipped_bytes.load(Ordering::Relaxed)
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

    /// Comes back when a pin was let go since it was last asked.
    pub async fn let_go(&self) {
        self.pins.let_go.notified().await;
    }

    /// The packages that are pinned, and the bytes of each that is here.
    pub fn pinned(&self) -> BTreeMap<String, u64> {
        let names: Vec<String> = lock(&self.pins.counts).keys().cloned().collect();
        let size = |sha256: &String| fs::metadata(self.zip(sha256)).map_or(0, |found| found.len());
        names.into_iter().map(|sha256| (sha256.clone(), size(&sha256))).collect()
    }

    /// Keeps a package from being removed, whether or not it is here.
    pub fn pin(&self, sha256: String) -> Pinned {
        *lock(&self.pins.counts).entry(sha256.clone()).or_default() += 1;
        Pinned { sha256, pins: Arc::clone(&self.pins) }
    }

    /// The package of these bytes, if it is here: for packages that are soon hashed.
    pub fn known(&self, bytes: &[u8]) -> Option<Pinned> {
        let pinned = self.pin(hex(&Sha256::digest(bytes)));
        self.is_here(&pinned.sha256).then_some(pinned)
    }

    fn is_here(&self, sha256: &str) -> bool {
        self.unpacked(sha256).exists() && self.zip(sha256).exists()
    }

    /// Checks, unpacks and keeps a package under the hash of its bytes. Blocking: call it off the hot path.
    pub fn put(&self, bytes: &[u8]) -> Result<Pinned, ArtifactError> {
        if bytes.len() as u64 > UNZIPPED_BYTES_MAX {
            return Err(ArtifactError::Unzipped);
        }
        let sha256 = hex(&Sha256::digest(bytes));
        let pinned = self.pin(sha256.clone());
        if !self.is_here(&sha256) {
            self.unpack(&sha256, bytes)?;
        }
        Ok(pinned)
    }

    /// Unpacks beside the place and renames into it, so that what is there is whole, also after a power cut.
    fn unpack(&self, sha256: &str, bytes: &[u8]) -> Result<(), ArtifactError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| ArtifactError::folder(&path, error)
        };
        let fresh = self.incoming().join(format!("{sha256}-{:?}", std::thread::current().id()));
        let _ = fs::remove_dir_all(&fresh);
        let contents = fresh.join("contents");
        fs::create_dir_all(&contents).map_err(at(&contents))?;
        fs::set_permissions(&contents, fs::Permissions::from_mode(0o755)).map_err(at(&contents))?;
        reach("artifacts.before-unpack");
        let kept = unpack(bytes, &contents).and_then(|()| {
            let zip = fresh.join("zip");
            let mut file = File::create(&zip).map_err(at(&zip))?;
            file.write_all(bytes).map_err(at(&zip))?;
            // One flush for all of its many files.
            rustix::fs::syncfs(&file).map_err(|error| at(&fresh)(error.into()))?;
            reach("artifacts.after-unpack");
            fs::rename(&zip, self.zip(sha256)).map_err(at(&zip))?;
            reach("artifacts.between-renames");
            match fs::rename(&contents, self.unpacked(sha256)) {
                // The same package came in twice at the same time.
                Err(_) if self.unpacked(sha256).exists() => {}
                other => other.map_err(at(&contents))?,
            }
            for folder in ["zip", "unpacked"].map(|inner| self.folder.join(inner)) {
                File::open(&folder).and_then(|open| open.sync_all()).map_err(at(&folder))?;
            }
            self.zipped_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            reach("artifacts.after-renames");
            Ok(())
        });
        let _ = fs::remove_dir_all(&fresh);
        kept
    }

    /// Makes sure that a package is here and unpacked; unpacks it again from its zip if only that is left.
    pub fn require(&self, sha256: &str) -> Result<(), ArtifactError> {
        if self.unpacked(sha256).exists() {
            return Ok(());
        }
        let zip = self.zip(sha256);
        let bytes = fs::read(&zip).map_err(|error| ArtifactError::folder(&zip, error))?;
        if hex(&Sha256::digest(&bytes)) != sha256 {
            return Err(ArtifactError::Unreadable(format!("{} is damaged", zip.display())));
        }
        self.unpack(sha256, &bytes)
    }

    /// What a package unpacked to.
    pub fn unpacked_bytes(&self, sha256: &str) -> u64 {
        fn below(folder: &Path) -> u64 {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let size = |entry: fs::DirEntry| match entry.metadata() {
                Ok(found) if found.is_dir() => below(&entry.path()),
                Ok(found) => found.len(),
                Err(_) => 0,
            };
            entries.map(size).sum()
        }
        below(&self.unpacked(sha256))
    }

    /// Removes every package but the needed and the pinned. `needed` is asked while no package
    /// can be pinned, so what a commit has just named is seen by one or the other.
    pub fn remove_unneeded(&self, needed: impl FnOnce() -> Option<BTreeSet<String>>) {
        // The long part, for which nobody waits.
        for path in &self.take_out_unneeded(needed) {
            reach("artifacts.during-removal");
            // What stays is removed by the next start.
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }

    fn take_out_unneeded(&self, needed: impl FnOnce() -> Option<BTreeSet<String>>) -> Vec<PathBuf> {
        let pins = lock(&self.pins.counts);
        let Some(needed) = needed() else { return Vec::new() };
        let mut taken = Vec::new();
        for inner in ["zip", "unpacked"] {
            for entry in fs::read_dir(self.folder.join(inner)).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if needed.contains(&name) || pins.contains_key(&name) {
                    continue;
                }
                // Out of its place in one step: what has the name of a package is whole, whenever we die.
                let leaving = self.incoming().join(format!("leaving-{inner}-{name}"));
                let bytes = entry.metadata().map_or(0, |found| found.len());
                if fs::rename(entry.path(), &leaving).is_ok() {
                    if inner == "zip" {
                        self.zipped_bytes.fetch_sub(bytes, Ordering::Relaxed);
                    }
                    taken.push(leaving);
                }
            }
        }
        taken
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
    let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
    for place in 0..archive.len() {
        let mut entry = archive.by_index(place).map_err(|error| unreadable(error.to_string()))?;
        let name = entry.name().to_owned();
        let path = inner_path(&name).ok_or_else(|| unreadable(format!("{name:?} leaves its folder")))?;
        // A link is a leaf: writing through one would leave the folder after all.
        if path.ancestors().any(|ancestor| links.contains(ancestor)) {
            return Err(unreadable(format!("{name:?} goes through a link")));
        }
        // A name may bring many folders with it; they count as what they are.
        let own = if entry.is_dir() { 0 } else { 1 };
        for folder in path.ancestors().skip(own).filter(|folder| !folder.as_os_str().is_empty()) {
            if !folders.insert(folder.to_owned()) {
                break;
            }
        }
        if folders.len() > ENTRIES_MAX {
            return Err(unreadable(format!("it has more than {ENTRIES_MAX} folders")));
        }
        let target = into.join(&path);
        let at = |error: io::Error| match ArtifactError::folder(&target, error) {
            // Names no file system can hold beside each other are the archive's fault.
            ArtifactError::Folder(_, error) if is_of_names(&error) => {
                unreadable(format!("{name:?}: {error}"))
            }
            other => other,
        };
        let mode = entry.unix_mode().unwrap_or(0o644);
        match mode & 0o170_000 {
            _ if entry.is_dir() => make_folder(into, &path).map_err(at)?,
            0 | 0o100_000 => {
                if let Some(parent) = path.parent() {
                    make_folder(into, parent).map_err(at)?;
                }
                let mut file = File::create(&target).map_err(at)?;
                let copied = io::copy(&mut (&mut entry).take(left + 1), &mut file).map_err(|error| {
                    match ArtifactError::folder(&target, error) {
                        ArtifactError::DiskFull => ArtifactError::DiskFull,
                        other => unreadable(format!("{name:?}: {other}")),
                    }
                })?;
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
                make_folder(into, parent).map_err(at)?;
                std::os::unix::fs::symlink(&to, &target).map_err(at)?;
                links.insert(path);
            }
            _ => return Err(unreadable(format!("{name:?} is neither a file, a folder nor a link"))),
        }
    }
    Ok(())
}

/// Whether an error tells of a name: too long, or taken by something else.
fn is_of_names(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidFilename, InvalidInput, IsADirectory, NotADirectory};
    matches!(error.kind(), AlreadyExists | InvalidFilename | InvalidInput | IsADirectory | NotADirectory)
}

/// Makes a folder below `into` and those above it, readable for every function's user.
fn make_folder(into: &Path, path: &Path) -> io::Result<()> {
    let mut folder = into.to_owned();
    for part in path.components() {
        folder.push(part);
        match fs::create_dir(&folder) {
            Ok(()) => fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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

/// Whether a relative link in `folder` stays in the archive. `..` is taken at the beginning only, where it starts from
/// a real folder: further on it could start from wherever another link led.
fn stays_inside(folder: &Path, link: &str) -> bool {
    let mut depth = folder.components().count();
    let mut goes_down = false;
    for component in Path::new(link).components() {
        match component {
            Component::Normal(_) => goes_down = true,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 && !goes_down => depth -= 1,
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
        let pinned = artifacts.put(&zip).unwrap();
        let sha256 = pinned.sha256.clone();
        let folder = artifacts.unpacked(&sha256);
        assert_eq!(fs::read_to_string(folder.join("lib/current")).unwrap(), "y");
        let mode = |path: &str| fs::metadata(folder.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("app.py"), mode("bin/bootstrap"), mode("bin")), (0o644, 0o755, 0o755));
        assert_eq!(artifacts.put(&zip).unwrap().sha256, sha256);
        fs::remove_dir_all(&folder).unwrap();
        artifacts.require(&sha256).unwrap();
        assert_eq!(fs::read_to_string(folder.join("lib/current")).unwrap(), "y");
        fs::remove_dir_all(&artifacts.folder).unwrap();
    }

    #[test]
    fn what_nobody_needs_goes_and_what_somebody_is_about_to_name_stays() {
        let artifacts = artifacts("unneeded");
        let [needed, pinned, neither] =
            ["a", "b", "c"].map(|text| artifacts.put(&archive(&[("f", text, 0o644)])).unwrap());
        let (kept, gone) = (needed.sha256.clone(), neither.sha256.clone());
        drop((needed, neither));
        // Who needs what could not be read: nothing goes.
        artifacts.remove_unneeded(|| None);
        assert!(artifacts.zip(&gone).exists());
        artifacts.remove_unneeded(|| Some(BTreeSet::from([kept.clone()])));
        let there = |sha256: &str| artifacts.zip(sha256).exists() && artifacts.unpacked(sha256).exists();
        assert_eq!((there(&kept), there(&pinned.sha256), there(&gone)), (true, true, false));
        fs::remove_dir_all(&artifacts.folder).unwrap();
    }

    #[test]
    fn bad_packages_are_refused_and_leave_nothing() {
        let artifacts = artifacts("bad");
        let outside = archive(&[("../evil", "x", 0o644)]);
        let absolute = archive(&[("/evil", "x", 0o644)]);
        let link_out = archive(&[("a/l", "../../etc", 0o120_777)]);
        let through_link = archive(&[("l", "a", 0o120_777), ("l/evil", "x", 0o644)]);
        let two_links = archive(&[
            ("d/e/up", "../../top", 0o120_777),
            ("out", "d/e/up/../../etc", 0o120_777),
            ("top/f", "", 0o644),
        ]);
        for (name, bytes) in [
            ("outside", outside),
            ("absolute", absolute),
            ("link out", link_out),
            ("through a link", through_link),
            ("through two links", two_links),
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
