//! `ondol doctor`: everything a server needs of its machine, and the command that mends what is missing.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use ondol_core::identity::EnvironmentId;
use ondol_launcher::{cgroup, channel};
use ondol_protocol::containment::{
    Exit, GroupLimits, LaunchRequest, LauncherEvent, LauncherRequest, LogChannel, Mount, Tier,
};
use ondol_runtimes::{RECIPES_VERSION, Runtime};
use ondol_store::StoreError;
use serde::Serialize;

use crate::{Doctor, machine, server};

const OPEN_FILES_MIN: u64 = 65_536;
const PROCESSES_MIN: u64 = 32_768;
const FREE_BYTES_MIN: u64 = 1 << 30;
const FREE_FILES_MIN: u64 = 10_000;
const MEMORY_BYTES_MIN: u64 = 4 << 30;
/// `mount_setattr`, which makes whole trees of mounts read-only.
const KERNEL_MIN: (u32, u32) = (5, 12);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Good,
    /// It runs, but not as it should in production.
    Advice,
    Missing,
}

#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub name: &'static str,
    pub verdict: Verdict,
    pub found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

type Check = Result<String, (String, String)>;

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn number(path: &str) -> u64 {
    read(path).parse().unwrap_or_default()
}

/// Looks at everything; changes nothing but for a moment, what it makes to see that it can.
pub fn examine(arguments: &Doctor) -> Vec<Finding> {
    let data_dir = &arguments.address.data_dir;
    let runtime_dir = arguments.runtime_dir.clone().unwrap_or_else(ondol_runtimes::default_folder);
    let runtimes = Runtime::all(&runtime_dir);
    let mut findings = Vec::new();
    let mut add = |name, otherwise, check: Check| {
        findings.push(match check {
            Ok(found) => Finding { name, verdict: Verdict::Good, found, mend: None },
            Err((found, mend)) => Finding { name, verdict: otherwise, found, mend: Some(mend) },
        });
    };
    add("root", Verdict::Missing, root());
    add("kernel", Verdict::Missing, kernel());
    add("control groups", Verdict::Missing, control_groups());
    add("namespaces", Verdict::Missing, namespaces());
    add("overlay file system", Verdict::Missing, overlay());
    let without = if runtimes.is_empty() { Verdict::Missing } else { Verdict::Advice };
    add("runtimes", without, installed(&runtimes));
    add("a contained process", Verdict::Missing, contained(&runtimes));
    add("open files", Verdict::Advice, open_files());
    add("processes", Verdict::Missing, processes());
    add("memory", Verdict::Advice, memory());
    add("swap", Verdict::Advice, swap());
    add("data folder", Verdict::Missing, data_folder(data_dir));
    add("disk", Verdict::Missing, disk(data_dir));
    add("clock", Verdict::Advice, clock());
    add("port", Verdict::Missing, port(SocketAddr::new(arguments.address.listen, arguments.address.port)));
    add("processor", Verdict::Advice, processor());
    add("same-page merging", Verdict::Advice, same_page_merging());
    findings
}

fn root() -> Check {
    if rustix::process::geteuid().is_root() {
        return Ok("this is root".into());
    }
    Err(("not root, so no namespaces and control groups can be made".into(), "sudo ondol up".into()))
}

