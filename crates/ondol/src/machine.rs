//! What this machine is.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ondol_control::{Launch, MachineFacts};
use ondol_core::capacity::default_pool as default_pool_id;
use ondol_core::function::{Architecture, Reason};
use ondol_core::signals::MachineSignals;
use ondol_protocol::assignment::InstanceShare;
use ondol_runtimes::Runtime;
use ondol_store::{Store, keys};

/// How long a folder must have been left alone for what was read of it to count.
const SETTLED: Duration = Duration::from_secs(1);

/// Gives the machine's facts as they are now, for every look of the control loop. Only the folder of the runtimes
/// changes, and it is read when it did.
pub fn facts(runtime_dir: PathBuf, any_architecture: bool) -> impl Fn() -> MachineFacts {
    let on_demand_memory_mib = usable_memory_bytes() >> 20;
    let read: Mutex<(Option<SystemTime>, BTreeSet<String>)> = Mutex::default();
    move || {
        // A change of a moment ago may have another behind it with the same time.
        let settled = |changed: &SystemTime| changed.elapsed().is_ok_and(|ago| ago >= SETTLED);
        let changed = fs::metadata(&runtime_dir).and_then(|found| found.modified()).ok().filter(settled);
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.0 != changed || changed.is_none() {
            *read = (changed, Runtime::all(&runtime_dir).into_iter().map(|runtime| runtime.name).collect());
        }
        MachineFacts {
            architecture: architecture(),
            any_architecture,
            installed_runtimes: read.1.clone(),
            on_demand_memory_mib,
            // The agent measures; the control loop puts it in.
            signals: MachineSignals::default(),
        }
    }
}

/// Brings instances up. Here they are shares of this one machine: there is nothing to wait for, and a limit on how
/// many it is shared out to.
pub fn launches(store: Store, instances_max: u32) -> Launch {
    Box::new(move |_| {
        let instances_max = instances_max as usize;
        if store.scan(keys::INSTANCES, None, instances_max).len() < instances_max {
            return Ok(());
        }
        let text = format!(
            "This machine is shared out to {instances_max} instances already, as many as --instances-max allows."
        );
        Err(Reason::new("InsufficientCapacity", text))
    })
}

pub fn architecture() -> Architecture {
    if cfg!(target_arch = "aarch64") { Architecture::Arm64 } else { Architecture::X86_64 }
}

pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The share of the machine's memory that all execution environments together may take, in percent.
const MEMORY_PERCENT: u64 = 90;

/// What execution environments may take of the machine's memory.
pub fn usable_memory_bytes() -> u64 {
    memory_bytes() / 100 * MEMORY_PERCENT
}

/// The machine as the place where Lambda (default) functions run.
pub fn default_pool(region: &str) -> InstanceShare {
    InstanceShare {
        id: default_pool_id(),
        availability_zone: format!("{region}a"),
        vcpus: u32::try_from(cpus()).unwrap_or(u32::MAX),
        memory_mib: usable_memory_bytes() >> 20,
    }
}

/// Memory of the machine in bytes, from `/proc/meminfo`.
pub fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    kib.map_or(1 << 30, |kib| kib * 1024)
}
