//! From an assignment to what the launcher is asked to make.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ondol_core::function::Reason;
use ondol_core::identity::EnvironmentId;
use ondol_observe::clock;
use ondol_observe::logs::LogStream;
use ondol_protocol::assignment::EnvironmentAssignment;
use ondol_protocol::containment::{GroupLimits, LOG_SOCKET_NAME, LaunchRequest, LogChannel, Mount, Tier};
use ondol_runtimes::Runtime;

use crate::configuration::{AgentConfiguration, Containment, Credentials};
use crate::extensions::EXTENSIONS_MAX;
use crate::variables::{Context, Places, for_extensions, variables};

const MIB: u64 = 1 << 20;
/// Threads and processes of one environment, as on AWS.
const PIDS_MAX: u64 = 1_024;
const EXTENSIONS_FOLDER: &str = "/opt/extensions";

/// What is to be launched, and what the agent must know of it.
#[derive(Debug)]
pub struct Planned {
    pub request: LaunchRequest,
    pub log_stream: LogStream,
    /// Names of the extensions, in the order of the request.
    pub extensions: Vec<String>,
}

/// Builds the request, or says why this publication cannot run here.
pub fn launch_request(
    configuration: &AgentConfiguration,
    environment: EnvironmentId,
    assignment: &EnvironmentAssignment,
    credentials: &Credentials,
    first_host_id: u32,
) -> Result<Planned, Reason> {
    let function = &assignment.publication.configuration;
    let runtime = Runtime::find(&configuration.runtime_folder, &function.runtime).ok_or_else(|| {
        let text = format!(
            "The runtime {0} isn't installed. Install it with: ondol runtime install {0}",
            function.runtime
        );
        Reason::new("InvalidRuntime", text)
    })?;
    let task = configuration.code_folder.join(&assignment.publication.code.sha256);
    let contained = configuration.containment == Containment::Container;
    let layers: Vec<PathBuf> =
        function.layers.iter().map(|layer| configuration.code_folder.join(&layer.code.sha256)).collect();
    if !contained && !layers.is_empty() {
        let text = "Layers are mounted at /opt, which needs the container tier. Start the server without --containment process.";
        return Err(Reason::new("InvalidConfiguration", text));
    }
    // The same bytes twice are one layer, where the later one lies.
    let layers: Vec<PathBuf> = layers
        .iter()
        .enumerate()
        .filter(|(place, layer)| !layers[place + 1..].contains(layer))
        .map(|(_, layer)| layer.clone())
        .collect();
    let missing = std::iter::once(&task).chain(&layers).find(|folder| !folder.exists());
    if let Some(missing) = missing {
        let text = format!(
            "The unpacked package {} is missing. Restart the server, which unpacks it again, or upload it anew.",
            missing.display()
        );
        return Err(Reason::new("InvalidZipFileException", text));
    }
    let bootstrap = bootstrap(&runtime, &task, &layers)?;
    let extensions = extensions(&layers)?;
    let run_folder = configuration.run_folder.join(environment.to_string());
    let places = if contained {
        Places::default()
    } else {
        Places {
            task: task.display().to_string(),
            runtime: runtime.root.join("var/runtime").display().to_string(),
            log_socket: run_folder.join(LOG_SOCKET_NAME).display().to_string(),
        }
    };
    let log_stream = LogStream {
        group: function.logging.log_group.clone(),
        name: log_stream(environment, assignment),
        function: assignment.version.function.clone(),
        version: assignment.version.version.clone(),
        function_arn: assignment.function_arn.to_string(),
    };
    let context = Context {
        assignment,
        region: &configuration.region,
        endpoint: &configuration.endpoint,
        credentials,
        log_stream: &log_stream.name,
        places: &places,
    };
    let variables = variables(&context);
    let extension_variables = for_extensions(&variables);
    let share = &assignment.instance;
    let mut groups = vec![
        GroupLimits {
            name: configuration.server_id.clone(),
            cpu_millis: None,
            memory_bytes: configuration.machine_memory_bytes,
            pids: None,
        },
        GroupLimits {
            name: share.id.to_string(),
            cpu_millis: Some(u64::from(share.vcpus) * 1_000),
            memory_bytes: share.memory_mib * MIB,
            pids: None,
        },
        GroupLimits {
            name: environment.to_string(),
            // The kernel takes no group with more than what is around it.
            cpu_millis: Some(function.cpu_millis().min(u64::from(share.vcpus) * 1_000)),
            memory_bytes: u64::from(function.memory_size_mib) * MIB,
            pids: Some(PIDS_MAX),
        },
    ];
    if !configuration.limits {
        groups.clear();
    }
    let (tier, command, working_directory) = if contained {
        let tier = Tier::Container {
            root: runtime.root.clone(),
            mounts: mounts(&runtime, &task, layers, assignment),
            first_host_id,
        };
        (tier, bootstrap.inside, PathBuf::from("/var/task"))
    } else {
        (Tier::Process, bootstrap.outside, task.clone())
    };
    let request = LaunchRequest {
        environment,
        tier,
        hostname: "169-254-100-6".into(),
        command: vec![command.display().to_string()],
        variables,
        extensions: extensions.iter().map(|name| Path::new(EXTENSIONS_FOLDER).join(name)).collect(),
        extension_variables,
        working_directory,
        groups,
        log: if function.is_on_demand() { LogChannel::Frames } else { LogChannel::Socket },
        run_folder,
    };
    Ok(Planned { request, log_stream, extensions })
}