fn kernel() -> Check {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or_default());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let found = format!("Linux {release}, {}", machine::architecture());
    if version >= KERNEL_MIN {
        return Ok(found);
    }
    Err((found, format!("use Linux {}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1)))
}

fn control_groups() -> Check {
    let hierarchy = cgroup::Hierarchy::detect().map_err(|error| {
        let mend =
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup   # or boot with systemd.unified_cgroup_hierarchy=1";
        (error.to_string(), mend.into())
    })?;
    let found = match hierarchy {
        cgroup::Hierarchy::V1 { .. } => "version 1 with cpu, memory and pids",
        cgroup::Hierarchy::V2 { .. } => "version 2 with cpu, memory and pids",
    };
    if !rustix::process::geteuid().is_root() {
        return Ok(format!("{found}; not tried without root"));
    }
    let name = format!("doctor-{}", std::process::id());
    let prepared = cgroup::prepare();
    let limits = [GroupLimits { name, cpu_millis: Some(1_000), memory_bytes: 1 << 26, pids: Some(16) }];
    match prepared.and_then(|()| cgroup::Groups::create(&limits)) {
        Ok(groups) => {
            groups.remove();
            Ok(format!("{found}; a group with limits can be made"))
        }
        Err(error) => Err((
            format!("{found}, but no group can be made: {error}"),
            "run Ondol on the host, or its container privileged with the host's control groups (docker run --privileged --cgroupns=host)".into(),
        )),
    }
}

fn namespaces() -> Check {
    let missing: Vec<&str> = ["mnt", "pid", "ipc", "uts", "user", "cgroup", "net"]
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    if !missing.is_empty() {
        return Err((
            format!("the kernel lacks {}", missing.join(", ")),
            "use a kernel with all namespaces".into(),
        ));
    }
    if number("/proc/sys/user/max_user_namespaces") == 0 {
        return Err((
            "no user namespace may be made".into(),
            "sysctl -w user.max_user_namespaces=65536".into(),
        ));
    }
    Ok("mount, process, IPC, UTS, user, cgroup and network".into())
}

fn overlay() -> Check {
    if read("/proc/filesystems").lines().any(|line| line.ends_with("\toverlay") || line.trim() == "overlay") {
        return Ok("there, for functions with several layers".into());
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if read(&format!("/lib/modules/{release}/modules.dep")).contains("/overlay.ko") {
        return Ok("a module, which the kernel loads when it is first needed".into());
    }
    Err(("missing; functions with several layers can't start".into(), "modprobe overlay".into()))
}

fn installed(runtimes: &[Runtime]) -> Check {
    if runtimes.is_empty() {
        return Err(("none".into(), "ondol runtime install python3.13 nodejs24.x provided.al2023".into()));
    }
    let names = |of: &[&Runtime], between| {
        of.iter().map(|runtime| runtime.name.as_str()).collect::<Vec<_>>().join(between)
    };
    let old: Vec<&Runtime> =
        runtimes.iter().filter(|runtime| runtime.recipes_version != RECIPES_VERSION).collect();
    if !old.is_empty() {
        let found = format!("made by an older version: {}", names(&old, ", "));
        return Err((found, format!("ondol runtime install {}", names(&old, " "))));
    }
    Ok(names(&runtimes.iter().collect::<Vec<_>>(), ", "))
}

/// Starts a real contained process, as for a function, and sees it end well.
fn contained(runtimes: &[Runtime]) -> Check {
    let failed =
        |error: String| (error, "see the lines above; what they don't name is worth a report".to_owned());
    if !rustix::process::geteuid().is_root() {
        return Err(("not tried without root".into(), "sudo ondol doctor".into()));
    }
    let Some(runtime) = runtimes.first() else {
        return Err(("not tried without a runtime".into(), "ondol runtime install provided.al2023".into()));
    };
    let name = format!("doctor-{}", std::process::id());
    let run_folder = std::env::temp_dir().join(format!("ondol-{name}"));
    let (ours, theirs) = channel::pair().map_err(|error| failed(error.to_string()))?;
    let mut launcher = server::start_launcher(theirs).map_err(|error| failed(format!("{error:#}")))?;
    let mut mounts: Vec<Mount> = runtime.mounts().collect();
    mounts.push(Mount::Scratch { target: "/tmp".into(), bytes: 1 << 20, files: 16 });
    let request = LaunchRequest {
        environment: EnvironmentId(1),
        tier: Tier::Container { root: runtime.root.clone(), mounts, first_host_id: 1_400_000_000 },
        hostname: "doctor".into(),
        command: vec!["/bin/sh".into(), "-c".into(), "exit 0".into()],
        variables: vec![("PATH".into(), "/usr/bin:/bin".into())],
        extensions: Vec::new(),
        extension_variables: Vec::new(),
        working_directory: "/".into(),
        groups: vec![GroupLimits { name, cpu_millis: Some(1_000), memory_bytes: 1 << 26, pids: Some(16) }],
        log: LogChannel::Socket,
        run_folder: run_folder.clone(),
    };
    let outcome = channel::send(&ours, &LauncherRequest::Launch(Box::new(request)), &[])
        .map_err(|error| error.to_string())
        .and_then(|()| {
            loop {
                match channel::receive::<LauncherEvent>(&ours).map_err(|error| error.to_string())? {
                    // Its ends stay open until it has ended.
                    Some((LauncherEvent::Launched { .. }, _ends)) => {}
                    Some((LauncherEvent::Exited { exit: Exit::Code(0), .. }, _)) => break Ok(()),
                    Some((LauncherEvent::Failed { what, .. }, _)) => break Err(what),
                    Some((other, _)) => break Err(format!("{other:?}")),
                    None => break Err("the launcher ended".into()),
                }
            }
        });
    drop(ours);
    // It ends with its socket.
    let _ = launcher.wait();
    let _ = fs::remove_dir_all(run_folder);
    outcome.map(|()| format!("one of {} started and ended", runtime.name)).map_err(failed)
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if limit >= OPEN_FILES_MIN {
        return Ok(format!("at most {limit} each process"));
    }
    let mend = format!("ulimit -Hn {OPEN_FILES_MIN}   # in a systemd unit: LimitNOFILE={OPEN_FILES_MIN}");
    Err((format!("at most {limit}; many execution environments need more"), mend))
}

fn processes() -> Check {
    let (ids, threads) = (number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max"));
    let least = ids.min(threads);
    if least >= PROCESSES_MIN {
        return Ok(format!("at most {least}"));
    }
    let mend = format!("sysctl -w kernel.pid_max={PROCESSES_MIN} kernel.threads-max={PROCESSES_MIN}");
    Err((format!("at most {least}"), mend))
}

fn memory() -> Check {
    let bytes = machine::memory_bytes();
    let found = format!("{} MiB", bytes >> 20);
    if bytes >= MEMORY_BYTES_MIN {
        return Ok(found);
    }
    Err((found, "functions of Lambda Managed Instances have at least 2048 MB each: use a machine with more, or fewer execution environments".into()))
}

fn swap() -> Check {
    let text = read("/proc/swaps");
    if text.lines().count() <= 1 {
        return Ok("off".into());
    }
    Err((
        "on: memory of functions can reach the disk, and their limits bite later".into(),
        "swapoff -a".into(),
    ))
}

fn data_folder(folder: &Path) -> Check {
    let shown = folder.display();
    let existing = folder.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"));
    if rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_err() {
        return Err((
            format!("{shown} can't be written"),
            format!(
                "mount -o remount,rw … or give another folder with --data-dir; {} must be writable",
                existing.display()
            ),
        ));
    }
    if !folder.join("ondol.db").exists() {
        return Ok(format!("{shown}: nothing there yet"));
    }
    match ondol_store::backup::snapshot(folder) {
        Ok(documents) => Ok(format!("{shown}: {} documents, each as it was written", documents.len())),
        Err(error @ StoreError::OtherSchema { found, known, .. }) if found < known => Ok(error.to_string()),
        Err(error @ StoreError::Damaged { .. }) => Err((
            error.to_string(),
            format!("ondol restore FILE --data-dir {shown}   # a file of `ondol backup`"),
        )),
        Err(error) => {
            Err((error.to_string(), "sudo ondol doctor, or the version that wrote the folder".into()))
        }
    }
}

fn disk(folder: &Path) -> Check {
    let existing = folder.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"));
    let found =
        rustix::fs::statvfs(existing).map_err(|error| (error.to_string(), "mount the data folder".into()))?;
    let free = found.f_bavail * found.f_frsize;
    // Some file systems count no files.
    if free >= FREE_BYTES_MIN && (found.f_favail > FREE_FILES_MIN || found.f_files == 0) {
        return Ok(format!("{} MiB free", free >> 20));
    }
    Err((
        format!("{} MiB and {} files free", free >> 20, found.f_favail),
        format!("free some space below {}, or move it with --data-dir", existing.display()),
    ))
}

fn clock() -> Check {
    let now = ondol_observe::clock::epoch_millis();
    let shown = ondol_wire::time::iso_8601_millis(now);
    let newest = std::env::current_exe().and_then(fs::metadata).and_then(|found| found.modified());
    if newest.is_ok_and(|at| at.elapsed().is_err()) {
        return Err((
            format!(
                "{shown} is before this program was made; signatures are refused when clocks differ by 5 minutes"
            ),
            "timedatectl set-ntp true".into(),
        ));
    }
    let synchronised = Path::new("/run/systemd/timesync/synchronized").exists();
    if Path::new("/run/systemd/timesync").exists() && !synchronised {
        return Err((format!("{shown}, not synchronised"), "timedatectl set-ntp true".into()));
    }
    Ok(shown)
}

fn port(address: SocketAddr) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => Ok(format!("{address} is free")),
        Err(_) if server::answers(address) => Ok(format!("a server of Ondol answers at {address}")),
        Err(error) => Err((format!("{address}: {error}"), "ondol up --port N   # another port".into())),
    }
}

fn processor() -> Check {
    let folder = Path::new("/sys/devices/system/cpu/vulnerabilities");
    let open: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| fs::read_to_string(entry.path()).is_ok_and(|text| text.starts_with("Vulnerable")))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    if !open.is_empty() {
        return Err((
            format!("without mitigation of {}: functions may read what isn't theirs", open.join(", ")),
            "boot without mitigations=off, with the newest microcode and kernel".into(),
        ));
    }
    Ok(format!("{} CPUs, no known hole left open", machine::cpus()))
}

fn same_page_merging() -> Check {
    if number("/sys/kernel/mm/ksm/run") == 1 {
        return Err((
            "on: functions can find out what others hold in memory".into(),
            "echo 0 > /sys/kernel/mm/ksm/run".into(),
        ));
    }
    Ok("off".into())
}
