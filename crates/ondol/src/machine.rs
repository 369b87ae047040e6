//! What this machine is.

use std::collections::BTreeSet;
use std::path::Path;

use ondol_control::MachineFacts;
use ondol_core::function::Architecture;
use ondol_runtimes::Runtime;

pub fn facts(runtime_dir: &Path, any_architecture: bool) -> MachineFacts {
    let installed_runtimes: BTreeSet<String> =
        Runtime::all(runtime_dir).into_iter().map(|runtime| runtime.name).collect();
    MachineFacts { architecture: architecture(), any_architecture, installed_runtimes }
}

pub fn architecture() -> Architecture {
    if cfg!(target_arch = "aarch64") { Architecture::Arm64 } else { Architecture::X86_64 }
}

pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Memory of the machine in bytes, from `/proc/meminfo`.
pub fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    kib.map_or(1 << 30, |kib| kib * 1024)
}
