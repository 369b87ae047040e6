//! `ondol up`: wires the rooms together and runs until a signal.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ondol_agent::configuration::CredentialsOf;
use ondol_agent::{AgentConfiguration, Containment as AgentContainment, Credentials, Machine};
use ondol_api::{Api, Context};
use ondol_control::journal::Journal;
use ondol_control::{Control, PoolOrder, View};
use ondol_core::capacity::{EnvironmentState, Settings};
use ondol_core::coins::Coins;
use ondol_core::identity::Home;
use ondol_core::quotas::Quotas;
use ondol_events::Outside;
use ondol_identity::{Authorizer, Claims, Enforcement, Gatekeeper, Identity, Roles, Sessions};
use ondol_invoke::directory::Directory;
use ondol_invoke::hosts::HostPolicy;
use ondol_invoke::on_demand::OnDemand;
use ondol_invoke::shard::Shared;
use ondol_launcher::{cgroup, channel};
use ondol_observe::logs::{self, Limits, LogBook, LogSender};
use ondol_observe::notice;
use ondol_observe::usage::usage_channel;
use ondol_protocol::assignment::{Assignment, EnvironmentAssignment, Generation, Report};
use ondol_protocol::invocation::StreamLimits;
use ondol_services::{Brokers, Secrets, ServiceEndpoints};
use ondol_store::Store;
use ondol_store::artifacts::Artifacts;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::access_keys::KeyRing;
use crate::backup::Restorer;
use crate::commands::{exports, reachable};
use crate::pages::ServerPages;
use crate::shards::Doors;
use crate::{
    Auth, Containment, Output, Up, admin, backup, commands, events, home, housekeeping, machine, metrics,
    shards, status,
};

/// API calls that may wait for their turn.
const API_CALLS_MAX: usize = 1_024;
/// API calls answered at the same time; each may hold a deployment package in memory.
const API_CALLS_AT_ONCE: u32 = 128;
/// What a function streams before its rate counts.
const STREAM_BURST_BYTES: u64 = 6 << 20;
/// One log group may take this part of what all may.
const LOG_GROUP_SHARE: u64 = 4;
/// How long the end of environments, and of API calls, is waited for at a stop.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);
/// How often what is idle is looked at.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// The launcher's process: serves the socket it got as standard input.
pub fn launcher() -> Result<()> {
    let socket = rustix::io::dup(rustix::stdio::stdin()).context("the launcher is started by the server")?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    ondol_launcher::serve(&socket).context("the launcher")
}

