//! How each language runtime is obtained and started.
//!
//! A runtime is a folder with a root filesystem and `runtime.json`. It is made beside its place and renamed
//! into it, so that what is there is whole. Nothing here runs while functions run.

mod install;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ondol_protocol::containment::Mount;
use serde::{Deserialize, Serialize};

pub use install::{InstallError, Source, install};

/// Versions of AWS's runtime interface clients. A change here is a change of every function's environment.
pub const PYTHON_CLIENT: &str = "4.2.2";
pub const NODEJS_CLIENT: &str = "4.0.2";
/// AWS's SDK for Python, which its Python runtimes bring along.
pub const BOTO3: &str = "1.44.5";
/// Of what the recipes make. What an older one made goes on serving, and `install` makes it anew.
pub const RECIPES_VERSION: u32 = 2;

/// An installed runtime, as `runtime.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    pub name: String,
    pub source: Source,
    /// What is in it, for people.
    pub description: String,
    #[serde(default)]
    pub recipes_version: u32,
    /// Folders of the host mounted over the root, read-only: (source, target).
    pub mounts: Vec<(PathBuf, PathBuf)>,
    /// Where the root filesystem is; not part of the file.
    #[serde(skip)]
    pub root: PathBuf,
}

impl Runtime {
    /// The runtime of a name, if it is installed and whole.
    pub fn find(folder: &Path, name: &str) -> Option<Self> {
        let place = folder.join(name);
        let text = std::fs::read_to_string(place.join("runtime.json")).ok()?;
        let runtime: Self = serde_json::from_str(&text).ok()?;
        (runtime.name == name).then(|| Self { root: place.join("root"), ..runtime })
    }

    /// Every installed runtime, by name.
    pub fn all(folder: &Path) -> Vec<Self> {
        let names: BTreeSet<String> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            // Those with a dot are on their way in or out.
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.iter().filter_map(|name| Self::find(folder, name)).collect()
    }

    /// Whether the runtime itself brings the program to start; if not, the function must.
    pub fn has_bootstrap(&self) -> bool {
        self.root.join("var/runtime/bootstrap").exists()
    }

    pub fn mounts(&self) -> impl Iterator<Item = Mount> {
        self.mounts
            .iter()
            .map(|(source, target)| Mount::ReadOnly { source: source.clone(), target: target.clone() })
    }
}

/// Where runtimes are kept unless told otherwise: one place for all servers of this machine.
pub fn default_folder() -> PathBuf {
    PathBuf::from("/var/lib/ondol/runtimes")
}
