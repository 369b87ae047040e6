//! The control loop and what it acts on: pictures to the planner, plans to instances and environments.

use std::collections::BTreeMap;

use ondol_core::attached::Attached;
use ondol_core::capacity::{
    Environment, EnvironmentState, Instance, InstanceState, Machine, Picture, Plan, Settings, Step, decide,
};
use ondol_core::capacity_provider::{
    CPU_METRIC, CapacityProvider, InstanceRequirements, ProviderLogging, ProviderScaling, ProviderState,
    ScalingMode, ScalingPolicy, TypeFilter,
};
use ondol_core::coins::Coins;
use ondol_core::function::{
    Architecture, Code, FunctionConfiguration, FunctionLogging, FunctionVersion, LastUpdate, LogFormat,
    ManagedInstancesConfig, Publication, Reason, ScalingConfig, VersionState,
};
use ondol_core::identity::{EnvironmentId, LATEST_PUBLISHED, PublicationId};
use ondol_core::instance_type::by_name;
use ondol_core::on_demand::Demand;
use ondol_core::signals::{EnvironmentSignals, Limits, MachineSignals};
use ondol_protocol::assignment::Generation;

use crate::scenario::{Function as Spec, Scenario};
use crate::workload::{Arrivals, between, micros};

use super::agent::{Agent, State};
use super::{Event, Function, World};

/// Load begins at the latest then.
pub const WARM_UP_SECONDS_MAX: u64 = 1_800;
const RUNTIME: &str = "nodejs24.x";
const REGION: &str = "us-east-1";

/// All that the agents are to have, and whose word that is.
#[derive(Debug, Clone)]
pub struct Assignment {
    generation: Generation,
    environments: BTreeMap<EnvironmentId, Environment>,
}

/// The world before its first decision: capacity providers and nothing else.
pub fn first_picture(scenario: &Scenario) -> Picture {
    let functions: usize = scenario.functions.iter().map(|spec| spec.count).sum();
    let providers = functions.div_ceil(scenario.capacity.functions_per_provider.max(1));
    let architecture = Architecture::parse(&scenario.capacity.architecture).unwrap_or(Architecture::X86_64);
    Picture {
        region: REGION.into(),
        settings: Settings { instance_age_seconds_max: scenario.capacity.instance_max_age_seconds },
        providers: (0..providers).map(|number| provider(scenario, architecture, number)).collect(),
        versions: BTreeMap::new(),
        functions_deleting: std::collections::BTreeSet::new(),
        instances: BTreeMap::new(),
        environments: BTreeMap::new(),
        traffic: BTreeMap::new(),
        demand: Demand::default(),
        on_demand: BTreeMap::new(),
        machine: Machine {
            architecture,
            any_architecture: false,
            on_demand_memory_mib: 0,
            installed_runtimes: [RUNTIME.to_owned()].into(),
            signals: MachineSignals::default(),
        },
    }
}

fn provider(scenario: &Scenario, architecture: Architecture, number: usize) -> (String, CapacityProvider) {
    let capacity = &scenario.capacity;
    let types = match (&capacity.allowed_instance_types[..], &capacity.excluded_instance_types[..]) {
        ([], []) => TypeFilter::Any,
        ([], excluded) => TypeFilter::Excluded(excluded.to_vec()),
        (allowed, _) => TypeFilter::Allowed(allowed.to_vec()),
    };
    let mode = match capacity.cpu_target_percent {
        None => ScalingMode::Auto,
        Some(percent) => {
            let target_hundredths = u32::try_from(micros(percent * 100.0)).unwrap_or(u32::MAX);
            ScalingMode::Manual {
                policies: vec![ScalingPolicy { metric: CPU_METRIC.into(), target_hundredths }],
            }
        }
    };
    let name = provider_name(number);
    let provider = CapacityProvider {
        name: name.clone(),
        state: ProviderState::Active,
        subnet_ids: (0..capacity.availability_zones).map(|zone| format!("subnet-{zone}")).collect(),
        security_group_ids: Vec::new(),
        operator_role_arn: String::new(),
        requirements: InstanceRequirements { architecture, types },
        scaling: ProviderScaling { max_vcpu_count: capacity.max_vcpu_count, mode },
        kms_key_arn: None,
        tags: BTreeMap::new(),
        propagate_tags: None,
        logging: ProviderLogging { system_log_level: "INFO".into(), log_group: String::new() },
        last_modified_epoch_millis: 0,
    };
    (name, provider)
}

