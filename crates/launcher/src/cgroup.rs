//! Control groups, version 1 and 2: the same groups, written where the host has them.
//!
//! All of ours lie below one group named `ondol`; nothing outside it is ever touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ondol_protocol::containment::GroupLimits;

const PERIOD_MICROS: u64 = 100_000;
const OURS: &str = "ondol";
/// Where the other processes of a container go.
const BESIDE: &str = "beside-ondol";

/// Where the host keeps the controllers we need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// One mount for each controller: cpu, memory, pids; and what counts CPU, which may share that of cpu.
    V1 {
        cpu: PathBuf,
        memory: PathBuf,
        pids: PathBuf,
        accounting: PathBuf,
    },
    V2 {
        root: PathBuf,
    },
}

impl Hierarchy {
    /// Reads `/proc/self/mountinfo`.
    pub fn detect() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/self/mountinfo")?;
        Self::from_mounts(&text, |path| fs::read_to_string(path).unwrap_or_default()).ok_or_else(|| {
            io::Error::other("this host mounts neither cgroup v2 nor cgroup v1 with cpu, memory and pids")
        })
    }

    fn from_mounts(mountinfo: &str, read: impl Fn(&Path) -> String) -> Option<Self> {
        let mut v1: [Option<PathBuf>; 4] = [const { None }; 4];
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount_point) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or(""));
            if kind == Some("cgroup2") {
                let controllers = read(&mount_point.join("cgroup.controllers"));
                let has = |name| controllers.split_whitespace().any(|controller| controller == name);
                if has("cpu") && has("memory") && has("pids") {
                    v2 = Some(Self::V2 { root: mount_point });
                }
            } else if kind == Some("cgroup") {
                for (place, name) in ["cpu", "memory", "pids", "cpuacct"].iter().enumerate() {
                    if options.split(',').any(|option| option == *name) {
                        v1[place] = Some(mount_point.clone());
                    }
                }
            }
        }
        let [cpu, memory, pids, accounting] = v1;
        v2.or_else(|| {
            let cpu = cpu?;
            // Without it nothing is counted, and everything else works.
            let accounting = accounting.unwrap_or_else(|| cpu.clone());
            Some(Self::V1 { cpu, memory: memory?, pids: pids?, accounting })
        })
    }

    /// Every group file system of ours, outermost first.
    fn roots(&self) -> Vec<PathBuf> {
        let roots = match self {
            Self::V1 { cpu, memory, pids, accounting } if cpu == accounting => vec![cpu, memory, pids],
            Self::V1 { cpu, memory, pids, accounting } => vec![cpu, memory, pids, accounting],
            Self::V2 { root } => vec![root],
        };
        roots.into_iter().map(|root| root.join(OURS)).collect()
    }
}

/// The most memory a control group of ours ever had, where the kernel counts that. `path` is below our own group.
pub fn peak_memory_bytes(path: &str) -> Option<u64> {
    static ROOT: LazyLock<Option<PathBuf>> = LazyLock::new(|| match Hierarchy::detect().ok()? {
        Hierarchy::V1 { memory, .. } => Some(memory.join(OURS)),
        Hierarchy::V2 { root } => Some(root.join(OURS)),
    });
    peak_bytes(&ROOT.as_ref()?.join(path))
}

/// What a control group has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Since it was made.
    pub cpu_micros: u64,
    /// Now, without file cache that the kernel can take back.
    pub memory_bytes: u64,
    /// The part of the last ten seconds in which something in it waited for a CPU, in hundredths of a percent; only
    /// where the kernel counts that for control groups, which version 1 does not.
    pub cpu_pressure_hundredths: Option<u32>,
}

/// The host's, which does not change while we run.
static HIERARCHY: LazyLock<Option<Hierarchy>> = LazyLock::new(|| Hierarchy::detect().ok());

/// What a control group of ours has used; none where it is gone. `path` is below our own group.
pub fn usage(path: &str) -> Option<Usage> {
    HIERARCHY.as_ref()?.usage(path)
}

