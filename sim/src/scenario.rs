//! What is simulated: functions and their load, the capacity they run on, and what happens to it. Everything that a
//! scenario does not say has a sensible default.

use serde::{Deserialize, Serialize};

use crate::SimError;

/// Functions that one scenario may have.
pub const FUNCTIONS_MAX: usize = 100_000;
/// A year.
const DURATION_SECONDS_MAX: u64 = 366 * 86_400;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    pub name: String,
    pub about: String,
    pub duration_seconds: u64,
    /// The load comes for so long before the report begins. Times count from there.
    pub warm_up_seconds: u64,
    pub capacity: Capacity,
    pub launch: Launch,
    pub start: Start,
    /// Policy time (windows, ages, back-offs) passes so many times faster than the rest, as with `ondol up --time-scale`.
    pub time_scale: u64,
    /// How often environments are sampled, and the planner decides though nothing happened.
    pub sample_seconds: u64,
    /// How often it is looked at what is in flight, upon which the planner decides when that has changed, as a server's
    /// does; 0 for only with samples.
    pub refresh_millis: u64,
    /// How often a throttled caller asks again, with the SDKs' growing delay.
    pub retries: u32,
    #[serde(rename = "function")]
    pub functions: Vec<Function>,
    #[serde(rename = "event", skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// The capacity providers. Functions are spread over as many as their quota of versions asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capacity {
    pub availability_zones: u32,
    pub max_vcpu_count: u32,
    /// `TargetValue` of a Manual scaling policy; Auto without it.
    pub cpu_target_percent: Option<f64>,
    pub allowed_instance_types: Vec<String>,
    pub excluded_instance_types: Vec<String>,
    pub architecture: String,
    pub instance_max_age_seconds: u64,
    pub functions_per_provider: usize,
}

/// How instances come up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Launch {
    pub seconds_min: f64,
    pub seconds_max: f64,
    /// The part of launches that fails, between 0 and 1.
    pub failure_share: f64,
}

/// How execution environments start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Start {
    pub millis_min: f64,
    pub millis_max: f64,
    pub failure_share: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Function {
    pub name: String,
    /// So many of the same.
    pub count: usize,
    pub memory_size_mib: u32,
    pub memory_gib_per_vcpu: f64,
    pub max_concurrency: u32,
    pub min_execution_environments: Option<u32>,
    pub max_execution_environments: Option<u32>,
    pub timeout_seconds: u32,
    pub load: Load,
    pub service: Service,
}

/// How invocations arrive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Load {
    /// None at all.
    None,
    Constant {
        per_second: f64,
    },
    /// From one rate to another at once.
    Step {
        from_per_second: f64,
        to_per_second: f64,
        at_seconds: f64,
    },
    /// From one rate to another evenly.
    Ramp {
        from_per_second: f64,
        to_per_second: f64,
        at_seconds: f64,
        over_seconds: f64,
    },
    /// Up and down within a period.
    Diurnal {
        mean_per_second: f64,
        swing: f64,
        period_seconds: f64,
    },
    /// A crowd comes, stays, and goes.
    Flash {
        base_per_second: f64,
        peak_per_second: f64,
        at_seconds: f64,
        rise_seconds: f64,
        hold_seconds: f64,
    },
    /// So many at the same moment.
    Calls {
        count: u32,
        at_seconds: f64,
    },
    /// Counts by the minute.
    PerMinute {
        counts: Vec<u32>,
    },
}

/// How long an invocation takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    pub mean_millis: f64,
    pub spread: Spread,
    /// The part of it that needs a CPU, which invocations of one environment share; the rest is waiting.
    pub cpu_share: f64,
    /// Arrivals at even distances instead of by chance.
    pub even_arrivals: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    Fixed,
    Exponential,
    /// Log-normal with a standard deviation as large as the mean.
    LogNormal,
}

