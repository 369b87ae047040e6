//! What this machine is.

use std::collections::BTreeSet;
use std::path::Path;

use ondol_control::MachineFacts;
use ondol_core::capacity::default_pool as default_pool_id;
use ondol_core::function::Architecture;
use ondol_protocol::assignment::InstanceShare;
use ondol_runtimes::Runtime;

pub fn facts(runtime_dir: &Path, any_architecture: bool) -> MachineFacts {
    let installed_runtimes: BTreeSet<String> =
        Runtime::all(runtime_dir).into_iter().map(|runtime| runtime.name).collect();
    MachineFacts {
        architecture: architecture(),
        any_architecture,
        installed_runtimes,
        on_demand_memory_mib: usable_memory_bytes() >> 20,
    }
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
