//! `cargo xtask mutants-core`: plants bugs in the decisions, one at a time, and runs worlds by chance until one breaks an
//! invariant. A bug that none finds means that the simulator proves less than it says.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::prepare::{say, target};
use crate::shell::{repository, run_quietly};

/// Worlds that a bug may hide in at most.
const SEEDS: u64 = 600;

/// A bug: what it does, where, and the words it changes.
struct Mutant {
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "an assignment of a control loop that is not in charge any more is followed",
        file: "crates/protocol/src/assignment.rs",
        from: "let is_new = generation >= self.0;",
        to: "let is_new = true;",
    },
    Mutant {
        name: "a timeout frees its slot",
        file: "crates/core/src/slots.rs",
        from: "out.push(Effect::TimedOut { request });",
        to: "out.push(Effect::TimedOut { request }); self.timers.remove(&(stuck_at, request)); self.holders.remove(&request); out.push(Effect::SlotReleased);",
    },
    Mutant {
        name: "MaxVCpuCount is not looked at",
        file: "crates/core/src/capacity/instances.rs",
        from: "let left = settings.scaling.max_vcpu_count.saturating_sub(used);",
        to: "let left = u32::MAX - used;",
    },
    Mutant {
        name: "instances that are being launched do not count against MaxVCpuCount",
        file: "crates/core/src/capacity/fleet.rs",
        from: "let is_up = matches!(instance.state, InstanceState::Launching | InstanceState::Running);",
        to: "let is_up = matches!(instance.state, InstanceState::Running);",
    },
    Mutant {
        name: "environments that drain are not counted on their instance",
        file: "crates/core/src/capacity/fleet.rs",
        from: "if state == State::Gone {",
        to: "if state == State::Gone || state == State::Draining {",
    },
    Mutant {
        name: "an instance keeps no vCPU for itself",
        file: "crates/core/src/place.rs",
        from: "pub const OVERHEAD_VCPUS: u32 = 1;",
        to: "pub const OVERHEAD_VCPUS: u32 = 0;",
    },
    Mutant {
        name: "memory is not looked at when an instance is chosen",
        file: "crates/core/src/place.rs",
        from: "filter(|(_, memory, _)| *memory >= need.memory_mib)",
        to: "filter(|_| true)",
    },
    Mutant {
        name: "the gate lets one more in than there are slots",
        file: "crates/core/src/gate.rs",
        from: "self.in_flight < self.limit && self.hot.is_none()",
        to: "self.in_flight <= self.limit && self.hot.is_none()",
    },
    Mutant {
        name: "the gate forgets that slots were given back",
        file: "crates/core/src/gate.rs",
        from: "self.count(number, view.in_flight - 1);",
        to: "",
    },
    Mutant {
        name: "an environment that drains is still chosen",
        file: "crates/core/src/gate.rs",
        from: "Event::Closed { environment } => self.remove(*environment),",
        to: "Event::Closed { .. } => {}",
    },
    Mutant {
        name: "load that goes away takes the minimum with it",
        file: "crates/core/src/capacity/versions.rs",
        from: "            min: minimum,\n            max: version.scaling.max.unwrap_or(u32::MAX),",
        to: "            min: 0,\n            max: version.scaling.max.unwrap_or(u32::MAX),",
    },
    Mutant {
        name: "MaxExecutionEnvironments is not looked at",
        file: "crates/core/src/capacity/versions.rs",
        from: "max: version.scaling.max.unwrap_or(u32::MAX),",
        to: "max: u32::MAX,",
    },
    Mutant {
        name: "instances are never replaced",
        file: "crates/core/src/capacity/instances.rs",
        from: "if at <= self.now {",
        to: "if at.0 == u64::MAX {",
    },
    Mutant {
        name: "environments are drained before others are ready in their place",
        file: "crates/core/src/capacity/environments.rs",
        from: "let spare = count.ready.saturating_sub(wanted).min(count.leaving);",
        to: "let spare = count.leaving;",
    },
    Mutant {
        name: "a version is Active before its environments are ready",
        file: "crates/core/src/capacity/versions.rs",
        from: "if count.ready >= enough.max(minimum) {",
        to: "if count.running >= enough.max(minimum) {",
    },
    Mutant {
        name: "zones that a fault left uneven stay so",
        file: "crates/core/src/capacity/environments.rs",
        from: "if most > least + 1 {",
        to: "if most > least + 1_000 {",
    },
    Mutant {
        name: "a roll-over at the cap fills up what it makes way for",
        file: "crates/core/src/capacity/versions.rs",
        from: "if let Err(shortage) = self.fill(version, serving, minimum, &why) {",
        to: "if let Err(shortage) = self.fill(version, serving, target, &why) {",
    },
    Mutant {
        name: "what has just ended is tried again without waiting, and is never given up",
        file: "crates/core/src/capacity/versions.rs",
        from: "if is_new && !shortage.passes {",
        to: "if false {",
    },
];

