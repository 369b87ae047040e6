//! The binary: flags, wiring, command line. The only crate that knows all rooms.
#![allow(clippy::print_stdout)]

mod access_keys;
mod admin;
mod backup;
mod client;
mod commands;
mod doctor;
mod documents;
mod events;
mod explain;
mod fleet;
mod home;
mod housekeeping;
mod invoke;
mod logs;
mod machine;
mod metrics;
mod pages;
mod queue;
mod schedule;
mod server;
mod shards;
mod simulation;
mod status;
mod words;

use std::io::IsTerminal as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Exit codes besides 0: documented in the help and the man page.
const FAILED: u8 = 1;
const NO_SERVER: u8 = 3;

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 failed; 2 the command line is wrong; 3 no server answers.
Environment: ONDOL_PORT, ONDOL_LISTEN, ONDOL_DATA_DIR, ONDOL_RUNTIME_DIR stand for the flags; \
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY sign what commands ask; NO_COLOR turns colours off.";

/// AWS Lambda Managed Instances on machines you own.
#[derive(Debug, Parser)]
#[command(name = "ondol", version, about, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// How a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    colour: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server. It answers the AWS Lambda API until it gets Ctrl-C or SIGTERM.
    Up(Box<Up>),
    /// Print the variables that point AWS tools at the server: eval "$(ondol env)"
    Env(Address),
    /// Show capacity providers, instances, execution environments, and why anything is not as asked.
    Status(Address),
    /// Show what a function, or a capacity provider, wrote.
    Logs(Logs),
    /// Say why a function is not ready, has as many execution environments as it has, or was throttled.
    Explain(Box<Explain>),
    /// Invoke a function: once, or many times at once with a histogram of how long it took.
    Invoke(Invoke),
    /// Show the events that wait for their functions, and the books of those that did.
    Queue(Queue),
    /// Change how many execution environments a function keeps, by the clock.
    Schedule(Schedule),
    /// Simulate what scaling would do with a load; needs no server.
    Sim(Box<simulation::Sim>),
    /// Look at everything the server needs of this machine; say how to mend what is missing.
    Doctor(Doctor),
    /// Write everything the server holds into one file, beside a running server or without one.
    Backup(Backup),
    /// Put a backup in the place of all there is, in a running server or without one.
    Restore(Backup),
    /// Issue and withdraw access keys.
    Keys(Keys),
    /// Install and list language runtimes.
    Runtime(Runtime),
    /// Print the completions for a shell
    Completions { shell: clap_complete::Shell },
    /// Write the man pages into a folder
    #[command(hide = true)]
    Manual { folder: PathBuf },
    /// Make contained processes for a server; started by it.
    #[command(hide = true)]
    Launcher,
}

