//! Commands besides `up`: what they print, for people and as JSON.

use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Result, bail};
use clap::CommandFactory as _;
use serde_json::{Value, json};

use crate::client::Server;
use crate::doctor::{self, Verdict};
use crate::explain::Question;
use crate::{
    Address, Cli, Doctor, Explain, ExplainQuestion, KeysCommand, Output, Queue, RuntimeCommand, Source,
    access_keys, backup, explain, queue, status,
};

/// The lines a user pastes to point AWS tools at the server.
pub fn exports(address: &Address, port: u16) -> String {
    let variables = variables(address, port);
    let mut lines =
        format!("export AWS_ENDPOINT_URL={}\n", variables["AWS_ENDPOINT_URL"].as_str().unwrap_or_default());
    lines.push_str("export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1\n");
    let word = |name: &str| variables[name].as_str().unwrap_or_default().to_owned();
    lines.push_str(&format!(
        "export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}\n",
        word("AWS_ACCESS_KEY_ID"),
        word("AWS_SECRET_ACCESS_KEY")
    ));
    if !address.listen.is_loopback() {
        lines.push_str("# put a key of `ondol keys create` in place of KEY-ID and SECRET\n");
    }
    lines
}

pub fn variables(address: &Address, port: u16) -> Value {
    let (key, secret) = if address.listen.is_loopback() { ("test", "test") } else { ("KEY-ID", "SECRET") };
    json!({
        "AWS_ENDPOINT_URL": format!("http://{}", SocketAddr::new(reachable(address.listen), port)),
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
    })
}

/// An address to connect to, for one to listen on.
pub fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(address) if address.is_unspecified() => [127, 0, 0, 1].into(),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        address => address,
    }
}