fn provider_name(number: usize) -> String {
    format!("provider-{number:04}")
}

fn configuration(spec: &Spec, architecture: Architecture, provider: String) -> FunctionConfiguration {
    FunctionConfiguration {
        runtime: RUNTIME.into(),
        role: String::new(),
        handler: String::new(),
        description: String::new(),
        timeout_seconds: spec.timeout_seconds,
        memory_size_mib: spec.memory_size_mib,
        ephemeral_storage_mib: 512,
        architecture,
        environment: None,
        logging: FunctionLogging {
            format: LogFormat::Json { application_level: None, system_level: None },
            log_group: String::new(),
        },
        managed_instances: Some(ManagedInstancesConfig {
            capacity_provider: provider,
            per_execution_environment_max_concurrency: spec.max_concurrency,
            concurrency_is_chosen: true,
            memory_gib_per_vcpu_hundredths: u32::try_from(micros(spec.memory_gib_per_vcpu * 100.0))
                .unwrap_or(u32::MAX),
        }),
        dead_letter_target_arn: None,
        has_empty_vpc_config: false,
        layers: Vec::new(),
    }
}

impl World {
    /// Publishes a function for the first time.
    pub(super) fn create(&mut self, spec: usize, copy: usize, arrivals: Coins) {
        let of = self.scenario.functions[spec].clone();
        let number = self.functions.len();
        let name = if of.count == 1 { of.name.clone() } else { format!("{}-{copy:05}", of.name) };
        let provider = provider_name(number / self.scenario.capacity.functions_per_provider.max(1));
        let configuration = configuration(&of, self.picture.machine.architecture, provider);
        let publication = self.publication(configuration);
        let version = FunctionVersion {
            function: name,
            version: LATEST_PUBLISHED.into(),
            publication,
            serving: None,
            description: String::new(),
            state: VersionState::Pending,
            state_reason: Some(Reason::creating()),
            last_update: LastUpdate::InProgress,
            scaling: ScalingConfig { min: of.min_execution_environments, max: of.max_execution_environments },
            applied_scaling: None,
            revision_id: String::new(),
            last_modified_epoch_millis: 0,
            attached: Attached::default(),
            published_from: None,
        };
        self.functions.push(Function {
            key: version.key(),
            spec,
            arrivals: Arrivals::new(
                of.load,
                of.service.even_arrivals,
                arrivals,
                self.scenario.warm_up_seconds,
            ),
            service: of.service,
            serving: None,
            times: 1.0,
            memory_percent: 10,
        });
        self.collector.add_function(&version.function);
        self.picture.versions.insert(version.key(), version);
    }

    pub(super) fn publication(&mut self, configuration: FunctionConfiguration) -> Publication {
        self.next_publication += 1;
        let code = Code { sha256: String::new(), size_bytes: 0 };
        Publication { id: PublicationId(self.next_publication), configuration, code }
    }

    /// Every version is Active, or has failed to be.
    pub(super) fn is_up(&self) -> bool {
        self.picture.versions.values().all(|version| version.state != VersionState::Pending)
    }

    pub(super) fn decide_soon(&mut self) {
        self.note_change();
        self.decide_at(self.now + 1_000);
    }

    fn decide_at(&mut self, at: u64) {
        if self.decide_at.is_none_or(|earlier| at < earlier) {
            self.decide_at = Some(at);
            self.at(at, Event::Decide);
        }
    }

