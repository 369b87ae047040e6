//! Whatever an upload holds: it is refused and leaves nothing, or everything in it lies below its folder.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ondol_store::artifacts::Artifacts;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let shared = Path::new("/dev/shm");
    let base = if shared.exists() { shared.to_owned() } else { std::env::temp_dir() };
    base.join(format!("ondol-fuzz-zip-{}", std::process::id()))
});
static ARTIFACTS: LazyLock<Artifacts> = LazyLock::new(|| Artifacts::open(FOLDER.join("artifacts")).expect("a folder"));

/// Every entry, links themselves and not what they lead to.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().expect("a kind");
        assert!(kind.is_file() || kind.is_dir() || kind.is_symlink(), "{entry:?}");
        if kind.is_dir() {
            found.extend(entries(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

fuzz_target!(|data: &[u8]| {
    let kept = ARTIFACTS.put(data);
    if let Ok(pinned) = &kept {
        let root = ARTIFACTS.unpacked(&pinned.sha256).canonicalize().expect("unpacked");
        for path in entries(&root) {
            // A link may lead nowhere, but never out.
            if let Ok(real) = path.canonicalize() {
                assert!(real.starts_with(&root), "{path:?} leads to {real:?}");
            }
        }
    }
    drop(kept);
    ARTIFACTS.remove_unneeded(|| Some(Default::default()));
    let left: Vec<PathBuf> = entries(&FOLDER).into_iter().filter(|path| !path.is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
    let outside: Vec<_> = std::fs::read_dir(&*FOLDER).expect("the folder").flatten().collect();
    assert_eq!(outside.len(), 1, "{outside:?}");
});