/// What happens on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub at_seconds: f64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum What {
    /// Every instance of a zone is gone, and launches fail there, until it is back.
    ZoneLost {
        zone: u32,
    },
    ZoneBack {
        zone: u32,
    },
    InstanceLost,
    EnvironmentLost {
        function: usize,
    },
    Republish {
        function: usize,
    },
    ScalingConfig {
        function: usize,
        min: Option<u32>,
        max: Option<u32>,
    },
    MaxVcpuCount {
        max_vcpu_count: u32,
    },
    Delete {
        function: usize,
    },
    /// The planner's memory is lost, as by a restart of the control loop.
    MemoryLost,
    /// The control loop decides nothing for a while.
    ControlPaused {
        seconds: f64,
    },
    /// An assignment of a control loop that is not in charge any more arrives late.
    StaleAssignment,
    LaunchFailures {
        share: f64,
    },
    StartFailures {
        share: f64,
    },
    /// The function starts to take so many times as long.
    Slower {
        function: usize,
        times: f64,
    },
    /// Each environment's memory is so full from now on, in percent; 0 as it was.
    MemoryUsed {
        function: usize,
        percent: u32,
    },
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "simulation".into(),
            about: String::new(),
            duration_seconds: 3_600,
            warm_up_seconds: 0,
            capacity: Capacity::default(),
            launch: Launch::default(),
            start: Start::default(),
            time_scale: 1,
            sample_seconds: 1,
            refresh_millis: 0,
            retries: 0,
            functions: Vec::new(),
            events: Vec::new(),
        }
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            availability_zones: 3,
            max_vcpu_count: ondol_core::capacity_provider::MAX_VCPU_COUNT_DEFAULT,
            cpu_target_percent: None,
            allowed_instance_types: Vec::new(),
            excluded_instance_types: Vec::new(),
            architecture: "x86_64".into(),
            instance_max_age_seconds: ondol_core::capacity::INSTANCE_AGE_SECONDS_DEFAULT,
            functions_per_provider: 100,
        }
    }
}

impl Default for Launch {
    /// About what an EC2 instance takes until an agent runs on it.
    fn default() -> Self {
        Self { seconds_min: 40.0, seconds_max: 80.0, failure_share: 0.0 }
    }
}

impl Default for Start {
    /// What Node.js and Python took here, measured.
    fn default() -> Self {
        Self { millis_min: 100.0, millis_max: 800.0, failure_share: 0.0 }
    }
}

impl Default for Function {
    fn default() -> Self {
        Self {
            name: "function".into(),
            count: 1,
            memory_size_mib: 2_048,
            memory_gib_per_vcpu: 2.0,
            max_concurrency: 16,
            min_execution_environments: None,
            max_execution_environments: None,
            timeout_seconds: 30,
            load: Load::None,
            service: Service::default(),
        }
    }
}

impl Default for Service {
    fn default() -> Self {
        Self { mean_millis: 100.0, spread: Spread::Exponential, cpu_share: 0.2, even_arrivals: false }
    }
}

