//! The binary: flags, wiring, command line. The only crate that knows all rooms.
#![allow(clippy::print_stdout)]

mod access_keys;
mod client;
mod commands;
mod machine;
mod server;
mod status;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// AWS Lambda Managed Instances on machines you own.
#[derive(Debug, Parser)]
#[command(name = "ondol", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server. It answers the AWS Lambda API until it gets Ctrl-C or SIGTERM.
    Up(Box<Up>),
    /// Print the variables that point AWS tools at the server: eval "$(ondol env)"
    Env(Address),
    /// Show capacity providers, instances, execution environments, and why anything is not as asked.
    Status(Status),
    /// Issue and withdraw access keys.
    Keys(Keys),
    /// Install and list language runtimes.
    Runtime(Runtime),
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Containment {
    Container,
    Process,
}

#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    address: Address,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Keys {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a new access key and print it once
    Create(Address),
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
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    Debian,
    Host,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Up(up) => server::up(&up),
        Command::Env(address) => commands::env(&address),
        Command::Status(status) => commands::status(&status),
        Command::Keys(keys) => commands::keys(keys.command),
        Command::Runtime(runtime) => commands::runtime(runtime.command),
        Command::Launcher => server::launcher(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