    pub(super) fn decide(&mut self) {
        // One that was asked for earlier has come in its place.
        if self.decide_at == Some(self.now) {
            self.decide_at = None;
            self.decide_now();
        }
    }

    pub(super) fn decide_now(&mut self) {
        if self.now < self.paused_until {
            return self.decide_at(self.paused_until);
        }
        let memory = std::mem::take(&mut self.memory);
        let (plan, memory) = decide(&self.picture, memory, self.policy(), &mut self.planner_coins);
        self.memory = memory;
        self.collector.decided();
        if let Some(tell) = self.on_plan {
            tell(self.now, &plan);
        }
        if let Some(at) = plan.wake_at {
            self.decide_at((at.0 / self.scenario.time_scale).max(self.now + 1));
        }
        self.collector.scaled(&plan.scaling);
        self.carry_out_plan(&plan);
        self.note_plan(&plan);
        if !plan.steps.is_empty() {
            self.generation.number += 1;
            assert!(self.fence.admit(self.generation), "I12: news is taken");
            self.decide_soon();
        }
    }

    fn carry_out_plan(&mut self, plan: &Plan) {
        for (step, _) in &plan.steps {
            match step {
                Step::ActivateProvider { name } => {
                    if let Some(provider) = self.picture.providers.get_mut(name) {
                        provider.state = ProviderState::Active;
                    }
                }
                Step::RemoveProvider { name } => drop(self.picture.providers.remove(name)),
                Step::LaunchInstance(instance) => self.launch(instance),
                Step::TerminateInstance { id } => {
                    if let Some(instance) = self.picture.instances.remove(id) {
                        self.collector.instance_gone(&instance, self.now);
                        self.note_terminated(&instance);
                    }
                }
                Step::StartEnvironment { id, environment } => self.start(*id, environment),
                Step::DrainEnvironment { id } => {
                    if let Some(&agent) = self.numbers.get(id) {
                        self.drain(agent);
                    }
                }
                Step::ForgetEnvironment { id } => {
                    self.picture.environments.remove(id);
                    // What is not assigned any more ends.
                    if let Some(agent) = self.numbers.remove(id) {
                        self.end(agent);
                        self.picture.environments.remove(id);
                    }
                }
                Step::SetVersion { key, publication, change } => {
                    let version = self.picture.versions.get_mut(key);
                    if let Some(version) = version.filter(|version| version.publication.id == *publication) {
                        change.apply(version);
                    }
                    self.route(key);
                }
                Step::RemoveVersion { key } => {
                    self.picture.versions.remove(key);
                    self.route(key);
                }
                Step::RemoveFunction { name } => drop(self.picture.functions_deleting.remove(name)),
                Step::Refuse { .. } | Step::Retire { .. } => {}
            }
        }
    }

    /// Where invocations of a version go now.
    pub(super) fn route(&mut self, key: &ondol_core::function::VersionKey) {
        let version = self.picture.versions.get(key).filter(|version| version.state == VersionState::Active);
        let serving = version.and_then(|version| version.serving.as_ref()).map(|serving| serving.id);
        if let Some(function) = self.functions.iter_mut().find(|function| function.key == *key) {
            function.serving = serving;
        }
    }

    fn launch(&mut self, instance: &Instance) {
        self.collector.instance_came(instance, self.now);
        self.picture.instances.insert(instance.id.clone(), instance.clone());
        self.check_launch(instance);
        let launch = self.scenario.launch;
        let takes = micros(between(&mut self.fate, launch.seconds_min, launch.seconds_max) * 1e6);
        self.launches.push(instance.id.clone());
        self.at(self.now + takes, Event::Launched { launch: self.launches.len() - 1 });
    }