pub fn up(arguments: &Up, output: Output) -> Result<()> {
    let contained = arguments.containment == Containment::Container;
    let root = rustix::process::geteuid().is_root();
    if contained && !root {
        bail!(
            "execution environments are made of namespaces and control groups, which needs root: run `sudo ondol up`. For development without root there is `--containment process`, which separates nothing"
        );
    }
    raise_open_files();
    let data_dir = &arguments.address.data_dir;
    let mut quotas = Quotas::default();
    arguments.quota.iter().try_for_each(|text| quotas.set(text)).map_err(anyhow::Error::msg)?;
    ondol_observe::clock::compress(arguments.time_scale);
    let limits =
        ondol_store::queue::Limits { events: quotas.queued_events.into(), bytes: quotas.queued_event_bytes };
    let store = Store::open_with(data_dir, limits)?;
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
    // What a restore left that was killed; the folder is ours, so none is under way.
    let _ = std::fs::remove_dir_all(data_dir.join(backup::BESIDE));
    let (ours, theirs) = channel::pair().context("making the launcher's socket")?;
    let mut launcher = start_launcher(theirs)?;
    let keys = Arc::new(KeyRing::new(data_dir.clone(), arguments.address.listen.is_loopback())?);
    let artifacts = Artifacts::open(data_dir.join("artifacts"))?;
    housekeeping::require_packages(&store, &artifacts);
    let limits = Limits {
        total_bytes: u64::from(arguments.logs_mib) << 20,
        group_bytes: (u64::from(arguments.logs_mib) << 20) / LOG_GROUP_SHARE,
        age: Duration::from_secs(u64::from(arguments.logs_days) * 86_400),
        ..Limits::default()
    };
    let (log_sender, log_book) = logs::open(data_dir.join("logs"), limits).context("opening the logs")?;
    let runtime_dir = arguments.runtime_dir.clone().unwrap_or_else(ondol_runtimes::default_folder);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let home = runtime.block_on(home::settle(
        &store,
        arguments.account_id.as_deref(),
        arguments.region.as_deref(),
    ))?;
    let services = services(&arguments.service_endpoint, &home.region)?;
    let brokers = Brokers::parse(&arguments.broker).map_err(anyhow::Error::msg)?;
    let secret = ondol_identity::session_secret(&data_dir).context("the session secret")?;
    let sessions = Arc::new(Sessions::new(secret, shards::seed()?));
    let roles = Roles::new(home.clone());
    let enforcement = if arguments.auth == Auth::Off { Enforcement::Off } else { Enforcement::On };
    if enforcement == Enforcement::Off {
        notice::warning(
            "--auth off: signatures, roles and policies are not looked at. Whoever reaches this server may do everything.",
        );
    }
    let authorizer = Authorizer::new(Arc::clone(&roles), enforcement);
    let agent = AgentConfiguration {
        region: home.region.clone(),
        endpoint: format!("http://{}", SocketAddr::new(reachable(arguments.address.listen), port)),
        runtime_folder: runtime_dir.clone(),
        code_folder: data_dir.join("artifacts/unpacked"),
        run_folder,
        containment: if contained { AgentContainment::Container } else { AgentContainment::Process },
        server_id,
        limits: root,
        machine_memory_bytes: machine::usable_memory_bytes(),
        credentials: credentials_of(&home, &roles, &sessions),
    };
    if !contained {
        notice::warning(
            "--containment process: functions run as plain processes of this user. They can read this server's data and each other's. For development only.",
        );
    }
    let book = log_book.clone();
    let parts = Parts {
        home,
        quotas,
        services,
        brokers,
        secrets: Secrets { folder: arguments.secrets_dir.clone() },
        keys,
        roles,
        sessions,
        authorizer,
        store,
        artifacts,
        agent,
        launcher: ours,
        listener,
        runtime_dir,
        port,
        data_dir: data_dir.clone(),
        log_sender,
        log_book,
    };
    let outcome = runtime.block_on(run(arguments, output, parts));
    // The agent's socket closes with the runtime; the launcher ends everything it made, and then itself.
    runtime.shutdown_timeout(SHUTDOWN_WAIT);
    end_launcher(&mut launcher)?;
    book.close();
    admin::remove(&data_dir);
    outcome
}

/// What an execution environment is given: a session of its function's role, for as long as this server runs.
fn credentials_of(home: &Home, roles: &Arc<Roles>, sessions: &Arc<Sessions>) -> CredentialsOf {
    let (account_id, roles, sessions) = (home.account_id.clone(), Arc::clone(roles), Arc::clone(sessions));
    Box::new(move |_, assignment: &EnvironmentAssignment| {
        let role = &assignment.publication.configuration.role;
        let role_id = roles.by_arn(role).map(|found| found.id.clone()).unwrap_or_default();
        let claims = Claims::of_execution_environment(
            &account_id,
            role,
            &role_id,
            &assignment.version.function,
            &assignment.function_arn,
            ondol_observe::clock::epoch_millis() / 1_000,
        );
        let issued = sessions.issue(claims);
        Credentials {
            access_key_id: issued.access_key_id,
            secret_access_key: issued.secret_access_key,
            session_token: issued.session_token,
        }
    })
}