/// One of the processes in a control group of ours.
pub fn a_process(path: &str) -> Option<u32> {
    let root = HIERARCHY.as_ref()?.roots().into_iter().next()?;
    fs::read_to_string(root.join(path).join("cgroup.procs")).ok()?.lines().next()?.parse().ok()
}

/// `some avg10=1.25 …`, in hundredths.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn pressure(text: &str) -> Option<u32> {
    let some = text.lines().find_map(|line| line.strip_prefix("some avg10="))?;
    let percent: f64 = some.split(' ').next()?.parse().ok()?;
    Some((percent * 100.0).round() as u32)
}

/// The number after a word, in a file of such lines.
fn word(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// What the kernel takes back before it kills: copies of files, however often they were read. What is in `/tmp` is not
/// among them.
fn file_cache(stat: &str, prefix: &str) -> Option<u64> {
    let of = |list: &str| word(stat, &format!("{prefix}{list}"));
    Some(of("inactive_file")? + of("active_file")?)
}

/// Version 1's name for it, or version 2's.
fn peak_bytes(group: &Path) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok();
    read("memory.max_usage_in_bytes").or_else(|| read("memory.peak"))
}

/// The control groups of one environment: a chain of folders in each hierarchy, or none at all.
#[derive(Debug)]
pub struct Groups {
    /// The innermost folder in each hierarchy.
    innermost: Vec<PathBuf>,
    /// How many folders of a chain are ours to remove.
    depth: usize,
    /// Where the kernel counts what it killed for want of memory.
    memory_events: &'static str,
}

impl Groups {
    /// Makes the whole chain with its limits. Outer groups may exist; their limits are written again.
    /// Without limits there are no groups, as for a server that may not make any.
    pub fn create(limits: &[GroupLimits]) -> io::Result<Self> {
        if limits.is_empty() {
            return Ok(Self { innermost: Vec::new(), depth: 0, memory_events: "" });
        }
        let hierarchy = Hierarchy::detect()?;
        let memory_events = match hierarchy {
            Hierarchy::V1 { .. } => "memory.oom_control",
            Hierarchy::V2 { .. } => "memory.events",
        };
        let mut groups = Self { innermost: Vec::new(), depth: limits.len(), memory_events };
        // A chain that could not be made whole is not left half-made.
        groups.make(&hierarchy, limits).inspect_err(|_| groups.remove())?;
        Ok(groups)
    }

    fn make(&mut self, hierarchy: &Hierarchy, limits: &[GroupLimits]) -> io::Result<()> {
        for root in hierarchy.roots() {
            let mut folder = root;
            make(&folder)?;
            for limit in limits {
                if let Hierarchy::V2 { .. } = hierarchy {
                    if let Some(parent) = folder.parent() {
                        write(parent, "cgroup.subtree_control", "+cpu +memory +pids")?;
                    }
                    write(&folder, "cgroup.subtree_control", "+cpu +memory +pids")?;
                }
                folder.push(&limit.name);
                make(&folder)?;
                hierarchy.limit(&folder, limit)?;
            }
            self.innermost.push(folder);
        }
        Ok(())
    }

    /// Moves a process into the innermost group.
    pub fn attach(&self, process: i32) -> io::Result<()> {
        self.innermost.iter().try_for_each(|folder| write(folder, "cgroup.procs", &process.to_string()))
    }

    /// Whether the kernel killed something in the group for want of memory.
    pub fn out_of_memory(&self) -> bool {
        self.innermost.iter().any(|folder| {
            let text = fs::read_to_string(folder.join(self.memory_events)).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
        })
    }

    /// The most memory the innermost group ever had.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        self.innermost.iter().find_map(|folder| peak_bytes(folder))
    }

    /// Ends what is left in the innermost group and removes it, and outer ones that are empty now.
    pub fn remove(&self) {
        for mut folder in self.innermost.clone() {
            empty_and_remove(&folder);
            for _ in 1..self.depth {
                folder.pop();
                // Busy means another environment uses it.
                if fs::remove_dir(&folder).is_err() {
                    break;
                }
            }
        }
    }
}