pub fn mutants() -> Result<()> {
    let folder = target().join("mutants");
    copy_rooms(&folder)?;
    let mut missed = Vec::new();
    say("without a bug");
    let Found { seeds: None, .. } = worlds(&folder, SEEDS)? else {
        bail!("an invariant breaks without any bug")
    };
    for mutant in MUTANTS {
        let path = folder.join(mutant.file);
        let text = std::fs::read_to_string(&path).with_context(|| mutant.file.to_owned())?;
        if text.matches(mutant.from).count() != 1 {
            bail!("{}: its words are not there once, in {}; plant it anew", mutant.name, mutant.file);
        }
        std::fs::write(&path, text.replacen(mutant.from, mutant.to, 1))?;
        let found = worlds(&folder, SEEDS);
        std::fs::write(&path, text)?;
        match found? {
            Found { seeds: Some(seeds), word } => {
                println!("found after {seeds:>4} worlds: {} ({word})", mutant.name)
            }
            Found { seeds: None, .. } => {
                println!("NOT FOUND in {SEEDS} worlds: {}", mutant.name);
                missed.push(mutant.name);
            }
        }
    }
    if !missed.is_empty() {
        bail!("{} of {} planted bugs were not found", missed.len(), MUTANTS.len());
    }
    println!("{0} of {0} planted bugs were found", MUTANTS.len());
    Ok(())
}

/// The rooms that decide and the simulator, in a workspace of their own: what is planted never touches the checkout.
fn copy_rooms(folder: &Path) -> Result<()> {
    let root = repository();
    for room in ["crates/core", "crates/protocol", "sim"] {
        let to = folder.join(room);
        if to.exists() {
            std::fs::remove_dir_all(&to)?;
        }
        copy(&root.join(room), &to)?;
    }
    let manifest = std::fs::read_to_string(root.join("Cargo.toml"))?;
    let (Some(begin), Some(end)) = (manifest.find("members = ["), manifest.find("# What users copy")) else {
        bail!("Cargo.toml lists no members");
    };
    let members = "members = [\"crates/core\", \"crates/protocol\", \"sim\"]\n";
    std::fs::write(
        folder.join("Cargo.toml"),
        format!("{}{members}{}", &manifest[..begin], &manifest[end..]),
    )?;
    std::fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    Ok(())
}

fn copy(from: &Path, to: &PathBuf) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &place)?;
        } else {
            std::fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

/// After how many worlds an invariant broke, if one did, and which.
struct Found {
    seeds: Option<u64>,
    word: String,
}

fn worlds(folder: &Path, seeds: u64) -> Result<Found> {
    let build = folder.join("target");
    run_quietly(Command::new(env!("CARGO")).current_dir(folder).env("CARGO_TARGET_DIR", &build).args([
        "build",
        "--quiet",
        "--package",
        "ondol-sim",
        "--bin",
        "seeds",
    ]))?;
    let output = Command::new("timeout")
        .arg("300")
        .arg(build.join("debug/seeds"))
        .args(["0", &seeds.to_string()])
        .env("RUST_BACKTRACE", "0")
        .output()
        .context("running worlds")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(Found { seeds: None, word: String::new() });
    }
    if output.status.code() == Some(124) {
        // A plan that never comes to its end is found by that.
        return Ok(Found { seeds: Some(0), word: "it never ends".into() });
    }
    let after = said.split("after ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    let complaint = String::from_utf8_lossy(&output.stderr);
    let word =
        complaint.lines().find(|line| !line.is_empty() && !line.starts_with("thread")).unwrap_or_default();
    Ok(Found {
        seeds: Some(after.context("seeds says nothing of what it found")?),
        word: word.chars().take(80).collect(),
    })
}