/// Waits for the launcher, which ends what is left; one that does not come to its end is killed, and so are all of
/// its environments by the kernel.
fn end_launcher(launcher: &mut Child) -> Result<()> {
    let until = std::time::Instant::now() + SHUTDOWN_WAIT;
    while launcher.try_wait().context("waiting for the launcher")?.is_none() {
        if std::time::Instant::now() >= until {
            notice::warning("the launcher doesn't end; it is killed");
            launcher.kill().context("killing the launcher")?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What the services that Ondol does not serve are asked with: the key in this process's environment, if any.
fn services(endpoints: &[String], region: &str) -> Result<ServiceEndpoints> {
    let variable = |name| std::env::var(name).ok();
    let key = variable("AWS_ACCESS_KEY_ID").zip(variable("AWS_SECRET_ACCESS_KEY"));
    ServiceEndpoints::parse(&endpoints.join(","), region, key).map_err(anyhow::Error::msg)
}

struct Parts {
    home: Home,
    quotas: Quotas,
    services: ServiceEndpoints,
    brokers: Brokers,
    secrets: Secrets,
    keys: Arc<KeyRing>,
    roles: Arc<Roles>,
    sessions: Arc<Sessions>,
    authorizer: Authorizer,
    store: Store,
    artifacts: Artifacts,
    agent: AgentConfiguration,
    launcher: OwnedFd,
    listener: TcpListener,
    runtime_dir: std::path::PathBuf,
    port: u16,
    data_dir: std::path::PathBuf,
    log_sender: LogSender,
    log_book: LogBook,
}

async fn run(arguments: &Up, output: Output, parts: Parts) -> Result<()> {
    let Parts {
        home,
        quotas,
        services,
        brokers,
        secrets,
        keys,
        roles,
        sessions,
        authorizer,
        store,
        artifacts,
        agent,
        launcher,
        listener,
        runtime_dir,
        port,
        data_dir,
        log_sender,
        log_book,
    } = parts;
    let directory = Directory::new(home.clone(), quotas.concurrent_executions);
    let read_at = directory.read_all(&store);
    tokio::spawn(Arc::clone(&directory).follow(store.clone(), read_at));
    let roles_at = roles.read_all(&store);
    tokio::spawn(Arc::clone(&roles).follow(store.clone(), roles_at));
    let gatekeeper =
        Gatekeeper::new(keys as _, Arc::clone(&sessions), authorizer.clone(), &home.account_id, &home.region);
    let gatekeeper = Arc::new(gatekeeper);
    let (usage, book) = usage_channel();
    let book = Arc::new(book);
    let (api_door, api_calls) = mpsc::channel(API_CALLS_MAX);
    let shard_count = arguments.shards.map_or_else(|| (machine::cpus() / 2).max(1), usize::from);
    let facts = Arc::new(status::Facts {
        endpoint: agent.endpoint.clone(),
        server_id: agent.server_id.clone(),
        containment: agent.containment,
        limits: agent.limits,
        any_architecture: arguments.any_architecture,
        home: home.clone(),
        auth: arguments.auth,
        started_epoch_millis: ondol_observe::clock::epoch_millis(),
        quotas,
        idle_seconds: arguments.idle_seconds,
        instance_age_seconds_max: arguments.instance_max_age_seconds,
    });
    let journal = Journal::open(&data_dir).context("opening the planner's journal")?;
    let (agent, ends) = Machine::new(agent, launcher, shard_count).context("starting the agent")?;
    let (assignments, assigned) = watch::channel(Arc::new(Assignment::default()));
    let (reports, reported) = watch::channel(Report::default());
    let (views, viewed) = watch::channel(Arc::new(View::default()));
    let (stopping, stopped) = watch::channel(false);
    let (open, mut still_open) = mpsc::channel(1);
    let (on_demand, demand) = OnDemand::new();
    let on_demand = Arc::new(on_demand);
    let (pool, orders) = mpsc::unbounded_channel();
    tokio::spawn(follow_orders(Arc::clone(&on_demand), orders));
    tokio::spawn(tidy(Arc::clone(&on_demand), reported.clone(), arguments.idle_seconds.into()));
    let shared = Shared {
        on_demand: Arc::clone(&on_demand),
        store: store.clone(),
        stream_limits: StreamLimits {
            bytes_max: quotas.streamed_response_bytes,
            burst_bytes: STREAM_BURST_BYTES,
            bytes_per_second: quotas.streamed_response_bytes_per_second,
        },
        directory: Arc::clone(&directory),
        gatekeeper: Arc::clone(&gatekeeper),
        usage,
        api: api_door,
        hosts: HostPolicy { names: arguments.allow_host.clone() },
    };
    let doors = Doors { stopping: stopped.clone(), open };
    let inner = shards::start(&listener, ends, &shared, &log_sender, &doors)?;
    let services = Arc::new(services);
    let outside = Outside { services: Arc::clone(&services), brokers, secrets };
    let sources =
        events::start_sources(store.clone(), inner.clone(), outside, authorizer.clone(), doors.clone())?;
    let worker = events::Parts {
        store: store.clone(),
        inner,
        services: Arc::clone(&services),
        authorizer: authorizer.clone(),
        home: home.clone(),
    };
    let queue = events::start_queue(worker, doors.clone())?;
    // The shards have handles of their own, and close them when the server stops.
    drop(listener);
    let pages = ServerPages {
        facts,
        store: store.clone(),
        reports: reported.clone(),
        views: viewed,
        usage: Arc::clone(&book),
        logs: log_book,
        stopping: stopped.clone(),
        roles: Arc::clone(&roles),
        queue,
        sources: sources.clone(),
        journal_lines_lost: journal.lines_lost(),
        unreserved_running: Arc::clone(&directory.unreserved_running),
        metrics_token: metrics::Token::of(&data_dir)?,
    };
    let context = Context::new(
        store.clone(),
        artifacts.clone(),
        home.clone(),
        quotas,
        (services, sources.clone()),
        (gatekeeper, Arc::clone(&roles)),
    );
    let change_turns = Arc::clone(&context.turns);
    let identity = Identity {
        store: store.clone(),
        home: home.clone(),
        roles,
        sessions,
        authorizer,
        turns: Arc::clone(&change_turns),
    };
    events::start_schedules(context.clone(), doors)?;
    let api = Api::new(context, Arc::new(identity), Arc::new(pages));
    let turns = Arc::new(Semaphore::new(API_CALLS_AT_ONCE as usize));
    tokio::spawn(serve_api(api, api_calls, Arc::clone(&turns)));
    tokio::spawn(housekeeping::collect_usage(book));
    tokio::spawn(housekeeping::collect_packages(store.clone(), artifacts.clone(), assignments.subscribe()));
    let restorer =
        Restorer { store: store.clone(), artifacts, data_dir: data_dir.clone(), turns: change_turns };
    tokio::spawn(admin::serve(admin::listen(&data_dir)?, restorer));
    let any_architecture = arguments.any_architecture;
    let epoch = ondol_observe::clock::wall().0;
    let closing = store.clone();
    let control = Control {
        store: store.clone(),
        default_pool: machine::default_pool(&home.region),
        demand,
        pool,
        home,
        machine: Box::new(machine::facts(runtime_dir, any_architecture)),
        assignments: assignments.clone(),
        reports: reported.clone(),
        views,
        coins: Coins::from_seed(shards::seed()?),
        settings: Settings { instance_age_seconds_max: arguments.instance_max_age_seconds },
        launch: machine::launches(store.clone(), arguments.instances_max),
        traffic: Box::new(move || directory.traffic()),
        epoch,
        logs: log_sender,
        journal,
    };
    let control = tokio::spawn(control.run());
    let mut agent = tokio::spawn(agent.run(assigned, reports));
    let mut signals = Signals::new()?;
    announce(arguments, output, port);
    notify("READY=1");
    tokio::select! {
        ended = &mut agent => match ended {
            Ok(Ok(())) => bail!("the control loop ended"),
            Ok(Err(why)) => bail!("{why}; no execution environment can run without it"),
            Err(error) => bail!("the agent failed: {error}"),
        },
        () = signals.next() => {}
    }
    notify("STOPPING=1");
    stopping.send_replace(true);
    on_demand.close();
    control.abort();
    let wait = Duration::from_secs(arguments.drain_seconds.into());
    let drained = async {
        drain(&assignments, reported, epoch, wait).await;
        // Every answer is on its way, and every change that was asked for made.
        let answered = async { while still_open.recv().await.is_some() {} };
        let _ = tokio::time::timeout(SHUTDOWN_WAIT, answered).await;
        let _ = tokio::time::timeout(SHUTDOWN_WAIT, turns.acquire_many(API_CALLS_AT_ONCE)).await;
        let _ = tokio::time::timeout(SHUTDOWN_WAIT, closing.close()).await;
    };
    tokio::select! {
        () = drained => {}
        // Asked a second time, nothing is waited for.
        () = signals.next() => notice::warning("asked twice to end: what is in flight is lost"),
    }
    Ok(())
}

/// Carries the control loop's word to the pool of Lambda (default) functions.
async fn follow_orders(on_demand: Arc<OnDemand>, mut orders: mpsc::UnboundedReceiver<PoolOrder>) {
    while let Some(order) = orders.recv().await {
        match order {
            PoolOrder::Refuse { publication, reason, whom } => on_demand.refuse(publication, &reason, whom),
            PoolOrder::Retire(environments) => on_demand.retire(&environments),
        }
    }
}

/// Looks for execution environments that have been idle for too long.
async fn tidy(on_demand: Arc<OnDemand>, reports: watch::Receiver<Report>, idle_seconds: u64) {
    let mut looks = tokio::time::interval(IDLE_LOOK);
    loop {
        looks.tick().await;
        let report = reports.borrow().clone();
        on_demand.tidy(idle_seconds, |environment| report.environments.contains_key(&environment));
    }
}

/// Lets what is in flight finish, then ends every environment by the protocol, each within a bounded time.
async fn drain(
    assignments: &watch::Sender<Arc<Assignment>>,
    mut reports: watch::Receiver<Report>,
    epoch: u64,
    wait: Duration,
) {
    let mut environments = assignments.borrow().environments.clone();
    environments.values_mut().for_each(|environment| environment.draining = true);
    let last = |number| Generation { epoch, number };
    assignments.send_replace(Arc::new(Assignment { generation: last(u64::MAX - 1), environments }));
    let over = |report: &Report| {
        report.generation == last(u64::MAX - 1)
            && report.environments.values().all(|e| matches!(e.state, EnvironmentState::Ended { .. }))
    };
    let waited = tokio::time::timeout(wait, reports.wait_for(over)).await.is_ok();
    if !waited {
        notice::warning(&format!(
            "what is in flight took longer than {} seconds and is lost",
            wait.as_secs()
        ));
    }
    assignments
        .send_replace(Arc::new(Assignment { generation: last(u64::MAX), environments: BTreeMap::new() }));
    let gone = |report: &Report| {
        report.environments.values().all(|e| matches!(e.state, EnvironmentState::Ended { .. }))
    };
    // Longer than a shutdown by the protocol takes. What is left then ends with the launcher.
    let _ = tokio::time::timeout(SHUTDOWN_WAIT, reports.wait_for(gone)).await;
}

/// Ctrl-C and SIGTERM.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Tells systemd, if it started us as a service of type notify.
fn notify(state: &str) {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
        let told = std::os::unix::net::UnixDatagram::unbound()
            .and_then(|socket| socket.send_to(state.as_bytes(), Path::new(&path)));
        if let Err(error) = told {
            notice::warning(&format!("telling the service manager {state}: {error}"));
        }
    }
}

fn announce(arguments: &Up, output: Output, port: u16) {
    let text = if output.json {
        format!("{}\n", commands::variables(&arguments.address, port))
    } else {
        format!(
            "Ondol {} is ready. Point AWS tools at it:\n\n{}\n",
            env!("CARGO_PKG_VERSION"),
            exports(&arguments.address, port)
        )
    };
    // Whoever started us may have stopped listening; that is no reason to end.
    let mut out = std::io::stdout();
    let _ =
        std::io::Write::write_all(&mut out, text.as_bytes()).and_then(|()| std::io::Write::flush(&mut out));
}

/// Whether a server of ours answers at an address.
pub fn answers(address: SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let wait = Duration::from_secs(1);
    let asked = std::net::TcpStream::connect_timeout(&address, wait).and_then(|mut stream| {
        stream.set_read_timeout(Some(wait))?;
        stream.write_all(b"GET /_ondol/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    asked.is_ok_and(|answer| answer.contains("\"running\""))
}

/// Answers API calls, each in a task of its own.
async fn serve_api(api: Api, mut calls: mpsc::Receiver<ondol_invoke::shard::ApiCall>, turns: Arc<Semaphore>) {
    while let Some((request, answer)) = calls.recv().await {
        let (api, turns) = (api.clone(), Arc::clone(&turns));
        // Pages of our own change nothing, and may wait for something to say.
        let page = request.uri().path().starts_with("/_ondol/");
        let turn = if page { None } else { turns.acquire_owned().await.ok() };
        tokio::spawn(async move {
            let _turn = turn;
            // A client that went away does not undo what it asked for.
            let _ = answer.send(api.handle(request).await);
        });
    }
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
pub fn raise_open_files() {
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
        cgroup::prepare().context("preparing control groups")?;
        cgroup::sweep(server_id).context("removing control groups of an earlier start")?;
    }
    if run_folder.exists() {
        std::fs::remove_dir_all(run_folder).with_context(|| run_folder.display().to_string())?;
    }
    std::fs::create_dir_all(run_folder).with_context(|| run_folder.display().to_string())
}

pub fn start_launcher(socket: OwnedFd) -> Result<Child> {
    let failpoints =
        ondol_failpoint::VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    std::process::Command::new("/proc/self/exe")
        .arg("launcher")
        .env_clear()
        .envs(failpoints)
        .current_dir("/")
        .stdin(Stdio::from(socket))
        .spawn()
        .context("starting the launcher")
}
