//! `ondol up`: wires the rooms together and runs until a signal.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use ondol_agent::shard::{Environments, ShardEnd};
use ondol_agent::{AgentConfiguration, Containment as AgentContainment, Machine};
use ondol_api::{Api, Context};
use ondol_control::{Control, View};
use ondol_core::coins::Coins;
use ondol_core::identity::Home;
use ondol_invoke::directory::Directory;
use ondol_invoke::front::accept;
use ondol_invoke::hosts::HostPolicy;
use ondol_invoke::shard::{Hop, Shard, Shared};
use ondol_launcher::{cgroup, channel};
use ondol_observe::notice;
use ondol_observe::usage::usage_channel;
use ondol_protocol::assignment::{Assignment, Report};
use ondol_store::Store;
use ondol_store::artifacts::Artifacts;
use tokio::sync::{mpsc, watch};

use crate::access_keys::KeyRing;
use crate::commands::{exports, reachable};
use crate::{Containment, Up, machine, status};

const REGION: &str = "us-east-1";
const ACCOUNT_ID: &str = "000000000000";
/// API calls that may wait for their turn.
const API_CALLS_MAX: usize = 1_024;
/// API calls answered at the same time; each may hold a deployment package in memory.
const API_CALLS_AT_ONCE: usize = 128;
/// Invocations that may wait for another shard.
const HOPS_MAX: usize = 1_024;
/// The share of the machine's memory that all execution environments together may take, in percent.
const MEMORY_PERCENT: u64 = 90;

/// The launcher's process: serves the socket it got as standard input.
pub fn launcher() -> Result<()> {
    let socket = rustix::io::dup(rustix::stdio::stdin()).context("the launcher is started by the server")?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    ondol_launcher::serve(&socket).context("the launcher")
}

pub fn up(arguments: &Up) -> Result<()> {
    let contained = arguments.containment == Containment::Container;
    let root = rustix::process::geteuid().is_root();
    if contained && !root {
        bail!(
            "execution environments are made of namespaces and control groups, which needs root: run `sudo ondol up`. For development without root there is `--containment process`, which separates nothing"
        );
    }
    raise_open_files();
    let data_dir = &arguments.address.data_dir;
    let store = Store::open(data_dir)?;
    let data_dir = data_dir.canonicalize().context("the data folder")?;
    let wanted = SocketAddr::new(arguments.address.listen, arguments.address.port);
    let listener = TcpListener::bind(wanted).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{wanted} is in use, perhaps by another server; choose another port with --port")
        }
        _ => anyhow::Error::new(error).context(format!("listening on {wanted}")),
    })?;
    let port = listener.local_addr()?.port();
    let server_id = server_id(&data_dir);
    let run_folder = data_dir.join("run");
    clean_up(&server_id, &run_folder, root)?;
    let (ours, theirs) = channel::pair().context("making the launcher's socket")?;
    let mut launcher = start_launcher(theirs)?;
    let keys = Arc::new(KeyRing::new(data_dir.clone(), arguments.address.listen.is_loopback())?);
    let artifacts = Artifacts::open(data_dir.join("artifacts"))?;
    let runtime_dir = arguments.runtime_dir.clone().unwrap_or_else(ondol_runtimes::default_folder);
    let session_keys = Arc::clone(&keys);
    let agent = AgentConfiguration {
        region: REGION.into(),
        endpoint: format!("http://{}", SocketAddr::new(reachable(arguments.address.listen), port)),
        runtime_folder: runtime_dir.clone(),
        code_folder: data_dir.join("artifacts/unpacked"),
        run_folder,
        containment: if contained { AgentContainment::Container } else { AgentContainment::Process },
        server_id,
        limits: root,
        machine_memory_bytes: machine::memory_bytes() / 100 * MEMORY_PERCENT,
        credentials: Box::new(move |environment| session_keys.session(environment.0)),
    };
    if !contained {
        notice::warning(
            "--containment process: functions run as plain processes of this user. They can read this server's data and each other's. For development only.",
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(
        arguments,
        Parts { store, artifacts, keys, agent, launcher: ours, listener, runtime_dir, port },
    ));
    // The agent's socket closes with the runtime; the launcher ends everything it made, and then itself.
    drop(runtime);
    launcher.wait().context("waiting for the launcher")?;
    outcome
}

struct Parts {
    store: Store,
    artifacts: Artifacts,
    keys: Arc<KeyRing>,
    agent: AgentConfiguration,
    launcher: OwnedFd,
    listener: TcpListener,
    runtime_dir: std::path::PathBuf,
    port: u16,
}

