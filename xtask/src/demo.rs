//! `cargo xtask demo`: from a bare machine to functions of three languages answering.

use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::prepare::{as_root, python, runtimes, rust_example, say, server};
use crate::shell::{repository, run};

/// A server with a data folder of its own, ended when dropped.
pub struct Running {
    process: Child,
    pub url: String,
    folder: std::path::PathBuf,
    keep: bool,
}

impl Running {
    pub fn start(binary: &std::path::Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("ondol-demo-{}", std::process::id()));
        Self::start_with(binary, folder, &[])
    }

    /// With a data folder and flags of the caller's.
    pub fn start_with(binary: &std::path::Path, folder: std::path::PathBuf, flags: &[&str]) -> Result<Self> {
        // In a file, so that a server that is kept holds nobody's terminal or pipe.
        let log = folder.with_extension("log");
        let mut process = as_root(&binary.display().to_string())
            .args(["up", "--port", "0", "--data-dir"])
            .arg(&folder)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .context("starting the server")?;
        let output = process.stdout.take().context("the server has no output")?;
        for line in std::io::BufReader::new(output).lines() {
            if let Some(url) = line?.strip_prefix("export AWS_ENDPOINT_URL=") {
                return Ok(Self { process, url: url.to_owned(), folder, keep: false });
            }
        }
        bail!("the server did not start: {}", std::fs::read_to_string(&log).unwrap_or_default())
    }

    /// Ends the server; its folder stays.
    pub fn stop(mut self) {
        self.end();
        self.keep = true;
    }

    fn end(&mut self) {
        // SIGTERM, so that it ends what it started.
        let _ = as_root("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        self.end();
        let _ = as_root("rm").arg("-rf").arg(&self.folder).arg(self.folder.with_extension("log")).status();
    }
}

pub fn demo(arguments: &[String]) -> Result<()> {
    let server = server()?;
    let example = rust_example()?;
    runtimes(&server)?;
    let python = python()?;
    say("starting the server");
    let mut running = Running::start(&server)?;
    run(Command::new(python)
        .arg(repository().join("xtask/demo.py"))
        .arg(&running.url)
        .arg(repository().join("examples"))
        .arg(&example))?;
    if arguments.iter().any(|argument| argument == "--keep") {
        running.keep = true;
        let port = running.url.rsplit(':').next().unwrap_or_default();
        println!("\nThe server goes on (process {}). Talk to it:\n", running.process_id());
        println!("  eval \"$({} env --port {port})\"", server.display());
        println!(
            "  aws lambda invoke --function-name demo-python --cli-binary-format raw-in-base64-out --payload '{{\"tag\": 1}}' /dev/stdout"
        );
        println!("  {} status --port {port}\n", server.display());
        println!("End it with: kill {}; its data is in {}", running.process_id(), running.folder.display());
    }
    Ok(())
}
