//! `cargo xtask test`: all that CI needs, cheapest first.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::prepare::{
    extension_example, moto, packages, prepare, runtimes, rust_example, say, server, teller,
};
use crate::shell::{repository, run};
use crate::{bench, codegen, crash, dist, fuzz};

const CARGO_DENY: &str = "0.20.2";

pub fn test() -> Result<()> {
    let started = Instant::now();
    let cargo = || {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(repository());
        command
    };
    say("formatting, generated code");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    codegen::codegen(&["--check".to_owned()])?;
    say("lints");
    run(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    licences()?;
    say("unit tests, and contained processes on this kernel");
    let python = prepare()?;
    run(cargo().args(["test", "--quiet", "--workspace"]).env("ONDOL_PYTHON", &python))?;
    seeds()?;
    let server = server()?;
    let (example, extension, teller) = (rust_example()?, extension_example()?, teller()?);
    runtimes(&server)?;
    // What tests ask of the machine besides the server.
    packages(&[
        ("buildah", "buildah"),
        ("runc", "runc"),
        ("systemd-analyze", "systemd"),
        ("setpriv", "util-linux"),
        ("rabbitmq-server", "rabbitmq-server"),
        ("activemq", "activemq"),
        ("java", "default-jre-headless"),
    ])?;
    let moto = moto()?;
    let dist = dist::dist()?;
    say("black-box tests with boto3 and AWS's runtime clients");
    let root = repository();
    run(Command::new(&python)
        .current_dir(&root)
        .args(["-m", "pytest", "-c", "tests/pytest.ini", "tests"])
        .env("ONDOL_BIN", &server)
        .env("ONDOL_RUST_EXAMPLE", &example)
        .env("ONDOL_EXTENSION_EXAMPLE", &extension)
        .env("ONDOL_TELLER", &teller)
        .env("ONDOL_DIST", &dist)
        .env("ONDOL_MOTO", &moto)
        .env("PYTHONDONTWRITEBYTECODE", "1"))?;
    say("moto's own tests of Lambda");
    run(Command::new(&moto)
        .current_dir(&root)
        .arg("tests/moto_suite.py")
        .env("ONDOL_BIN", &server)
        .env("PYTHONDONTWRITEBYTECODE", "1"))?;
    crash::crash(&["--kills", "20", "--lives", "300"].map(str::to_owned))?;
    crash::crash_async(&[])?;
    fuzz::fuzz(&[])?;
    bench::bench(&["--quick".to_owned()])?;
    say(&format!("all passed in {} s", started.elapsed().as_secs()));
    Ok(())
}

/// Worlds by chance in the simulator, with every invariant held after every event.
pub fn seeds() -> Result<()> {
    say("worlds by chance in the simulator");
    let worlds = ["run", "--quiet", "--package", "ondol-sim", "--bin", "seeds", "--", "0", "2000"];
    run(Command::new(env!("CARGO")).current_dir(repository()).args(worlds))
}

/// Licences, bans and sources of every crate. The advisory database is left to where it can be reached.
fn licences() -> Result<()> {
    packages(&[("cc", "gcc")])?;
    let installed = Command::new(env!("CARGO"))
        .args(["deny", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !installed {
        say("installing cargo-deny");
        run(Command::new(env!("CARGO")).args([
            "install",
            "--quiet",
            "--locked",
            "cargo-deny",
            "--version",
            CARGO_DENY,
        ]))?;
    }
    say("licences");
    let checked = Command::new(env!("CARGO"))
        .current_dir(repository())
        .args(["deny", "--log-level", "error", "check", "licenses", "bans", "sources"])
        .status()?;
    if !checked.success() {
        bail!("cargo deny refuses a dependency");
    }
    Ok(())
}