async fn run(arguments: &Up, parts: Parts) -> Result<()> {
    let home = Home { region: REGION.into(), account_id: ACCOUNT_ID.into() };
    let directory = Directory::new(home.clone());
    let read_at = directory.read_all(&parts.store);
    tokio::spawn(Arc::clone(&directory).follow(parts.store.clone(), read_at));
    let (usage, book) = usage_channel();
    let book = Arc::new(book);
    let (api_door, api_calls) = mpsc::channel(API_CALLS_MAX);
    let shards = arguments.shards.map_or_else(|| (machine::cpus() / 2).max(1), usize::from);
    let facts = status::Facts {
        endpoint: parts.agent.endpoint.clone(),
        server_id: parts.agent.server_id.clone(),
        containment: parts.agent.containment,
        limits: parts.agent.limits,
        any_architecture: arguments.any_architecture,
    };
    let (agent, ends) = Machine::new(parts.agent, parts.launcher, shards).context("starting the agent")?;
    let (assignments, assigned) = watch::channel(Arc::new(Assignment::default()));
    let (reports, reported) = watch::channel(Report::default());
    let (views, viewed) = watch::channel(Arc::new(View::default()));
    let shared = Shared {
        directory,
        keys: Arc::clone(&parts.keys) as _,
        usage,
        api: api_door,
        hosts: HostPolicy { names: arguments.allow_host.clone() },
    };
    start_shards(&parts.listener, ends, &shared)?;
    let (store, runtime_dir, any_architecture) =
        (parts.store.clone(), parts.runtime_dir, arguments.any_architecture);
    let page = {
        let (store, book, reported) = (store.clone(), Arc::clone(&book), reported.clone());
        Arc::new(move || status::page(&facts, &store, &reported.borrow(), &viewed.borrow(), &book))
    };
    let api = Api {
        context: Context::new(store.clone(), parts.artifacts, home.clone()),
        keys: parts.keys,
        status: page,
    };
    tokio::spawn(serve_api(api, api_calls));
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(250));
        loop {
            tick.tick().await;
            book.collect();
        }
    });
    let control = Control {
        store,
        home,
        machine: Box::new(move || machine::facts(&runtime_dir, any_architecture)),
        assignments,
        reports: reported,
        views,
        coins: Coins::from_seed(seed()?),
        epoch: ondol_observe::clock::wall().0,
    };
    tokio::spawn(control.run());
    announce(arguments, parts.port);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = agent.run(assigned, reports) => match ended {
            Ok(()) => bail!("the control loop ended"),
            Err(why) => bail!("{why}; no execution environment can run without it"),
        },
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}

fn announce(arguments: &Up, port: u16) {
    let text = format!(
        "Ondol {} is ready. Point AWS tools at it:\n\n{}\n",
        env!("CARGO_PKG_VERSION"),
        exports(&arguments.address, port)
    );
    // Whoever started us may have stopped listening; that is no reason to end.
    let mut out = std::io::stdout();
    let _ =
        std::io::Write::write_all(&mut out, text.as_bytes()).and_then(|()| std::io::Write::flush(&mut out));
}

/// Each shard has a thread, a single-threaded runtime and a handle on the one listening socket.
fn start_shards(listener: &TcpListener, ends: Vec<ShardEnd>, shared: &Shared) -> Result<()> {
    listener.set_nonblocking(true)?;
    let lines: Vec<(mpsc::Sender<Hop>, mpsc::Receiver<Hop>)> =
        ends.iter().map(|_| mpsc::channel(HOPS_MAX)).collect();
    let senders: Vec<mpsc::Sender<Hop>> = lines.iter().map(|(sender, _)| sender.clone()).collect();
    for (number, (end, (_, hops))) in ends.into_iter().zip(lines).enumerate() {
        let others = senders
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != number)
            .map(|(_, sender)| sender.clone())
            .collect();
        let (listener, shared, seed) = (listener.try_clone()?, shared.clone(), seed()?);
        std::thread::Builder::new().name(format!("invoke-{number}")).spawn(move || {
            let served = run_shard(listener, end, hops, others, shared, seed);
            if let Err(error) = served {
                notice::error(&format!("invoke thread {number}: {error:#}"));
                std::process::exit(1);
            }
        })?;
    }
    Ok(())
}

fn run_shard(
    listener: TcpListener,
    end: ShardEnd,
    hops: mpsc::Receiver<Hop>,
    others: Vec<mpsc::Sender<Hop>>,
    shared: Shared,
    seed: u64,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let environments = Environments::default();
        let shard = Rc::new(Shard::new(shared, environments.clone(), others, seed));
        tokio::task::spawn_local(Rc::clone(&shard).serve_hops(hops));
        tokio::task::spawn_local(accept(listener, Rc::clone(&shard)));
        environments.run(end, Rc::new(move |event| shard.gate_event(&event))).await;
        Ok(())
    })
}

/// Answers API calls, each in a task of its own.
async fn serve_api(api: Api, mut calls: mpsc::Receiver<ondol_invoke::shard::ApiCall>) {
    let turns = Arc::new(tokio::sync::Semaphore::new(API_CALLS_AT_ONCE));
    while let Some((request, answer)) = calls.recv().await {
        let api = api.clone();
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        tokio::spawn(async move {
            let _turn = turn;
            // A client that went away does not undo what it asked for.
            let _ = answer.send(api.handle(request).await);
        });
    }
}

fn seed() -> Result<u64> {
    getrandom::u64().map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))
}

/// Names what this server makes on the machine, so that servers of other data folders keep theirs, and so do
/// servers in containers that share the host's control groups and use the same path.
fn server_id(data_dir: &Path) -> String {
    let host = rustix::system::uname();
    let name = [host.nodename().to_bytes(), b"/", data_dir.as_os_str().as_encoded_bytes()].concat();
    let hash = ondol_wire::sigv4::sha256(&name);
    format!("s-{}", &ondol_wire::sigv4::hex(&hash)[..12])
}

/// Execution environments take many descriptors: two for each poll, one for each log connection.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        notice::warning("the limit on open files could not be raised; many environments may need more");
    }
}

/// Ends what an earlier server of this data folder left behind when it was killed.
fn clean_up(server_id: &str, run_folder: &Path, root: bool) -> Result<()> {
    if root {
        cgroup::sweep(server_id).context("removing control groups of an earlier start")?;
    }
    if run_folder.exists() {
        std::fs::remove_dir_all(run_folder).with_context(|| run_folder.display().to_string())?;
    }
    std::fs::create_dir_all(run_folder).with_context(|| run_folder.display().to_string())
}

fn start_launcher(socket: OwnedFd) -> Result<Child> {
    std::process::Command::new("/proc/self/exe")
        .arg("launcher")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(socket))
        .spawn()
        .context("starting the launcher")
}