/// Where the server is.
#[derive(Debug, Clone, Args)]
struct Address {
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 4566, env = "ONDOL_PORT")]
    port: u16,
    /// Address to listen on. Off the loopback, only keys from `ondol keys` are valid
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1", env = "ONDOL_LISTEN")]
    listen: IpAddr,
    /// Folder for functions, code and state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/ondol/data", env = "ONDOL_DATA_DIR")]
    data_dir: PathBuf,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    address: Address,
    /// Folder of installed runtimes, shared by all servers of this machine
    #[arg(long, value_name = "DIR", env = "ONDOL_RUNTIME_DIR")]
    runtime_dir: Option<PathBuf>,
    /// How execution environments are separated. `process` does not separate them: for development only
    #[arg(long, value_enum, default_value_t = Containment::Container)]
    containment: Containment,
    /// Run functions of the other architecture too. Works for code without native parts
    #[arg(long)]
    any_architecture: bool,
    /// A further name this server is reached by; may be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Invoke threads; by default one for every two CPUs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: Option<u16>,
    /// At Ctrl-C or SIGTERM: how long invocations in flight may take to finish
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain_seconds: u32,
    /// The account everything here belongs to: 12 digits. Kept with the data folder; 000000000000 for a new one
    #[arg(long, value_name = "ID", value_parser = account_id)]
    account_id: Option<String>,
    /// The region everything here is in. Kept with the data folder; us-east-1 for a new one
    #[arg(long, value_name = "NAME", value_parser = region)]
    region: Option<String>,
    /// Whether signatures, roles and policies count. `off` is for moving from emulators: every key and role passes
    #[arg(long, value_enum, default_value_t = Auth::On)]
    auth: Auth,
    /// AWS services that Ondol does not serve, and where they are: s3=http://127.0.0.1:9000,sqs=…
    #[arg(long, value_name = "SERVICE=URL,…", value_delimiter = ',', value_parser = service_endpoint)]
    service_endpoint: Vec<String>,
    /// A message broker that functions read from, by the name in its ARN: orders=amqp://127.0.0.1:5672 (RabbitMQ) or
    /// orders=tcp://127.0.0.1:61616 (ActiveMQ); may be repeated
    #[arg(long, value_name = "NAME=URL", value_parser = broker)]
    broker: Vec<String>,
    /// Folder with the secrets of event sources, a file by each secret's name, as Secrets Manager would hold them
    #[arg(long, value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    /// A quota of the account, such as concurrent-executions=50; may be repeated
    #[arg(long, value_name = "NAME=NUMBER", value_parser = quota)]
    quota: Vec<String>,
    /// Let delays, ages and windows (scaling, replacement, back-off, retries, schedules) pass so many times faster
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    time_scale: u32,
    /// Instances are replaced before they are older than this; it passes faster with --time-scale
    #[arg(long, value_name = "SECONDS", default_value_t = ondol_core::capacity::INSTANCE_AGE_SECONDS_DEFAULT, value_parser = clap::value_parser!(u64).range(60..))]
    instance_max_age_seconds: u64,
    /// Instances this machine may be shared out to, of all capacity providers together
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    instances_max: u32,
    /// How long an execution environment of a Lambda (default) function may be idle
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    idle_seconds: u32,
    /// What all logs together may take on the disk
    #[arg(long, value_name = "MIB", default_value_t = 1_024)]
    logs_mib: u32,
    /// How long logs are kept
    #[arg(long, value_name = "DAYS", default_value_t = 14)]
    logs_days: u32,
}

/// Whether requests are held against keys, roles and policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Auth {
    On,
    Off,
}

fn account_id(text: &str) -> Result<String, String> {
    if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err("an account id has 12 digits".into())
}

fn quota(text: &str) -> Result<String, String> {
    ondol_core::quotas::Quotas::default().set(text).map(|()| text.to_owned())
}

fn service_endpoint(text: &str) -> Result<String, String> {
    ondol_services::ServiceEndpoints::parse(text, "", None).map(|_| text.to_owned())
}

fn broker(text: &str) -> Result<String, String> {
    ondol_services::Brokers::parse(&[text.to_owned()]).map(|_| text.to_owned())
}