impl Hierarchy {
    fn usage(&self, path: &str) -> Option<Usage> {
        let text = |root: &Path, file: &str| fs::read_to_string(root.join(OURS).join(path).join(file)).ok();
        let number = |root: &Path, file: &str| text(root, file)?.trim().parse::<u64>().ok();
        let mut cpu_pressure_hundredths = None;
        let (cpu_micros, memory, cache) = match self {
            Self::V1 { accounting, memory, .. } => {
                let nanos = number(accounting, "cpuacct.usage").unwrap_or(0);
                let cache = file_cache(&text(memory, "memory.stat")?, "total_")?;
                (nanos / 1_000, number(memory, "memory.usage_in_bytes")?, cache)
            }
            Self::V2 { root } => {
                let cache = file_cache(&text(root, "memory.stat")?, "")?;
                cpu_pressure_hundredths = text(root, "cpu.pressure").as_deref().and_then(pressure);
                (word(&text(root, "cpu.stat")?, "usage_usec")?, number(root, "memory.current")?, cache)
            }
        };
        Some(Usage { cpu_micros, memory_bytes: memory.saturating_sub(cache), cpu_pressure_hundredths })
    }

    fn limit(&self, folder: &Path, limit: &GroupLimits) -> io::Result<()> {
        let memory = limit.memory_bytes.to_string();
        match self {
            Self::V1 { cpu, memory: memory_root, .. } => {
                if let (Some(millis), true) = (limit.cpu_millis, folder.starts_with(cpu)) {
                    write(folder, "cpu.cfs_period_us", &PERIOD_MICROS.to_string())?;
                    write(folder, "cpu.cfs_quota_us", &quota(millis).to_string())?;
                    write(folder, "cpu.shares", &(millis * 1_024 / 1_000).max(2).to_string())?;
                }
                if folder.starts_with(memory_root) {
                    write(folder, "memory.limit_in_bytes", &memory)?;
                }
                if let (Some(pids), true) = (limit.pids, folder.join("pids.max").exists()) {
                    write(folder, "pids.max", &pids.to_string())?;
                }
            }
            Self::V2 { .. } => {
                if let Some(millis) = limit.cpu_millis {
                    write(folder, "cpu.max", &format!("{} {PERIOD_MICROS}", quota(millis)))?;
                    write(folder, "cpu.weight", &(millis / 10).clamp(1, 10_000).to_string())?;
                }
                write(folder, "memory.max", &memory)?;
                if folder.join("memory.swap.max").exists() {
                    write(folder, "memory.swap.max", "0")?;
                }
                if let Some(pids) = limit.pids {
                    write(folder, "pids.max", &pids.to_string())?;
                }
            }
        }
        Ok(())
    }
}

/// Makes room for groups below the root. Version 2 gives controllers only to the children of a group without
/// processes of its own; the real root is exempt, but in a container the root is a group like any other, with
/// the container's processes in it. They move into a group beside ours.
pub fn prepare() -> io::Result<()> {
    let Hierarchy::V2 { root } = Hierarchy::detect()? else { return Ok(()) };
    let enable = || write(&root, "cgroup.subtree_control", "+cpu +memory +pids");
    match enable() {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let beside = root.join(BESIDE);
            make(&beside)?;
            for process in fs::read_to_string(root.join("cgroup.procs"))?.lines() {
                // One that ended meanwhile needs no place; one that may not move shows in the next line.
                let _ = write(&beside, "cgroup.procs", process);
            }
            enable()
        }
        other => other,
    }
}

fn quota(cpu_millis: u64) -> u64 {
    cpu_millis * PERIOD_MICROS / 1_000
}