/// Prints a page as JSON or as people read it.
pub fn show(output: Output, page: &Value, text: impl FnOnce() -> String) -> Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let written = if output.json {
        writeln!(out, "{}", serde_json::to_string_pretty(page)?)
    } else {
        write!(out, "{}", text())
    };
    match written {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

pub fn env(address: &Address, output: Output) -> Result<()> {
    if address.port == 0 {
        bail!("port 0 is a free port chosen at start; give the port the server printed");
    }
    show(output, &variables(address, address.port), || exports(address, address.port))
}

pub fn status(address: &Address, output: Output) -> Result<()> {
    let page = Server::of(address)?.get("/_ondol/status", "")?;
    show(output, &page, || status::text(&page))
}

pub fn explain(arguments: &Explain, output: Output) -> Result<()> {
    let (question, function, address) = match &arguments.question {
        Some(ExplainQuestion::Throttle(asked)) => (Question::Throttle, Some(&asked.function), &asked.address),
        Some(ExplainQuestion::Pending(asked)) => (Question::Pending, Some(&asked.function), &asked.address),
        Some(ExplainQuestion::Scale(asked)) => (Question::Scale, Some(&asked.function), &asked.address),
        None => (Question::Ready, arguments.function.as_ref(), &arguments.address),
    };
    let named = function.map_or("", String::as_str);
    let (function, version) = match named.split_once(':') {
        Some((function, version)) => (function, Some(version)),
        None => (named, None),
    };
    let encode = |text: &str| ondol_wire::uri::percent_encode(text, false);
    let version = version.map_or(String::new(), |version| format!("&version={}", encode(version)));
    let query = format!("function={}&question={}{version}", encode(function), question.name());
    let page = Server::of(address)?.get("/_ondol/explain", &query)?;
    show(output, &page, || explain::text(&page))?;
    if page["exists"] == false && output.json {
        bail!("there is no function {function}");
    }
    Ok(())
}

pub fn queue(arguments: &Queue, output: Output) -> Result<()> {
    let encode = |text: &str| ondol_wire::uri::percent_encode(text, false);
    let query =
        arguments.function.as_ref().map_or(String::new(), |name| format!("function={}", encode(name)));
    let page = Server::of(&arguments.address)?.get("/_ondol/queue", &query)?;
    show(output, &page, || queue::text(&page))
}

pub fn doctor(arguments: &Doctor, output: Output) -> Result<()> {
    let findings = doctor::examine(arguments);
    show(output, &json!({"findings": findings}), || {
        findings.iter().map(|finding| line(finding, output.colour)).collect()
    })?;
    let missing = findings.iter().filter(|finding| finding.verdict == Verdict::Missing).count();
    if missing > 0 {
        bail!("{missing} of {} things this server needs are missing", findings.len());
    }
    Ok(())
}

fn line(finding: &doctor::Finding, colour: bool) -> String {
    let (mark, code) = match finding.verdict {
        Verdict::Good => ("✓", 32),
        Verdict::Advice => ("!", 33),
        Verdict::Missing => ("✗", 31),
    };
    let mark = if colour { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark.to_owned() };
    let mend = finding.mend.as_ref().map_or(String::new(), |mend| format!("\n    → {mend}"));
    format!("{mark} {}: {}{mend}\n", finding.name, finding.found)
}

pub fn backup(data_dir: &Path, file: &Path, output: Output) -> Result<()> {
    let made = backup::write(data_dir, file)?;
    show(output, &serde_json::to_value(&made)?, || {
        format!(
            "{}: {} documents and {} packages, state {}\nIt holds code, variables and access keys: keep it where only you can read it.\n",
            file.display(),
            made.documents,
            made.artifacts,
            made.state_sha256
        )
    })
}

pub fn restore(data_dir: &Path, file: &Path, output: Output) -> Result<()> {
    let restored = backup::restore(data_dir, file)?;
    show(output, &serde_json::to_value(&restored)?, || {
        format!(
            "restored the state of {}: {} documents and {} packages, state {}\n",
            restored.created_at, restored.documents, restored.artifacts, restored.state_sha256
        )
    })
}

pub fn keys(command: KeysCommand, output: Output) -> Result<()> {
    match command {
        KeysCommand::Create { account_id, address } => {
            let (id, secret) = access_keys::create(&address.data_dir, account_id)?;
            show(output, &json!({"AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": secret}), || {
                format!("export AWS_ACCESS_KEY_ID={id}\nexport AWS_SECRET_ACCESS_KEY={secret}\n")
            })?;
            eprintln!("The secret is shown only now.");
            Ok(())
        }
        KeysCommand::List(address) => {
            let ids = access_keys::list(&address.data_dir)?;
            show(output, &json!(ids), || ids.iter().map(|id| format!("{id}\n")).collect())
        }
        KeysCommand::Delete { access_key_id, address } => {
            access_keys::delete(&address.data_dir, &access_key_id)?;
            show(output, &json!({"deleted": access_key_id}), String::new)
        }
    }
}

pub fn runtime(command: RuntimeCommand, output: Output) -> Result<()> {
    match command {
        RuntimeCommand::Install { runtimes, source, runtime_dir } => {
            if !rustix::process::geteuid().is_root() {
                return Err(ondol_runtimes::InstallError::NotRoot.into());
            }
            let folder = runtime_dir.unwrap_or_else(ondol_runtimes::default_folder);
            let source = match source {
                Source::Debian => ondol_runtimes::Source::Debian,
                Source::Host => ondol_runtimes::Source::Host,
            };
            let progress = std::io::stderr().is_terminal();
            ondol_runtimes::install(&folder, &runtimes, source, &mut |line| {
                if progress {
                    eprintln!("{line}");
                }
            })?;
            let installed: Vec<_> =
                runtimes.iter().filter_map(|name| ondol_runtimes::Runtime::find(&folder, name)).collect();
            show(output, &serde_json::to_value(&installed)?, || {
                installed
                    .iter()
                    .map(|runtime| format!("{:<18} {}\n", runtime.name, runtime.description))
                    .collect()
            })
        }
        RuntimeCommand::List { runtime_dir } => {
            let folder = runtime_dir.unwrap_or_else(ondol_runtimes::default_folder);
            let runtimes = ondol_runtimes::Runtime::all(&folder);
            show(output, &serde_json::to_value(&runtimes)?, || {
                if runtimes.is_empty() {
                    let folder = folder.display();
                    return format!(
                        "no runtime is installed in {folder}; install one with: ondol runtime install python3.13\n"
                    );
                }
                runtimes
                    .iter()
                    .map(|runtime| format!("{:<18} {}\n", runtime.name, runtime.description))
                    .collect()
            })
        }
    }
}

pub fn completions(shell: clap_complete::Shell, output: Output) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ondol", &mut script);
    let script = String::from_utf8(script)?;
    show(output, &json!({"shell": shell.to_string(), "script": script}), || script.clone())
}

/// Writes a man page for the program and one for each of its commands.
pub fn manual(folder: &Path, output: Output) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    show(output, &json!({"folder": folder}), String::new)
}
