//! `ondol runtime install`: runs the recipes of `runtimes/recipes` and puts the result in place.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{BOTO3, NODEJS_CLIENT, PYTHON_CLIENT, RECIPES_VERSION, Runtime};

/// Where a runtime comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Debian trixie by debootstrap, Node.js from npm, the clients from npm and PyPI.
    Debian,
    /// An interpreter of exactly that version found on this machine, mounted read-only.
    Host,
}

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("{0} is not a runtime this version can install; it can: {known}", known = KNOWN.join(", "))]
    Unknown(String),
    #[error("no {0} was found on PATH, in pyenv or in nvm; install it, or use --source debian")]
    NotOnHost(String),
    #[error("installing runtimes makes root filesystems and needs root; run it with sudo")]
    NotRoot,
    #[error("{step} failed; the end of {log}:\n{tail}", log = log.display())]
    Step { step: String, log: PathBuf, tail: String },
    #[error("{0}: {1}")]
    Folder(PathBuf, #[source] io::Error),
}

const KNOWN: &[&str] = &["nodejs22.x", "nodejs24.x", "python3.13", "provided.al2023"];

const RECIPES: &[(&str, &str)] = &[
    ("base.sh", include_str!("../recipes/base.sh")),
    ("python.sh", include_str!("../recipes/python.sh")),
    ("python-client.sh", include_str!("../recipes/python-client.sh")),
    ("nodejs.sh", include_str!("../recipes/nodejs.sh")),
    ("nodejs-client.sh", include_str!("../recipes/nodejs-client.sh")),
    ("provided.sh", include_str!("../recipes/provided.sh")),
    ("host-root.sh", include_str!("../recipes/host-root.sh")),
    ("finish.sh", include_str!("../recipes/finish.sh")),
];

/// Where a runtime goes when it is made anew, with the time in milliseconds at the end of its name.
const REPLACED: &str = ".replaced-";
/// How long it stays: no execution environment lives longer than its instance.
const REPLACED_STAYS: Duration = Duration::from_secs(15 * 24 * 3_600);

/// Removes what was replaced so long ago that nothing runs with it any more.
fn remove_replaced(folder: &Path) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let at = name.strip_prefix(REPLACED).and_then(|rest| rest.rsplit('-').next()?.parse().ok());
        if at.is_some_and(|at| now > Duration::from_millis(at) + REPLACED_STAYS) {
            // What cannot be removed now is removed by the next installation.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn python_variables<'a>(python: &'a str, interpreter: &'a str) -> [(&'a str, &'a str); 4] {
    [("PYTHON", python), ("CLIENT", PYTHON_CLIENT), ("BOTO3", BOTO3), ("INTERPRETER", interpreter)]
}

/// Node.js packages of npm, by major version.
fn node_version(major: &str) -> &'static str {
    if major == "22" { "22.23.3" } else { "24.21.0" }
}