fn region(text: &str) -> Result<String, String> {
    // As the service model has it, without its partitions' special cases.
    let parts: Vec<&str> = text.split('-').collect();
    let letters = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    match parts.split_last() {
        Some((number, words))
            if words.len() >= 2
                && words.iter().all(letters)
                && number.len() == 1
                && number.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("a region is of the form us-east-1".into()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Containment {
    Container,
    Process,
}

#[derive(Debug, Args)]
struct Logs {
    /// The function, with `:VERSION` only that version's
    #[arg(required_unless_present_any = ["capacity_provider"], conflicts_with = "capacity_provider")]
    function: Option<String>,
    /// The system log of a capacity provider instead
    #[arg(long, value_name = "NAME")]
    capacity_provider: Option<String>,
    /// Go on with what is written from now on
    #[arg(long, short)]
    follow: bool,
    /// Only what belongs to this request
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// From when on: 90s, 10m, 2h or 1d ago, or 2026-11-22T09:56:03Z; 10m unless given
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    #[command(flatten)]
    address: Address,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
struct Explain {
    #[command(subcommand)]
    question: Option<ExplainQuestion>,
    /// The function, with `:VERSION` only that version: why it is not ready, down to the runtime's own error, and how its
    /// event sources are read
    #[arg(required = true)]
    function: Option<String>,
    #[command(flatten)]
    address: Address,
}

#[derive(Debug, Subcommand)]
enum ExplainQuestion {
    /// Why invocations found no execution environment, and what to change
    Throttle(Asked),
    /// Why a version is not Active yet, or has less than its minimum
    Pending(Asked),
    /// Why a version has as many execution environments as it has, and what would change that
    Scale(Asked),
}

#[derive(Debug, Args)]
struct Asked {
    /// The function, with `:VERSION` only that version
    function: String,
    #[command(flatten)]
    address: Address,
}

#[derive(Debug, Args)]
struct Invoke {
    /// The function, with `:VERSION` or `:ALIAS` that one; or its ARN
    function: String,
    /// File with the payload; `-` is standard input. `{}` unless given
    #[arg(long, short, value_name = "FILE", conflicts_with = "data")]
    payload: Option<PathBuf>,
    /// The payload itself
    #[arg(long, short, value_name = "JSON")]
    data: Option<String>,
    /// Asynchronously: the event is queued, and nothing waits for its answer
    #[arg(long)]
    event: bool,
    /// Show the answer as it is written, by a function that streams it
    #[arg(long, conflicts_with_all = ["event", "concurrency", "requests"])]
    stream: bool,
    /// Also show the last 4 KB of what it wrote
    #[arg(long, conflicts_with = "event")]
    tail: bool,
    /// Requests at the same time
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4_096))]
    concurrency: usize,
    /// Requests in all
    #[arg(long, short = 'n', value_name = "M", default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000_000))]
    requests: usize,
    #[command(flatten)]
    address: Address,
}

#[derive(Debug, Args)]
struct Queue {
    /// Only this function, with its events one by one
    function: Option<String>,
    #[command(flatten)]
    address: Address,
}

#[derive(Debug, Args)]
struct Schedule {
    #[command(subcommand)]
    command: ScheduleCommand,
}

#[derive(Debug, Subcommand)]
enum ScheduleCommand {
    /// Make a schedule, for example: ondol schedule create morning --function orders --min 6 --cron "0 8 ? * MON-FRI *" --timezone Asia/Seoul
    Create(Box<ScheduleCreate>),
    /// List all schedules: when each is due next, and how it went last
    List(Address),
    /// Show one schedule
    Show {
        /// Its name, with GROUP/ before it if that isn't `default`
        name: String,
        #[command(flatten)]
        address: Address,
    },
    /// Remove a schedule; what it has set stays
    Delete {
        /// Its name, with GROUP/ before it if that isn't `default`
        name: String,
        #[command(flatten)]
        address: Address,
    },
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("when").required(true).args(["at", "rate", "cron"]))]
struct ScheduleCreate {
    /// Its name, with GROUP/ before it if that isn't `default`
    name: String,
    /// The function, with `:VERSION` that one; `$LATEST.PUBLISHED` unless given
    #[arg(long, value_name = "FUNCTION")]
    function: String,
    /// The minimum of execution environments it sets; 0 deactivates the version
    #[arg(long, value_name = "N")]
    min: u32,
    /// The maximum it sets; without it there is none
    #[arg(long, value_name = "M")]
    max: Option<u32>,
    /// Once, at this local time: 2026-12-24T08:00:00
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Again and again: "5 minutes", "1 hour", "1 day"
    #[arg(long, value_name = "EXPR")]
    rate: Option<String>,
    /// Minutes, hours, day of month, month, day of week and year, as AWS has them: "0 8 ? * MON-FRI *"
    #[arg(long, value_name = "EXPR")]
    cron: Option<String>,
    /// The time zone of its times, such as Asia/Seoul
    #[arg(long, value_name = "TZ", default_value = "UTC")]
    timezone: String,
    /// The role it acts as, which must be allowed lambda:PutFunctionScalingConfig. Unless given, the role
    /// `ondol-scheduled-scaling` is used, and made if it isn't there
    #[arg(long, value_name = "ARN")]
    role: Option<String>,
    #[command(flatten)]
    address: Address,
}