/// Ends whatever an earlier server of this name left behind, and removes its groups.
pub fn sweep(server: &str) -> io::Result<()> {
    for root in Hierarchy::detect()?.roots() {
        let top = root.join(server);
        let mut folders = vec![top.clone()];
        let mut place = 0;
        while place < folders.len() {
            let entries = fs::read_dir(&folders[place]).into_iter().flatten().flatten();
            folders.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
            place += 1;
        }
        for folder in folders.iter().rev() {
            empty_and_remove(folder);
        }
    }
    Ok(())
}

fn empty_and_remove(folder: &Path) {
    for _ in 0..500 {
        let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        processes.lines().filter_map(|line| line.parse().ok()).for_each(crate::sys::kill);
        if fs::remove_dir(folder).is_ok() || !folder.exists() {
            return;
        }
        // A killed process leaves its group when the kernel is done with it; version 1 has no event for that.
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(named(folder, &error)),
        _ => Ok(()),
    }
}

fn write(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = folder.join(file);
    fs::write(&path, value).map_err(|error| named(&path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      40 31 0:37 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      42 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_host_s_layout_is_recognised() {
        let hybrid = Hierarchy::from_mounts(V1, |_| "hugetlb".into()).unwrap();
        assert!(matches!(&hybrid, Hierarchy::V1 { memory, .. } if memory.ends_with("memory")), "{hybrid:?}");
        assert_eq!(hybrid.roots().len(), 3, "nothing counts CPU there");
        let beside = V1.to_owned() + "38 31 0:38 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n";
        let beside = Hierarchy::from_mounts(&beside, |_| String::new()).unwrap();
        assert!(beside.roots().contains(&"/sys/fs/cgroup/cpuacct/ondol".into()), "{beside:?}");
        let shared = Hierarchy::from_mounts(&V1.replace("rw,cpu\n", "rw,cpu,cpuacct\n"), |_| String::new());
        assert_eq!(shared.unwrap().roots().len(), 3);
        let unified = "25 1 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let v2 = Hierarchy::from_mounts(unified, |_| "cpuset cpu io memory pids".into());
        assert_eq!(v2, Some(Hierarchy::V2 { root: "/sys/fs/cgroup".into() }));
        assert_eq!(Hierarchy::from_mounts(unified, |_| "hugetlb".into()), None);
    }

    #[test]
    fn v2_usage_is_read_in_its_own_words() {
        let root = std::env::temp_dir().join(format!("ondol-cgroup-usage-{}", std::process::id()));
        let folder = root.join("ondol/s/i/e");
        fs::create_dir_all(&folder).unwrap();
        let hierarchy = Hierarchy::V2 { root: root.clone() };
        assert_eq!(hierarchy.usage("s/i/e"), None);
        fs::write(folder.join("cpu.stat"), "usage_usec 1500\nuser_usec 1000\n").unwrap();
        fs::write(folder.join("memory.current"), "5000\n").unwrap();
        fs::write(folder.join("memory.stat"), "anon 1\ninactive_file 2000\nactive_file 500\n").unwrap();
        let mut usage = Usage { cpu_micros: 1_500, memory_bytes: 2_500, cpu_pressure_hundredths: None };
        assert_eq!(hierarchy.usage("s/i/e"), Some(usage), "a kernel without pressure says nothing of it");
        fs::write(
            folder.join("cpu.pressure"),
            "some avg10=12.34 avg60=1.00 avg300=0.00 total=9\nfull avg10=0.00\n",
        )
        .unwrap();
        usage.cpu_pressure_hundredths = Some(1_234);
        assert_eq!(hierarchy.usage("s/i/e"), Some(usage));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn v2_limits_are_written_in_its_own_words() {
        let folder = std::env::temp_dir().join(format!("ondol-cgroup-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let hierarchy = Hierarchy::V2 { root: folder.clone() };
        let limit =
            GroupLimits { name: "e".into(), cpu_millis: Some(1_500), memory_bytes: 1 << 31, pids: Some(64) };
        hierarchy.limit(&folder, &limit).unwrap();
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(
            (read("cpu.max"), read("memory.max"), read("pids.max")),
            ("150000 100000".into(), "2147483648".into(), "64".into())
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
