//! What the launcher is asked to make, and what it says of it.

use std::path::PathBuf;

use ondol_core::identity::EnvironmentId;
use serde::{Deserialize, Serialize};

/// The user inside an execution environment, as on AWS.
pub const INSIDE_UID: u32 = 993;
pub const INSIDE_GID: u32 = 990;
/// Where the log socket is seen from inside.
pub const LOG_SOCKET_FOLDER: &str = "/run/telemetry";
pub const LOG_SOCKET_NAME: &str = "log.sock";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LauncherRequest {
    Launch(Box<LaunchRequest>),
    /// End the environment at once. `Exited` follows.
    Kill {
        environment: EnvironmentId,
    },
    /// Start the runtime of an environment that was launched with extensions, which come first.
    StartRuntime {
        environment: EnvironmentId,
    },
    /// Signal one of its first processes; also only where there are extensions.
    Signal {
        environment: EnvironmentId,
        process: Process,
        signal: Signal,
    },
}

/// One of the processes init starts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Process {
    Runtime,
    /// By its place in [`LaunchRequest::extensions`].
    Extension(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    Terminate,
    Kill,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRequest {
    pub environment: EnvironmentId,
    pub tier: Tier,
    pub hostname: String,
    /// Program and arguments, seen from inside.
    pub command: Vec<String>,
    /// The launcher adds what it makes itself: `AWS_LAMBDA_RUNTIME_API` and `_LAMBDA_TELEMETRY_LOG_FD`.
    pub variables: Vec<(String, String)>,
    /// Programs that run beside the runtime and are started before it. With any, init stays until all have
    /// ended and says when each does; without, the environment ends with its runtime.
    pub extensions: Vec<PathBuf>,
    pub extension_variables: Vec<(String, String)>,
    pub working_directory: PathBuf,
    /// Control groups from the outermost in; the last is the environment's own.
    pub groups: Vec<GroupLimits>,
    pub log: LogChannel,
    /// A folder of its own on the host for the log socket.
    pub run_folder: PathBuf,
}

/// How the runtime's client writes its log, besides standard output and standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogChannel {
    /// Lines to a socket each of its workers connects to, where several requests are served at once.
    Socket,
    /// Frames to a descriptor it inherits, whose number `_LAMBDA_TELEMETRY_LOG_FD` tells: one request at a time.
    Frames,
}

/// How strongly an environment is separated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tier {
    /// Namespaces, a read-only root, control groups.
    Container {
        /// The root filesystem on the host; mounted read-only.
        root: PathBuf,
        /// On top of the root, in this order. Targets are absolute, seen from inside, and exist in the root
        /// or in an earlier mount.
        mounts: Vec<Mount>,
        /// The first of two host ids the environment may use: its init's; the next is its user's.
        first_host_id: u32,
    },
    /// A plain child process of the same machine and user: for development, asked for by name only.
    Process,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// A file or folder of the host, read-only, no devices, no set-user-id.
    ReadOnly { source: PathBuf, target: PathBuf },
    /// An empty folder in memory of its own, of bounded size, writable by the function.
    Scratch { target: PathBuf, bytes: u64, files: u64 },
    /// Folders of the host laid over each other, the last on top; read-only, no devices, no set-user-id.
    Layers { sources: Vec<PathBuf>, target: PathBuf },
    /// A read-only folder with these small files.
    Files { target: PathBuf, files: Vec<(PathBuf, String)> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLimits {
    /// One path segment.
    pub name: String,
    /// Thousandths of a CPU; without it the CPU is not bounded here. (Version 1 refuses a child more than
    /// its parent has, and instances may have more vCPUs than the machine has CPUs.)
    pub cpu_millis: Option<u64>,
    pub memory_bytes: u64,
    pub pids: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LauncherEvent {
    /// Comes with five file descriptors: Runtime API listener, standard output, standard error, what the extensions
    /// write, and the log: a listener or a pipe.
    Launched { environment: EnvironmentId },
    /// Nothing of it is left.
    Failed { environment: EnvironmentId, what: String },
    Exited {
        environment: EnvironmentId,
        exit: Exit,
        /// The most memory it ever had, where the kernel counts that.
        peak_memory_bytes: Option<u64>,
    },
    /// One of its first processes ended, and the environment goes on; only where there are extensions.
    ProcessEnded { environment: EnvironmentId, process: Process, exit: Exit },
}

/// How the runtime's first process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    OutOfMemory,
    /// The program could not be started at all.
    NotStarted(String),
    /// The launcher ended it.
    Killed,
}