/// Names of the programs in the layers' `extensions` folders, in their order.
fn extensions(layers: &[PathBuf]) -> Result<Vec<String>, Reason> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut names = BTreeSet::new();
    for entry in
        layers.iter().flat_map(|layer| std::fs::read_dir(layer.join("extensions"))).flatten().flatten()
    {
        // A link stays inside its layer; it is followed as the kernel will.
        let executable =
            |found: std::fs::Metadata| found.is_file() && found.permissions().mode() & 0o111 != 0;
        if std::fs::metadata(entry.path()).is_ok_and(executable) {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
        if names.len() > EXTENSIONS_MAX {
            break;
        }
    }
    if names.len() > EXTENSIONS_MAX {
        let text = format!("The layers bring more than {EXTENSIONS_MAX} extensions; no more are started.");
        return Err(Reason::new("FunctionError.TooManyExtensions", text));
    }
    Ok(names.into_iter().collect())
}

/// `2026/11/22/name[$LATEST.PUBLISHED]id`, in the form seen on AWS.
fn log_stream(environment: EnvironmentId, assignment: &EnvironmentAssignment) -> String {
    let today = ondol_wire::time::iso_8601_millis(clock::epoch_millis())[..10].replace('-', "/");
    format!("{today}/{}[{}]{environment}", assignment.version.function, assignment.version.version)
}

struct Bootstrap {
    inside: PathBuf,
    outside: PathBuf,
}

/// The runtime's own program, or the one the function or a layer brings.
fn bootstrap(runtime: &Runtime, task: &Path, layers: &[PathBuf]) -> Result<Bootstrap, Reason> {
    use std::os::unix::fs::PermissionsExt as _;
    if runtime.has_bootstrap() {
        return Ok(Bootstrap {
            inside: "/var/runtime/bootstrap".into(),
            outside: runtime.root.join("var/runtime/bootstrap"),
        });
    }
    let outside = task.join("bootstrap");
    match std::fs::metadata(&outside) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => {
            Ok(Bootstrap { inside: "/var/task/bootstrap".into(), outside })
        }
        Ok(_) => Err(Reason::new(
            "FunctionError.PermissionDenied",
            "/var/task/bootstrap can't be executed. Give it the executable bit in the deployment package.",
        )),
        Err(_) if layers.iter().any(|layer| layer.join("bootstrap").is_file()) => {
            Ok(Bootstrap { inside: "/opt/bootstrap".into(), outside })
        }
        Err(_) => Err(Reason::new(
            "FunctionError.InvalidEntryPoint",
            "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]",
        )),
    }
}

fn mounts(
    runtime: &Runtime,
    task: &Path,
    layers: Vec<PathBuf>,
    assignment: &EnvironmentAssignment,
) -> Vec<Mount> {
    let function = &assignment.publication.configuration;
    let bytes = u64::from(function.ephemeral_storage_mib) * MIB;
    let mut mounts: Vec<Mount> = runtime.mounts().collect();
    mounts.push(Mount::ReadOnly { source: task.to_owned(), target: "/var/task".into() });
    if !layers.is_empty() {
        mounts.push(Mount::Layers { sources: layers, target: "/opt".into() });
    }
    mounts.push(Mount::Scratch { target: "/tmp".into(), bytes, files: bytes / 4_096 });
    // What runtimes read to size themselves, in the words of cgroup v2 whatever the host has.
    let limits = vec![
        (PathBuf::from("fs/cgroup/cpu.max"), format!("{} 100000\n", function.cpu_millis() * 100)),
        (PathBuf::from("fs/cgroup/memory.max"), format!("{}\n", u64::from(function.memory_size_mib) * MIB)),
        (PathBuf::from("fs/cgroup/pids.max"), format!("{PIDS_MAX}\n")),
    ];
    mounts.push(Mount::Files { target: "/sys".into(), files: limits });
    if Path::new("/etc/resolv.conf").exists() {
        mounts.push(Mount::ReadOnly { source: "/etc/resolv.conf".into(), target: "/etc/resolv.conf".into() });
    }
    mounts
}
