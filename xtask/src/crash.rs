//! `cargo xtask crash`: kills the server everywhere, and checks that it stands up again.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::prepare::{bench_programs, packages, python, runtimes, rust_example, say, server, target, teller};
use crate::shell::{repository, run};

/// Builds the server with its failpoints, which no other build has.
fn server_with_failpoints() -> Result<PathBuf> {
    say("building the server with its failpoints");
    run(Command::new(env!("CARGO")).current_dir(repository()).args([
        "build",
        "--quiet",
        "--package",
        "ondol",
        "--features",
        "failpoints",
    ]))?;
    // A place of its own: the next ordinary build takes the other.
    let place = target().join("failpoints/ondol");
    std::fs::create_dir_all(target().join("failpoints"))?;
    std::fs::copy(target().join("debug/ondol"), &place)?;
    Ok(place)
}

/// Arguments go to `tests/crash.py`; `--write` writes the page of `docs/operate`.
pub fn crash(arguments: &[String]) -> Result<()> {
    let server = server_with_failpoints()?;
    let example = rust_example()?;
    runtimes(&server)?;
    let python = python()?;
    say("killing it at every point, and at random");
    let page = repository().join("docs/operate/failures.md").display().to_string();
    let arguments = arguments.iter().flat_map(|word| {
        if word == "--write" { vec![word.clone(), page.clone()] } else { vec![word.clone()] }
    });
    run(Command::new(python)
        .current_dir(repository().join("tests"))
        .arg("crash.py")
        .args(arguments)
        .env("ONDOL_BIN", server)
        .env("ONDOL_RUST_EXAMPLE", example)
        .env("PYTHONDONTWRITEBYTECODE", "1"))
}

/// Kills under events, and power cuts. Arguments: `--kills N`, `--events N`, `--cuts N`, `--seed N`.
pub fn crash_async(arguments: &[String]) -> Result<()> {
    let careful = server()?;
    let careless = server_with_failpoints()?;
    let (programs, teller, example) = (bench_programs()?, teller()?, rust_example()?);
    runtimes(&careful)?;
    packages(&[("mkfs.btrfs", "btrfs-progs"), ("mkfs.ext4", "e2fsprogs")])?;
    let python = python()?;
    let of = |names: &[&str]| {
        let pairs = arguments.chunks(2).filter(|pair| names.contains(&pair[0].as_str()));
        pairs.flatten().cloned().collect::<Vec<String>>()
    };
    let script = |name: &str, server: &PathBuf, words: Vec<String>| {
        run(Command::new(&python)
            .current_dir(repository().join("tests"))
            .arg(name)
            .args(words)
            .env("ONDOL_BIN", server)
            .env("ONDOL_RUST_EXAMPLE", &example)
            .env("ONDOL_TELLER", &teller)
            .env("ONDOL_EVENTS_BENCH", programs.join("events"))
            .env("PYTHONDONTWRITEBYTECODE", "1"))
    };
    say("killing it under events");
    script("crash_async.py", &careful, of(&["--kills", "--events", "--seed"]))?;
    say("cutting its power");
    script("power_cut.py", &careless, of(&["--cuts", "--seed"]))
}
