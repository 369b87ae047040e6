//! The small single-threaded process that makes contained processes.
//!
//! It owns: the process trees, namespaces, mounts and control groups of execution environments. It must
//! never: run a thread, parse what a function wrote, or know what an invocation is. It dies with its
//! server (its socket closes), and what it made dies with it.

pub mod cgroup;
pub mod channel;
mod container;
mod init;
mod plain;
mod sys;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use ondol_core::identity::EnvironmentId;
use ondol_failpoint::reach;
use ondol_protocol::containment::{
    Exit, LOG_SOCKET_NAME, LaunchRequest, LauncherEvent, LauncherRequest, LogChannel, Tier,
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::cgroup::Groups;
use crate::channel::{receive, send};
use crate::init::Said;

/// One environment that runs.
#[derive(Debug)]
struct Running {
    /// The first process: our init, or the runtime itself in the process tier.
    process: i32,
    /// Where init says how its processes ended, and is told what to do; closed when init is gone.
    status: OwnedFd,
    groups: Groups,
    killed: bool,
    run_folder: std::path::PathBuf,
}

/// Serves requests on the socket until its other side is gone, then ends everything it made.
pub fn serve(socket: &OwnedFd) -> std::io::Result<()> {
    sys::own_session();
    let mut running: BTreeMap<EnvironmentId, Running> = BTreeMap::new();
    loop {
        let ids: Vec<EnvironmentId> = running.keys().copied().collect();
        let ready = wait(socket.as_fd(), &running)?;
        for (id, _) in ids.iter().zip(ready.iter().skip(1)).filter(|(_, ready)| **ready) {
            let said = running.get(id).and_then(|environment| init::read_status(&environment.status));
            let event = match said {
                Some(Said::ProcessEnded(process, exit)) => {
                    let exit = running.get(id).map_or(exit.clone(), |environment| environment.judge(exit));
                    LauncherEvent::ProcessEnded { environment: *id, process, exit }
                }
                said => {
                    let Some(ended) = running.remove(id) else { continue };
                    reach("launcher.before-reap");
                    let (exit, peak_memory_bytes) = ended.reap(said.map(Said::exit));
                    reach("launcher.after-reap");
                    LauncherEvent::Exited { environment: *id, exit, peak_memory_bytes }
                }
            };
            if send(socket, &event, &[]).is_err() {
                break;
            }
        }
        if !ready[0] {
            continue;
        }
        let Ok(Some((request, _))) = receive::<LauncherRequest>(socket) else { break };
        match request {
            LauncherRequest::Launch(request) => launch(socket, &request, &mut running),
            LauncherRequest::Kill { environment } => {
                if let Some(environment) = running.get_mut(&environment) {
                    environment.killed = true;
                    reach("launcher.before-kill");
                    sys::kill_session(environment.process);
                    reach("launcher.after-kill");
                }
            }
            LauncherRequest::StartRuntime { environment } => {
                if let Some(environment) = running.get(&environment) {
                    init::order(&environment.status, &init::Order::Start);
                }
            }
            LauncherRequest::Signal { environment, process, signal } => {
                if let Some(environment) = running.get(&environment) {
                    init::order(&environment.status, &init::Order::Signal(process, signal));
                }
            }
        }
    }
    for environment in running.values() {
        sys::kill_session(environment.process);
    }
    for (_, environment) in running {
        let said = init::read_status(&environment.status);
        environment.reap(said.map(Said::exit));
    }
    Ok(())
}

/// Which of the socket and the environments' status pipes have something to say, in that order.
fn wait(socket: BorrowedFd<'_>, running: &BTreeMap<EnvironmentId, Running>) -> std::io::Result<Vec<bool>> {
    let mut fds = vec![PollFd::new(&socket, PollFlags::IN)];
    fds.extend(running.values().map(|environment| PollFd::new(&environment.status, PollFlags::IN)));
    match poll(&mut fds, None) {
        Ok(_) => Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
        Err(rustix::io::Errno::INTR) => Ok(vec![false; fds.len()]),
        Err(error) => Err(error.into()),
    }
}

fn launch(socket: &OwnedFd, request: &LaunchRequest, running: &mut BTreeMap<EnvironmentId, Running>) {
    let environment = request.environment;
    reach("launcher.before-start");
    let started = start(request).inspect_err(|_| {
        // Left-overs of a folder that cannot be removed are swept at the next start.
        let _ = std::fs::remove_dir_all(&request.run_folder);
    });
    let event = match started {
        Ok((started, fds)) => {
            running.insert(environment, started);
            reach("launcher.after-start");
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            if send(socket, &LauncherEvent::Launched { environment }, &fds).is_ok() {
                return;
            }
            LauncherEvent::Failed { environment, what: "the launcher's socket failed".into() }
        }
        Err(what) => LauncherEvent::Failed { environment, what },
    };
    // A send that fails means the server is gone; the next receive ends the loop.
    let _ = send(socket, &event, &[]);
}

/// What a started environment talks through, on our side: Runtime API, standard output and error, what its
/// extensions write, log.
type Ends = [OwnedFd; 5];

fn start(request: &LaunchRequest) -> Result<(Running, Ends), String> {
    let step = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| format!("{what}: {error}")
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(step("making the Runtime API listener"))?;
    let address = listener.local_addr().map_err(step("reading the Runtime API address"))?;
    let (log, log_inside) = log(request).map_err(step("making the log's channel"))?;
    let (stdout, stdout_inside) = sys::pipe().map_err(step("making a pipe"))?;
    let (stderr, stderr_inside) = sys::pipe().map_err(step("making a pipe"))?;
    let (extensions, extensions_inside) = sys::pipe().map_err(step("making a pipe"))?;
    let address = ("AWS_LAMBDA_RUNTIME_API".to_owned(), address.to_string());
    let with_address = |variables: &[(String, String)]| [variables, std::slice::from_ref(&address)].concat();
    let inherited = log_inside.as_ref().map(AsRawFd::as_raw_fd);
    let mut variables = with_address(&request.variables);
    variables.extend(inherited.map(|fd| ("_LAMBDA_TELEMETRY_LOG_FD".to_owned(), fd.to_string())));
    let runtime = sys::Program::new(&request.command, &variables, &request.working_directory)?;
    let variables = with_address(&request.extension_variables);
    let others = request
        .extensions
        .iter()
        .map(|path| sys::Program::new(&[path.display().to_string()], &variables, &request.working_directory))
        .collect::<Result<Vec<_>, _>>()?;
    let programs = init::Programs { runtime, inherited, extensions: others };
    reach("launcher.before-groups");
    let groups = Groups::create(&request.groups).map_err(step("making the control groups"))?;
    reach("launcher.after-groups");
    let stdio = [stdout_inside.as_fd(), stderr_inside.as_fd(), extensions_inside.as_fd()];
    let started = match &request.tier {
        Tier::Container { root, mounts, first_host_id } => container::start(
            &programs,
            root,
            mounts,
            &request.hostname,
            *first_host_id,
            &request.run_folder,
            stdio,
            &groups,
        ),
        Tier::Process => plain::start(&programs.runtime, inherited, [stdio[0], stdio[1]], &groups),
    };
    match started {
        Ok((process, status)) => {
            let run_folder = request.run_folder.clone();
            let running = Running { process, status, groups, killed: false, run_folder };
            Ok((running, [listener.into(), stdout, stderr, extensions, log]))
        }
        Err(what) => {
            groups.remove();
            Err(what)
        }
    }
}

/// Our side of the log, and the side the runtime inherits, if it does.
fn log(request: &LaunchRequest) -> std::io::Result<(OwnedFd, Option<OwnedFd>)> {
    match request.log {
        LogChannel::Socket => Ok((log_socket(&request.run_folder)?.into(), None)),
        LogChannel::Frames => {
            std::fs::create_dir_all(&request.run_folder)?;
            sys::pipe().map(|(ours, inside)| (ours, Some(inside)))
        }
    }
}

/// The folder is bound into the environment, so the path's length limit is the folder's own: the socket is
/// bound through an open descriptor of the folder, whatever the data folder's path.
fn log_socket(folder: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(folder)?;
    let open = std::fs::File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{LOG_SOCKET_NAME}", open.as_raw_fd());
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    Ok(listener)
}

impl Running {
    /// Who was killed may have been killed by the kernel, for want of memory.
    fn judge(&self, exit: Exit) -> Exit {
        let killed = exit == Exit::Signal(libc::SIGKILL);
        if killed && self.groups.out_of_memory() { Exit::OutOfMemory } else { exit }
    }

    /// Collects an environment that ended: its process, its groups, its folder. `said` are init's last words. Gives
    /// how it ended and the most memory it ever had.
    fn reap(self, said: Option<Exit>) -> (Exit, Option<u64>) {
        sys::kill_session(self.process);
        let waited = sys::wait(self.process);
        let exit = match said {
            _ if self.killed => Exit::Killed,
            // Init itself was killed; so is every process of a group that ran out of memory.
            None if self.groups.out_of_memory() => Exit::OutOfMemory,
            said => self.judge(said.unwrap_or(waited)),
        };
        let peak_memory_bytes = self.groups.peak_memory_bytes();
        self.groups.remove();
        // Left-overs of a folder that cannot be removed are swept at the next start.
        let _ = std::fs::remove_dir_all(&self.run_folder);
        (exit, peak_memory_bytes)
    }
}