    pub(super) fn launched(&mut self, launch: usize) {
        let id = self.launches[launch].clone();
        let failed = self.fate.chance(self.scenario.launch.failure_share);
        let Some(instance) = self.picture.instances.get_mut(&id) else { return };
        if instance.state != InstanceState::Launching {
            return;
        }
        instance.state = if failed || self.zones_lost.contains(&instance.availability_zone) {
            InstanceState::LaunchFailed(Reason::new(
                "InsufficientCapacity",
                "the zone has no such instance now",
            ))
        } else {
            InstanceState::Running
        };
        if instance.state == InstanceState::Running {
            self.collector.instance_up();
        } else {
            self.note_fault();
        }
        self.decide_soon();
    }

    fn start(&mut self, id: EnvironmentId, environment: &Environment) {
        self.picture.environments.insert(id, environment.clone());
        self.start_agent(id, environment);
    }

    fn start_agent(&mut self, id: EnvironmentId, environment: &Environment) {
        let Environment { version, publication, instance, need, .. } = environment;
        let Some(function) = self.functions.iter().position(|function| function.key == *version) else {
            return;
        };
        let zone = self.picture.instances.get(instance).map(|found| found.availability_zone.clone());
        let spec = &self.scenario.functions[self.functions[function].spec];
        let limits =
            Limits { cpu_millis: need.vcpus * 1_000, memory_mib: spec.memory_size_mib, disk_mib: 512 };
        let place = (instance.0.clone(), zone.unwrap_or_default());
        let agent = Agent::new(id, function, *publication, place, spec.max_concurrency, limits, need.vcpus);
        self.agents.push(agent);
        let number = self.agents.len() - 1;
        self.alive.insert(number);
        self.numbers.insert(id, number);
        let start = self.scenario.start;
        let takes = micros(between(&mut self.fate, start.millis_min, start.millis_max) * 1e3);
        self.at(self.now + takes, Event::Started { agent: number });
    }

    pub(super) fn set_state(&mut self, id: EnvironmentId, state: EnvironmentState) {
        if let Some(environment) = self.picture.environments.get_mut(&id) {
            environment.state = state;
            environment.signals = EnvironmentSignals::default();
            self.decide_soon();
        }
    }

    /// What there is at this moment, for the report.
    pub(super) fn measure(&mut self) {
        let mut now = crate::collect::Moment::default();
        for agent in self.alive.iter().map(|number| &self.agents[*number]) {
            now.starting += u32::from(agent.state == State::Starting);
            if agent.state == State::Ready {
                now.ready += 1;
                now.slots += agent.limit;
            }
            now.in_flight += u32::try_from(agent.slots.in_flight()).unwrap_or(u32::MAX);
        }
        now.instances = u32::try_from(self.picture.instances.len()).unwrap_or(u32::MAX);
        let types = self.picture.instances.values().filter_map(|instance| by_name(&instance.instance_type));
        now.vcpus = types.map(|found| found.vcpus).sum();
        self.collector.measured(self.now, now);
    }

    /// Keeps what is assigned now, to be delivered when it is old.
    pub(super) fn keep_stale(&mut self) {
        let environments = self.picture.environments.iter();
        let environments = environments.map(|(id, environment)| (*id, environment.clone())).collect();
        self.stale = Some(Assignment { generation: self.generation, environments });
    }

    /// An assignment comes to the agents, which follow it if it is news.
    pub(super) fn deliver_stale(&mut self, stale: Assignment) {
        if !self.fence.admit(stale.generation) {
            return;
        }
        let dropped: Vec<usize> = self
            .alive
            .iter()
            .filter(|agent| !stale.environments.contains_key(&self.agents[**agent].id))
            .copied()
            .collect();
        dropped.into_iter().for_each(|agent| self.end(agent));
        for (id, environment) in stale.environments {
            match self.numbers.get(&id) {
                Some(&agent) if environment.state == EnvironmentState::Draining => self.drain(agent),
                Some(_) => {}
                // No picture has it: whoever follows this starts what its control loop has forgotten.
                None => self.start_agent(id, &environment),
            }
        }
    }
}