/// Installs runtimes that are not there yet. `say` hears one line for each step.
pub fn install(
    folder: &Path,
    names: &[String],
    source: Source,
    say: &mut dyn FnMut(&str),
) -> Result<(), InstallError> {
    for name in names {
        if !KNOWN.contains(&name.as_str()) {
            return Err(InstallError::Unknown(name.clone()));
        }
    }
    let is_here = |name: &str| {
        Runtime::find(folder, name).is_some_and(|found| found.recipes_version == RECIPES_VERSION)
    };
    let missing: Vec<&String> = names.iter().filter(|name| !is_here(name)).collect();
    if missing.is_empty() {
        say("everything is installed already");
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(|error| InstallError::Folder(folder.to_owned(), error))?;
    let work = Work::new(folder)?;
    if source == Source::Debian {
        say("making the Debian base (debootstrap)");
        work.recipe("base.sh", &[])?;
    }
    for name in missing {
        say(&format!("installing {name}"));
        let runtime = match source {
            Source::Debian => work.debian(name)?,
            Source::Host => work.host(name)?,
        };
        work.keep(folder, &runtime)?;
        say(&format!("installed {name}: {}", runtime.description));
    }
    Ok(())
}

/// A scratch folder beside the runtimes, removed when done.
struct Work {
    folder: PathBuf,
}

impl Drop for Work {
    fn drop(&mut self) {
        // A left-over is only disk space, in a folder whose name says so.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Work {
    fn new(runtimes: &Path) -> Result<Self, InstallError> {
        let folder = runtimes.join(format!(".build-{}", std::process::id()));
        let recipes = folder.join("recipes");
        let write = || -> io::Result<()> {
            fs::create_dir_all(&recipes)?;
            RECIPES.iter().try_for_each(|(name, text)| fs::write(recipes.join(name), text))
        };
        write().map_err(|error| InstallError::Folder(folder.clone(), error))?;
        Ok(Self { folder })
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Runs one recipe with its output in a log file, which is quoted when it fails.
    fn recipe(&self, name: &str, variables: &[(&str, &str)]) -> Result<(), InstallError> {
        let log = self.folder.join(format!("{name}.log"));
        let at = |error| InstallError::Folder(log.clone(), error);
        let mut file = fs::File::create(&log).map_err(at)?;
        writeln!(file, "+ {name} {variables:?}").map_err(at)?;
        let recipes = self.folder.join("recipes");
        let status = Command::new("sh")
            .arg(recipes.join(name))
            .env("RECIPES", &recipes)
            .env("BASE", self.folder.join("base"))
            .env("ROOT", self.root())
            .env("WORK", self.folder.join("npm"))
            .envs(variables.iter().copied())
            .stdin(std::process::Stdio::null())
            .stdout(file.try_clone().map_err(at)?)
            .stderr(file)
            .status()
            .map_err(at)?;
        if status.success() {
            return Ok(());
        }
        let text = fs::read_to_string(&log).unwrap_or_default();
        let mut tail: Vec<&str> = text.lines().rev().take(15).collect();
        tail.reverse();
        Err(InstallError::Step { step: name.to_owned(), log: log.clone(), tail: tail.join("\n") })
    }

    fn debian(&self, name: &str) -> Result<Runtime, InstallError> {
        let description = if let Some(python) = name.strip_prefix("python") {
            let interpreter = format!("/usr/bin/python{python}");
            self.recipe("python.sh", &python_variables(python, &interpreter))?;
            format!("Python {python} of Debian trixie, awslambdaric {PYTHON_CLIENT}, boto3 {BOTO3}")
        } else if let Some(major) = name.strip_prefix("nodejs").and_then(|rest| rest.strip_suffix(".x")) {
            let node = node_version(major);
            self.recipe("nodejs.sh", &[("NODE", node), ("CLIENT", NODEJS_CLIENT), ("MAJOR", major)])?;
            format!("Node.js {node}, aws-lambda-ric {NODEJS_CLIENT}, on Debian trixie")
        } else {
            self.recipe("provided.sh", &[])?;
            "Debian trixie; the function brings its bootstrap".to_owned()
        };
        Ok(Runtime {
            name: name.to_owned(),
            source: Source::Debian,
            description,
            recipes_version: RECIPES_VERSION,
            mounts: Vec::new(),
            root: self.root(),
        })
    }

    fn host(&self, name: &str) -> Result<Runtime, InstallError> {
        self.recipe("host-root.sh", &[])?;
        let mut mounts = host_mounts();
        let description = if let Some(python) = name.strip_prefix("python") {
            let found = find_interpreter(
                &format!("python{python}"),
                "--version",
                &format!("Python {python}."),
                &pyenv(),
            )
            .ok_or_else(|| InstallError::NotOnHost(name.to_owned()))?;
            let inside = mount_interpreter(&found, &mut mounts);
            self.recipe("python-client.sh", &python_variables(python, &inside))?;
            format!("{} of this machine, awslambdaric {PYTHON_CLIENT}, boto3 {BOTO3}", found.display())
        } else if let Some(major) = name.strip_prefix("nodejs").and_then(|rest| rest.strip_suffix(".x")) {
            let found = find_interpreter("node", "--version", &format!("v{major}."), &nvm())
                .ok_or_else(|| InstallError::NotOnHost(name.to_owned()))?;
            let inside = mount_interpreter(&found, &mut mounts);
            let variables = [
                ("NODE", node_version(major)),
                ("CLIENT", NODEJS_CLIENT),
                ("MAJOR", major),
                ("INTERPRETER", &inside),
            ];
            self.recipe("nodejs-client.sh", &variables)?;
            format!("{} of this machine, aws-lambda-ric {NODEJS_CLIENT}", found.display())
        } else {
            "this machine's own libraries; the function brings its bootstrap".to_owned()
        };
        Ok(Runtime {
            name: name.to_owned(),
            source: Source::Host,
            description,
            recipes_version: RECIPES_VERSION,
            mounts,
            root: self.root(),
        })
    }

    /// Finishes the root and renames it into its place.
    fn keep(&self, folder: &Path, runtime: &Runtime) -> Result<(), InstallError> {
        self.recipe("finish.sh", &[])?;
        let fresh = self.folder.join("fresh");
        let place = folder.join(&runtime.name);
        let moved = || -> io::Result<()> {
            fs::create_dir_all(&fresh)?;
            fs::rename(self.root(), fresh.join("root"))?;
            fs::write(fresh.join("runtime.json"), serde_json::to_string_pretty(runtime)?)?;
            remove_replaced(folder);
            if place.exists() {
                // Environments that run keep what they have mounted; those that start find the new one.
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                fs::rename(&place, folder.join(format!("{REPLACED}{}-{}", runtime.name, now.as_millis())))?;
            }
            fs::rename(&fresh, &place)
        };
        moved().map_err(|error| InstallError::Folder(place.clone(), error))
    }
}

/// What of the host an interpreter needs: programs, libraries, certificates.
fn host_mounts() -> Vec<(PathBuf, PathBuf)> {
    ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ssl", "/etc/alternatives"]
        .into_iter()
        .map(PathBuf::from)
        .filter(|path| path.is_dir() && !path.is_symlink())
        .map(|path| (path.clone(), path))
        .collect()
}

/// Makes an interpreter outside `/usr` visible at `/var/lang`; gives its path from inside.
fn mount_interpreter(found: &Path, mounts: &mut Vec<(PathBuf, PathBuf)>) -> String {
    if found.starts_with("/usr") {
        return found.display().to_string();
    }
    let prefix = found.parent().and_then(Path::parent).unwrap_or(found);
    mounts.push((prefix.to_owned(), "/var/lang".into()));
    Path::new("/var/lang").join(found.strip_prefix(prefix).unwrap_or(found)).display().to_string()
}

fn pyenv() -> Vec<PathBuf> {
    versions_below("PYENV_ROOT", ".pyenv", "versions")
}

fn nvm() -> Vec<PathBuf> {
    versions_below("NVM_DIR", ".nvm", "versions/node")
}

/// The `bin` folders of every version a version manager keeps.
fn versions_below(variable: &str, default: &str, below: &str) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let root = std::env::var_os(variable).map_or_else(|| home.join(default), PathBuf::from);
    let versions = fs::read_dir(root.join(below)).into_iter().flatten().flatten();
    versions.map(|entry| entry.path().join("bin")).collect()
}

/// The first program of this name that says it is of this version.
fn find_interpreter(name: &str, flag: &str, says: &str, further: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates =
        std::env::split_paths(&path).chain(further.iter().cloned()).map(|folder| folder.join(name));
    candidates.filter_map(|path| fs::canonicalize(path).ok()).find(|path| {
        let output = Command::new(path).arg(flag).output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with(says))
    })
}