impl Scenario {
    /// From its TOML text. What is wrong is told with its line and column.
    pub fn parse(text: &str) -> Result<Self, SimError> {
        let scenario: Self = toml::from_str(text).map_err(|error| {
            let (line, column) = error.span().map_or((1, 1), |span| position(text, span.start));
            SimError::Scenario { line, column, what: error.message().to_owned() }
        })?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Refuses what can't be simulated.
    pub fn check(&self) -> Result<(), SimError> {
        let refuse = |what: String| Err(SimError::Impossible(what));
        let Capacity { availability_zones, max_vcpu_count, .. } = self.capacity;
        if !(1..=DURATION_SECONDS_MAX).contains(&self.duration_seconds) {
            return refuse(format!(
                "duration_seconds is {}; it must be between 1 and {DURATION_SECONDS_MAX}",
                self.duration_seconds
            ));
        }
        if !(1..=100_000).contains(&self.time_scale) || !(1..=3_600).contains(&self.sample_seconds) {
            return refuse(
                "time_scale must be between 1 and 100000, and sample_seconds between 1 and 3600".into(),
            );
        }
        if self.refresh_millis != 0 && !(10..=3_600_000).contains(&self.refresh_millis) {
            return refuse("refresh_millis must be 0, or between 10 and 3600000".into());
        }
        if self.warm_up_seconds > DURATION_SECONDS_MAX {
            return refuse("warm_up_seconds is more than a year".into());
        }
        if !(1..=3).contains(&availability_zones) {
            return refuse(format!("availability_zones is {availability_zones}; it must be 1, 2 or 3"));
        }
        if !(2..=15_000).contains(&max_vcpu_count) {
            return refuse(format!(
                "max_vcpu_count is {max_vcpu_count}; a capacity provider has between 2 and 15000"
            ));
        }
        if !self.capacity.allowed_instance_types.is_empty()
            && !self.capacity.excluded_instance_types.is_empty()
        {
            return refuse("allowed_instance_types and excluded_instance_types are both given; a capacity provider takes one of them".into());
        }
        if ondol_core::function::Architecture::parse(&self.capacity.architecture).is_none() {
            return refuse(format!(
                "architecture is {}; it must be x86_64 or arm64",
                self.capacity.architecture
            ));
        }
        if self.capacity.cpu_target_percent.is_some_and(|target| !(1.0..=100.0).contains(&target)) {
            return refuse("cpu_target_percent must be between 1 and 100".into());
        }
        let shares = [self.launch.failure_share, self.start.failure_share];
        if shares.iter().any(|share| !(0.0..=1.0).contains(share)) {
            return refuse("failure_share must be between 0 and 1".into());
        }
        let times = [
            (self.launch.seconds_min, self.launch.seconds_max),
            (self.start.millis_min, self.start.millis_max),
        ];
        if times.iter().any(|(min, max)| !(*min >= 0.0 && min <= max && *max < 1e9)) {
            return refuse(
                "a launch or a start takes between its minimum and its maximum, neither below 0".into(),
            );
        }
        let functions: usize = self.functions.iter().map(|function| function.count).sum();
        if functions == 0 || functions > FUNCTIONS_MAX {
            return refuse(format!(
                "there are {functions} functions; a scenario has between 1 and {FUNCTIONS_MAX} ([[function]])"
            ));
        }
        self.functions.iter().try_for_each(Function::check)?;
        for event in &self.events {
            let function = match event.what {
                What::EnvironmentLost { function }
                | What::Republish { function }
                | What::ScalingConfig { function, .. }
                | What::Delete { function }
                | What::Slower { function, .. }
                | What::MemoryUsed { function, .. } => function,
                _ => 0,
            };
            if function >= functions {
                return refuse(format!(
                    "an event names function {function}, and there are {functions}, counted from 0"
                ));
            }
        }
        Ok(())
    }
}

impl Function {
    fn check(&self) -> Result<(), SimError> {
        let refuse = |what: &str| Err(SimError::Impossible(format!("function {}: {what}", self.name)));
        if let (Some(min), Some(max)) = (self.min_execution_environments, self.max_execution_environments) {
            if min > max {
                return refuse(
                    "MinExecutionEnvironments must be less than or equal to MaxExecutionEnvironments",
                );
            }
        }
        if self.min_execution_environments == Some(0) && self.max_execution_environments != Some(0) {
            return refuse("MinExecutionEnvironments can be 0 only when MaxExecutionEnvironments is 0");
        }
        if !(1..=5_400).contains(&self.timeout_seconds) {
            return refuse("timeout_seconds must be between 1 and 5400");
        }
        if !(0.0..=1.0).contains(&self.service.cpu_share) {
            return refuse("cpu_share must be between 0 and 1");
        }
        if !(self.service.mean_millis > 0.0 && self.service.mean_millis <= 86_400_000.0) {
            return refuse("mean_millis must be more than 0, and a day at most");
        }
        let rates = match &self.load {
            Load::None | Load::PerMinute { .. } => vec![],
            Load::Calls { at_seconds, .. } => vec![*at_seconds],
            Load::Constant { per_second } => vec![*per_second],
            Load::Step { from_per_second, to_per_second, at_seconds } => {
                vec![*from_per_second, *to_per_second, *at_seconds]
            }
            Load::Ramp { from_per_second, to_per_second, at_seconds, over_seconds } => {
                vec![*from_per_second, *to_per_second, *at_seconds, *over_seconds]
            }
            Load::Diurnal { mean_per_second, swing, period_seconds } => {
                if !(0.0..=1.0).contains(swing) || *period_seconds <= 0.0 {
                    return refuse("swing must be between 0 and 1, and period_seconds more than 0");
                }
                vec![*mean_per_second]
            }
            Load::Flash { base_per_second, peak_per_second, at_seconds, rise_seconds, hold_seconds } => {
                vec![*base_per_second, *peak_per_second, *at_seconds, *rise_seconds, *hold_seconds]
            }
        };
        if rates.iter().any(|number| !(0.0..=1e9).contains(number)) {
            return refuse("rates and times of its load must not be below 0, nor above a thousand million");
        }
        Ok(())
    }
}

/// Line and column of a byte, from 1.
pub fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
