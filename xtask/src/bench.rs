//! `cargo xtask bench`: warm invokes beside their limits, interleaved in one run, as ratios.
//!
//! nginx in front of the same function as an HTTP server is the physical limit; the bare Runtime API exchange
//! is the ceiling with AWS's unmodified runtime client. Absolute numbers move with the machine; ratios within
//! one run hold. Nothing is asserted about time.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use ondol_wire::sigv4::{Outgoing, sign};

use crate::demo::Running;
use crate::prepare::{bench_programs, packages, python, runtimes, rust_example, say, server};
use crate::shell::{repository, run};

const BODY: &str = r#"{"tag":1,"wait_ms":0}"#;

/// A helper process, killed when dropped.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Subject {
    name: &'static str,
    script: PathBuf,
    url: String,
    /// Requests a second, by concurrency, one for each repetition.
    rates: Vec<(u32, f64)>,
    failed: u64,
}

pub fn bench(arguments: &[String]) -> Result<()> {
    let quick = arguments.iter().any(|argument| argument == "--quick");
    if arguments.windows(2).any(|pair| pair[0] == "--only" && pair[1] == "decisions") {
        return decisions(&bench_programs()?, quick);
    }
    let (seconds, repetitions) = if quick { (1, 2) } else { (3, 5) };
    packages(&[("nginx", "nginx-light"), ("wrk", "wrk")])?;
    let server = server()?;
    let example = rust_example()?;
    runtimes(&server)?;
    let python = python()?;
    say("building the limits");
    bench_programs()?;
    let binaries = server.parent().context("the server has no folder")?;
    let work = std::env::temp_dir().join(format!("ondol-bench-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;

    let (_direct, direct) = listening(&mut Command::new(binaries.join("direct")))?;
    let (_nginx, front) = nginx(&work, &direct)?;
    let (_bare, bare) = listening(&mut Command::new(binaries.join("bare")))?;
    let _function = Helper(function(&example, &bare)?);
    let running = Running::start(&server)?;
    run(Command::new(python).arg(repository().join("bench/deploy.py")).arg(&running.url).arg(&example))?;

    let path = "/2015-03-31/functions/bench/invocations";
    let plain = script(&work, "plain", BODY, &[])?;
    let mut subjects = [
        Subject::new("nginx → the function as an HTTP server", plain.clone(), format!("http://{front}/")),
        Subject::new("bare Runtime API exchange", plain, format!("http://{bare}/")),
        Subject::new(
            "Ondol",
            signed(&work, &running.url, path, BODY, "RequestResponse")?,
            format!("{}{path}", running.url),
        ),
    ];
    say(&format!("measuring: {repetitions} repetitions of {seconds} s, interleaved"));
    for _ in 0..repetitions {
        for concurrency in [1, 16, 64] {
            for subject in &mut subjects {
                subject.measure(concurrency, seconds)?;
            }
        }
    }
    print_table(&subjects);
    drop(running);
    decisions(binaries, quick)?;
    control_plane(&server, binaries, &work, quick)?;
    events(&server, binaries, &work, quick)?;
    std::fs::remove_dir_all(&work)?;
    let failed: u64 = subjects.iter().map(|subject| subject.failed).sum();
    if failed > 0 {
        bail!("{failed} requests failed; the numbers above do not count");
    }
    Ok(())
}

/// What the decisions cost, and how that grows.
fn decisions(binaries: &Path, quick: bool) -> Result<()> {
    run(Command::new(binaries.join("decisions")).args(quick.then_some("--quick")))?;
    println!();
    Ok(())
}

/// Events of 1 KB that are acknowledged over signed HTTP, beside the same events straight into the store. Nothing works
/// them off: there is no runtime for their function.
fn events(server: &Path, binaries: &Path, work: &Path, quick: bool) -> Result<()> {
    let (count, seconds) = if quick { (20_000, 1) } else { (200_000, 5) };
    let empty = work.join("no-runtimes");
    std::fs::create_dir_all(&empty)?;
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(1_000));
    let path = "/2015-03-31/functions/bench-000000/invocations";
    println!("{:<40} {:>12} {:>12} {:>12}", "events of 1 KB, acknowledged/s", "c=1", "c=16", "c=64");
    let (mut raw, mut acknowledged) = (Vec::new(), Vec::new());
    for concurrency in [1_u32, 16, 64] {
        let count = if concurrency == 1 { count / 10 } else { count };
        let folder = |name: &str| work.join(format!("events-{name}-{concurrency}"));
        let limit = Command::new(binaries.join("events"))
            .arg("raw")
            .arg(folder("raw"))
            .args([concurrency.to_string(), count.to_string()])
            .output()?;
        raw.push(number(&limit.stdout)?);
        let no_runtimes = format!("--runtime-dir={}", empty.display());
        let running = Running::start_with(server, folder("server"), &[&no_runtimes])?;
        api(binaries, &running.url, "create", 1, 1)?;
        let script = signed(work, &running.url, path, &body, "Event")?;
        let mut subject = Subject::new("events", script, format!("{}{path}", running.url));
        subject.measure(concurrency, seconds)?;
        if subject.failed > 0 {
            bail!("{} events weren't acknowledged", subject.failed);
        }
        acknowledged.push(subject.median(concurrency));
    }
    for (name, rates) in [("raw group commit of the store", &raw), ("InvocationType Event", &acknowledged)] {
        println!("{name:<40} {:>12.0} {:>12.0} {:>12.0}", rates[0], rates[1], rates[2]);
    }
    let ratio = |place: usize| acknowledged[place] / raw[place];
    println!("{:<40} {:>12.2} {:>12.2} {:>12.2}", "acknowledged beside raw", ratio(0), ratio(1), ratio(2));
    Ok(())
}

/// Control-plane operations beside raw group commits of the store, and how long many functions take to be listed and
/// to be there again after a restart.
fn control_plane(server: &Path, binaries: &Path, work: &Path, quick: bool) -> Result<()> {
    let (changes, functions) = if quick { (2_000, 2_000) } else { (10_000, 10_000) };
    let unthrottled =
        ["--quota=control-requests-per-second=1000000", "--quota=get-function-requests-per-second=1000000"];
    println!("{:<40} {:>12} {:>12} {:>12}", "control plane, operations/s", "c=1", "c=16", "c=64");
    let mut rows: [(&str, Vec<f64>); 3] = [
        ("raw group commit of the store", Vec::new()),
        ("CreateFunction", Vec::new()),
        ("GetFunction", Vec::new()),
    ];
    for concurrency in [1_u32, 16, 64] {
        let count = if concurrency == 1 { changes / 10 } else { changes };
        let folder = |name: &str| work.join(format!("{name}-{concurrency}"));
        let raw = Command::new(binaries.join("store"))
            .arg(folder("raw"))
            .args([concurrency.to_string(), count.to_string()])
            .output()?;
        let running = Running::start_with(server, folder("api"), &unthrottled)?;
        let api = |what: &str| api(binaries, &running.url, what, concurrency, count);
        rows[0].1.push(number(&raw.stdout)?);
        rows[1].1.push(api("create")?);
        rows[2].1.push(api("get")?);
    }
    for (name, rates) in &rows {
        println!("{name:<40} {:>12.0} {:>12.0} {:>12.0}", rates[0], rates[1], rates[2]);
    }
    let ratio = |place: usize| rows[1].1[place] / rows[0].1[place];
    println!("{:<40} {:>12.2} {:>12.2} {:>12.2}", "CreateFunction of raw", ratio(0), ratio(1), ratio(2));
    let folder = work.join("many");
    let running = Running::start_with(server, folder.clone(), &unthrottled)?;
    api(binaries, &running.url, "create", 64, functions)?;
    let listed = std::time::Instant::now();
    Command::new(binaries.join("api")).args([&running.url, "list", "1", "1"]).output()?;
    let listed = listed.elapsed();
    running.stop();
    let started = std::time::Instant::now();
    let running = Running::start_with(server, folder, &unthrottled)?;
    let started = started.elapsed();
    drop(running);
    println!("{functions} functions: listed in {listed:.2?}, there again {started:.2?} after a restart\n");
    Ok(())
}

fn api(binaries: &Path, url: &str, what: &str, concurrency: u32, count: u32) -> Result<f64> {
    let output = Command::new(binaries.join("api"))
        .args([url, what, &concurrency.to_string(), &count.to_string()])
        .output()?;
    if !output.status.success() {
        bail!("api {what}: {}", String::from_utf8_lossy(&output.stderr));
    }
    number(&output.stdout)
}

fn number(output: &[u8]) -> Result<f64> {
    let text = String::from_utf8_lossy(output);
    text.trim().parse().with_context(|| format!("{text:?} is no number"))
}

impl Subject {
    fn new(name: &'static str, script: PathBuf, url: String) -> Self {
        Self { name, script, url, rates: Vec::new(), failed: 0 }
    }

    fn measure(&mut self, concurrency: u32, seconds: u32) -> Result<()> {
        let output = Command::new("wrk")
            .args(["-t1", &format!("-c{concurrency}"), &format!("-d{seconds}s"), "-s"])
            .arg(&self.script)
            .arg(&self.url)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
        let rate = value("Requests/sec:")
            .and_then(|rate| rate.parse().ok())
            .with_context(|| format!("wrk said: {text}"))?;
        self.rates.push((concurrency, rate));
        // "connect 0, read 0, write 0, timeout 0", and only when there were any.
        let broken = value("Socket errors:").unwrap_or_default();
        self.failed +=
            broken.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
        self.failed +=
            value("Non-2xx or 3xx responses:").and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        Ok(())
    }

    fn median(&self, concurrency: u32) -> f64 {
        let mut rates: Vec<f64> =
            self.rates.iter().filter(|(at, _)| *at == concurrency).map(|(_, rate)| *rate).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

fn print_table(subjects: &[Subject; 3]) {
    let [nginx, bare, _] = subjects;
    println!(
        "\n{:<40} {:>12} {:>12} {:>12} {:>16} {:>16}",
        "requests/s, median", "c=1", "c=16", "c=64", "of nginx, c=16/64", "of bare, c=16/64"
    );
    for subject in subjects {
        let ratio = |to: &Subject| {
            format!("{:.2} / {:.2}", subject.median(16) / to.median(16), subject.median(64) / to.median(64))
        };
        println!(
            "{:<40} {:>12.0} {:>12.0} {:>12.0} {:>16} {:>16}",
            subject.name,
            subject.median(1),
            subject.median(16),
            subject.median(64),
            ratio(nginx),
            ratio(bare)
        );
    }
    println!();
}

/// Starts a helper that prints its address as its first line.
fn listening(command: &mut Command) -> Result<(Helper, String)> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let output = child.stdout.take().context("the helper has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok((Helper(child), line.trim().to_owned()))
}

fn nginx(work: &Path, upstream: &str) -> Result<(Helper, String)> {
    let address = {
        // nginx cannot be asked for a free port; this one was free a moment ago.
        let free = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        free.local_addr()?
    };
    let folder = work.display();
    let configuration = format!(
        "worker_processes 1; daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
         keepalive_requests 10000000; upstream function {{ server {upstream}; keepalive 128; keepalive_requests 10000000; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://function; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
    );
    let file = work.join("nginx.conf");
    std::fs::write(&file, configuration)?;
    let mut child =
        Command::new("nginx").arg("-c").arg(&file).stderr(Stdio::null()).spawn().context("starting nginx")?;
    while std::net::TcpStream::connect(address).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!(
                "nginx ended with {status}: {}",
                std::fs::read_to_string(work.join("nginx.log")).unwrap_or_default()
            );
        }
        std::thread::yield_now();
    }
    Ok((Helper(child), address.to_string()))
}

/// The same function with AWS's runtime client, uncontained.
fn function(example: &Path, runtime_api: &str) -> Result<Child> {
    Command::new(example)
        .env_clear()
        .envs([
            ("AWS_LAMBDA_RUNTIME_API", runtime_api),
            ("AWS_LAMBDA_MAX_CONCURRENCY", "128"),
            ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "4096"),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting the function")
}

fn script(work: &Path, name: &str, body: &str, headers: &[(&str, String)]) -> Result<PathBuf> {
    let mut text = format!("wrk.method = \"POST\"\nwrk.body = '{body}'\n");
    for (name, value) in headers {
        text.push_str(&format!("wrk.headers[\"{name}\"] = \"{value}\"\n"));
    }
    let file = work.join(format!("{name}.lua"));
    std::fs::write(&file, text)?;
    Ok(file)
}

/// One signature serves the whole run: it stays valid for five minutes, and every request is checked anew.
fn signed(work: &Path, url: &str, path: &str, body: &str, kind: &str) -> Result<PathBuf> {
    let host = url.trim_start_matches("http://");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let stamp = ondol_wire::time::amz_date(i64::try_from(now)?);
    let outgoing = Outgoing { method: "POST", path, query: "", host, stamp: &stamp, body: body.as_bytes() };
    let authorization = sign(&outgoing, ("test", "test"), ("us-east-1", "lambda"));
    let headers = [
        ("X-Amz-Date", stamp.clone()),
        ("X-Amz-Invocation-Type", kind.to_owned()),
        ("Authorization", authorization),
    ];
    script(work, kind, body, &headers)
}