#[derive(Debug, Args)]
struct Doctor {
    #[command(flatten)]
    address: Address,
    /// Folder of installed runtimes
    #[arg(long, value_name = "DIR", env = "ONDOL_RUNTIME_DIR")]
    runtime_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Backup {
    file: PathBuf,
    /// Folder of the server
    #[arg(long, value_name = "DIR", default_value = "/var/lib/ondol/data", env = "ONDOL_DATA_DIR")]
    data_dir: PathBuf,
}

#[derive(Debug, Args)]
struct Keys {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a new access key of the root user and print it once
    Create {
        /// Another account, whose requests only pass where a resource's policy lets them
        #[arg(long, value_name = "ID", value_parser = account_id)]
        account_id: Option<String>,
        #[command(flatten)]
        address: Address,
    },
    /// List the ids of all access keys
    List(Address),
    /// Withdraw an access key
    Delete {
        access_key_id: String,
        #[command(flatten)]
        address: Address,
    },
}

#[derive(Debug, Args)]
struct Runtime {
    #[command(subcommand)]
    command: RuntimeCommand,
}

#[derive(Debug, Subcommand)]
enum RuntimeCommand {
    /// Install runtimes, for example: ondol runtime install python3.13 nodejs24.x provided.al2023
    Install {
        #[arg(required = true)]
        runtimes: Vec<String>,
        /// `debian` builds a root filesystem; `host` uses an interpreter of this machine
        #[arg(long, value_enum, default_value_t = Source::Debian)]
        source: Source,
        #[arg(long, value_name = "DIR", env = "ONDOL_RUNTIME_DIR")]
        runtime_dir: Option<PathBuf>,
    },
    /// List installed runtimes
    List {
        #[arg(long, value_name = "DIR", env = "ONDOL_RUNTIME_DIR")]
        runtime_dir: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    Debian,
    Host,
}

fn main() -> ExitCode {
    // What is made for functions must be readable for their users, whatever the caller's mask. What is for the
    // owner only says so itself.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let Cli { json, command } = Cli::parse();
    let colour =
        std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let output = Output { json, colour };
    let done = match command {
        Command::Up(up) => server::up(&up, output),
        Command::Env(address) => commands::env(&address, output),
        Command::Status(address) => commands::status(&address, output),
        Command::Logs(arguments) => logs::logs(&arguments, output),
        Command::Explain(arguments) => commands::explain(&arguments, output),
        Command::Invoke(arguments) => invoke::invoke(&arguments, output),
        Command::Queue(arguments) => commands::queue(&arguments, output),
        Command::Schedule(arguments) => schedule::schedule(&arguments.command, output),
        Command::Sim(arguments) => simulation::sim(&arguments, output),
        Command::Doctor(arguments) => commands::doctor(&arguments, output),
        Command::Backup(Backup { file, data_dir }) => commands::backup(&data_dir, &file, output),
        Command::Restore(Backup { file, data_dir }) => commands::restore(&data_dir, &file, output),
        Command::Keys(keys) => commands::keys(keys.command, output),
        Command::Runtime(runtime) => commands::runtime(runtime.command, output),
        Command::Completions { shell } => commands::completions(shell, output),
        Command::Manual { folder } => commands::manual(&folder, output),
        Command::Launcher => server::launcher(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if json {
                eprintln!("{}", serde_json::json!({"error": format!("{error:#}")}));
            } else {
                eprintln!("error: {error:#}");
            }
            let no_server = error.downcast_ref::<client::NoServer>().is_some();
            ExitCode::from(if no_server { NO_SERVER } else { FAILED })
        }
    }
}
