//! `cargo xtask fuzz`: each target for a while, from its seeds.

use std::process::Command;

use anyhow::Result;

use crate::prepare::{packages, say, target};
use crate::shell::{repository, run, run_quietly};

const CARGO_FUZZ: &str = "0.13.2";
const TARGETS: [&str; 3] = ["runtime_api", "zip_extraction", "request_parser"];

pub fn fuzz(arguments: &[String]) -> Result<()> {
    let seconds = arguments.first().map_or("60", String::as_str);
    packages(&[("g++", "g++")])?;
    let cargo = || {
        let mut command = Command::new(env!("CARGO"));
        // The sanitizers come with the stable compiler, but for their flag.
        command.current_dir(repository().join("fuzz")).env("RUSTC_BOOTSTRAP", "1");
        command
    };
    let installed = cargo().args(["fuzz", "--version"]).output().is_ok_and(|output| output.status.success());
    if !installed {
        say("installing cargo-fuzz");
        run(cargo().args(["install", "--quiet", "--locked", "cargo-fuzz", "--version", CARGO_FUZZ]))?;
    }
    let folder = target().join("fuzz");
    for name in TARGETS {
        say(&format!("fuzzing {name} for {seconds} s"));
        let corpus = folder.join("corpus").join(name);
        std::fs::create_dir_all(&corpus)?;
        run_quietly(
            cargo()
                .args(["fuzz", "run", "--target-dir"])
                .arg(&folder)
                .arg(name)
                .arg(&corpus)
                .arg(format!("seeds/{name}"))
                .args(["--", "-timeout=5", "-rss_limit_mb=2048"])
                .arg(format!("-max_total_time={seconds}")),
        )?;
    }
    Ok(())
}
