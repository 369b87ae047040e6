//! `ondol sim`: what scaling would do with a load, before anybody pays for it; and the replay of what was decided.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use ondol_control::journal::Replayed;
use ondol_core::capacity::journal::Summary;
use ondol_sim::scenario::{Load, Scenario, Spread};
use ondol_sim::{plot, scenarios, trace};
use serde_json::{Value, json};

use crate::Output;
use crate::commands::show;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Sim {
    #[command(subcommand)]
    command: Option<SimCommand>,
    /// The name of a scenario (`ondol sim list`), or a file of one (TOML)
    scenario: Option<String>,
    /// Recorded load as CSV: counts by the minute (Azure Functions 2019), or arrival and duration of each invocation.
    /// With a scenario, each function is like the scenario's function of its name, or else like its first, and the
    /// scenario's events happen
    #[arg(long, value_name = "FILE", conflicts_with = "workload")]
    trace: Option<PathBuf>,
    /// The same seed gives the same simulation, byte for byte
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The load by its shape instead
    #[arg(long, value_enum)]
    workload: Option<Workload>,
    /// Invocations a second of the workload: before it changes, or on average
    #[arg(long, value_name = "PER-SECOND", default_value_t = 100.0, requires = "workload")]
    rate: f64,
    /// How long one invocation takes on average
    #[arg(long, value_name = "MS")]
    duration_ms: Option<f64>,
    /// The part of that which needs a CPU, between 0 and 1
    #[arg(long, value_name = "SHARE")]
    cpu_share: Option<f64>,
    /// PerExecutionEnvironmentMaxConcurrency
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// MemorySize of the function
    #[arg(long, value_name = "MIB")]
    memory_mib: Option<u32>,
    /// MinExecutionEnvironments
    #[arg(long, value_name = "N")]
    min: Option<u32>,
    /// MaxExecutionEnvironments
    #[arg(long, value_name = "N")]
    max: Option<u32>,
    /// MaxVCpuCount of the capacity provider
    #[arg(long, value_name = "N")]
    max_vcpus: Option<u32>,
    /// TargetValue of a scaling policy; Auto without it
    #[arg(long, value_name = "PERCENT")]
    cpu_target: Option<f64>,
    /// Seconds to simulate, instead of what the scenario or the trace says
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Seconds between two looks at what is used
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    sample_seconds: Option<u64>,
    /// Let windows, ages and back-offs pass so many times faster, as `ondol up --time-scale` does
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    time_scale: Option<u64>,
    /// Write the timeline as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the timeline as a picture (SVG)
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum SimCommand {
    /// Make every decision of a server's journal again and compare it with what was decided
    Replay {
        /// A file of the folder `journal` in a server's data folder, or that folder
        journal: PathBuf,
    },
    /// List the scenarios that come with this program
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// The same rate all the time
    Poisson,
    /// Up and down within a day
    Diurnal,
    /// Three times as much from one moment to the next
    Step,
    /// Twice as much within five minutes
    Double,
    /// Ten times as much within seconds, for ten minutes
    Flash,
}

impl Workload {
    /// The load, and how long it takes to see it.
    fn load(self, rate: f64) -> (Load, u64) {
        let at_seconds = 600.0;
        match self {
            Self::Poisson => (Load::Constant { per_second: rate }, 1_800),
            Self::Diurnal => {
                (Load::Diurnal { mean_per_second: rate, swing: 0.8, period_seconds: 86_400.0 }, 86_400)
            }
            Self::Step => {
                (Load::Step { from_per_second: rate, to_per_second: rate * 3.0, at_seconds }, 1_800)
            }
            Self::Double => {
                let (from_per_second, to_per_second) = (rate, rate * 2.0);
                (Load::Ramp { from_per_second, to_per_second, at_seconds, over_seconds: 300.0 }, 1_800)
            }
            Self::Flash => {
                let (base_per_second, peak_per_second) = (rate, rate * 10.0);
                let (rise_seconds, hold_seconds) = (5.0, 600.0);
                (
                    Load::Flash { base_per_second, peak_per_second, at_seconds, rise_seconds, hold_seconds },
                    3_600,
                )
            }
        }
    }
}

pub fn sim(arguments: &Sim, output: Output) -> Result<()> {
    match &arguments.command {
        Some(SimCommand::Replay { journal }) => return replay(journal, output),
        Some(SimCommand::List) => return list(output),
        None => {}
    }
    let mut scenario = scenario(arguments.scenario.as_deref().unwrap_or(scenarios::DEFAULT))?;
    let traced = match (&arguments.trace, arguments.workload) {
        (Some(path), _) => {
            if arguments.scenario.is_none() {
                scenario = Scenario { events: Vec::new(), ..blank(scenario) };
            }
            scenario.name = path.display().to_string();
            change(&mut scenario, arguments);
            trace::read(path, &mut scenario).with_context(|| path.display().to_string())?
        }
        (None, Some(workload)) => {
            let name = workload.to_possible_value().map(|value| value.get_name().to_owned());
            scenario = Scenario { name: name.unwrap_or_default(), events: Vec::new(), ..blank(scenario) };
            let (load, duration_seconds) = workload.load(arguments.rate);
            scenario.duration_seconds = duration_seconds;
            scenario.warm_up_seconds = 300;
            scenario.functions.iter_mut().for_each(|function| function.load = load.clone());
            None
        }
        (None, None) => None,
    };
    change(&mut scenario, arguments);
    let summary = ondol_sim::simulate(&scenario, arguments.seed, traced)?;
    if let Some(path) = &arguments.csv {
        fs::write(path, summary.csv()).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &arguments.svg {
        fs::write(path, plot::svg(&summary)?).with_context(|| path.display().to_string())?;
    }
    show(output, &serde_json::to_value(&summary)?, || summary.text())
}

/// By its name, or from its file.
fn scenario(name: &str) -> Result<Scenario> {
    let path = Path::new(name);
    if path.extension().is_some_and(|extension| extension == "toml") || path.is_file() {
        let text = fs::read_to_string(path).with_context(|| name.to_owned())?;
        return Scenario::parse(&text).with_context(|| name.to_owned());
    }
    Ok(scenarios::named(name)?)
}

/// One function with nothing said of it, on the scenario's capacity.
fn blank(scenario: Scenario) -> Scenario {
    let mut function = ondol_sim::scenario::Function::default();
    function.service.spread = Spread::Exponential;
    Scenario { about: String::new(), warm_up_seconds: 0, functions: vec![function], ..scenario }
}

/// What was said on the command line holds for every function.
fn change(scenario: &mut Scenario, arguments: &Sim) {
    let Sim { duration_ms, cpu_share, concurrency, memory_mib, min, max, .. } = arguments;
    for function in &mut scenario.functions {
        function.service.mean_millis = duration_ms.unwrap_or(function.service.mean_millis);
        function.service.cpu_share = cpu_share.unwrap_or(function.service.cpu_share);
        function.max_concurrency = concurrency.unwrap_or(function.max_concurrency);
        function.memory_size_mib = memory_mib.unwrap_or(function.memory_size_mib);
        function.min_execution_environments = min.or(function.min_execution_environments);
        function.max_execution_environments = max.or(function.max_execution_environments);
    }
    let capacity = &mut scenario.capacity;
    capacity.max_vcpu_count = arguments.max_vcpus.unwrap_or(capacity.max_vcpu_count);
    capacity.cpu_target_percent = arguments.cpu_target.or(capacity.cpu_target_percent);
    scenario.duration_seconds = arguments.seconds.unwrap_or(scenario.duration_seconds);
    scenario.time_scale = arguments.time_scale.unwrap_or(scenario.time_scale);
    scenario.sample_seconds = arguments.sample_seconds.unwrap_or(scenario.sample_seconds);
}

fn list(output: Output) -> Result<()> {
    let mut rows = Vec::new();
    for (name, text) in scenarios::ALL {
        rows.push((*name, Scenario::parse(text)?.about));
    }
    let page: Vec<_> = rows.iter().map(|(name, about)| json!({"name": name, "about": about})).collect();
    show(output, &page.into(), || {
        rows.iter().fold(String::new(), |mut out, (name, about)| {
            let _ = writeln!(out, "{name:<26}{about}");
            out
        })
    })
}

/// Each segment stands for itself: it begins with a keyframe.
fn replay(journal: &Path, output: Output) -> Result<()> {
    let segments = ondol_control::journal::replay(journal).with_context(|| journal.display().to_string())?;
    let sum = |of: fn(&Summary) -> u64| segments.iter().map(|segment| of(&segment.summary)).sum::<u64>();
    let (decisions, differences) = (sum(|of| of.decisions), sum(|of| of.differences));
    let page: Vec<Value> = segments.iter().map(segment).collect();
    let page = json!({"decisions": decisions, "differences": differences, "segments": page});
    show(output, &page, || {
        let mut out = String::new();
        for Replayed { file, summary, error } in &segments {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let _ = writeln!(
                out,
                "{name}: {} decisions made again, {} differ from what was recorded",
                summary.decisions, summary.differences
            );
            if summary.skipped > 0 {
                let _ = writeln!(
                    out,
                    "  {} lines before the first keyframe say too little to be made again",
                    summary.skipped
                );
            }
            if summary.missing > 0 {
                let _ = writeln!(out, "  {} lines were not written, for want of room", summary.missing);
            }
            if let Some(line) = summary.cut_off {
                let _ = writeln!(out, "  line {line} is cut off: the server ended while it was written");
            }
            if let Some(first) = &summary.first_difference {
                let _ = writeln!(out, "  the first is decision {} in line {}:", first.sequence, first.line);
                let _ = writeln!(out, "    recorded {}\n    replayed {}", first.recorded, first.replayed);
            }
            if let Some(error) = error {
                let _ = writeln!(out, "  it can't be read on: {error}");
            }
        }
        out
    })?;
    if segments.is_empty() {
        bail!("{}: there is no journal in it", journal.display());
    }
    if let Some(broken) = segments.iter().find_map(|segment| segment.error.as_ref()) {
        bail!("{broken}");
    }
    if differences > 0 {
        bail!(
            "{differences} of {decisions} decisions differ: this program decides otherwise than the one that wrote the journal"
        );
    }
    Ok(())
}

fn segment(segment: &Replayed) -> Value {
    let Replayed { file, summary, error } = segment;
    json!({
        "file": file.display().to_string(),
        "decisions": summary.decisions,
        "keyframes": summary.keyframes,
        "lines": summary.lines,
        "skipped": summary.skipped,
        "missing": summary.missing,
        "cutOffAtLine": summary.cut_off,
        "differences": summary.differences,
        "firstDifference": summary.first_difference.as_ref().map(|first| json!({
            "line": first.line,
            "sequence": first.sequence,
            "recorded": first.recorded,
            "replayed": first.replayed,
        })),
        "error": error.as_ref().map(ToString::to_string),
    })
}
