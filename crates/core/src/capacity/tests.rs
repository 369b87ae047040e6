//! A small world that carries plans out, so that tests read as what happens.

use super::*;
use crate::capacity_provider::{
    InstanceRequirements, ProviderLogging, ProviderScaling, ProviderState, ScalingMode, TypeFilter,
};
use crate::function::ScalingConfig;
use crate::instance_type::by_name;
use crate::samples::publication;

pub(super) struct World {
    pub picture: Picture,
    memory: Memory,
    pub now: PolicyTime,
    coins: Coins,
    last: Plan,
}

pub(super) fn provider(max_vcpu_count: u32) -> CapacityProvider {
    CapacityProvider {
        name: "cp".into(),
        state: ProviderState::Pending,
        subnet_ids: vec!["subnet-1".into(), "subnet-2".into(), "subnet-3".into()],
        security_group_ids: vec![],
        operator_role_arn: String::new(),
        requirements: InstanceRequirements { architecture: Architecture::X86_64, types: TypeFilter::Any },
        scaling: ProviderScaling { max_vcpu_count, mode: ScalingMode::Auto },
        kms_key_arn: None,
        tags: BTreeMap::new(),
        propagate_tags: None,
        logging: ProviderLogging { system_log_level: "INFO".into(), log_group: String::new() },
        last_modified_epoch_millis: 0,
    }
}

pub(super) fn version(function: &str, id: u128) -> FunctionVersion {
    FunctionVersion {
        function: function.into(),
        version: crate::identity::LATEST_PUBLISHED.into(),
        publication: publication(id),
        serving: None,
        description: String::new(),
        state: VersionState::Pending,
        state_reason: Some(Reason::creating()),
        last_update: LastUpdate::InProgress,
        scaling: ScalingConfig::default(),
        applied_scaling: None,
        revision_id: String::new(),
        last_modified_epoch_millis: 0,
        attached: crate::attached::Attached::default(),
        published_from: None,
    }
}

impl World {
    pub fn new(max_vcpu_count: u32) -> Self {
        let machine = Machine {
            architecture: Architecture::X86_64,
            any_architecture: false,
            installed_runtimes: BTreeSet::from(["python3.13".to_owned()]),
            on_demand_memory_mib: 5_000,
            signals: crate::signals::MachineSignals::default(),
        };
        let picture = Picture {
            region: "us-east-1".into(),
            settings: Settings::default(),
            traffic: BTreeMap::new(),
            providers: BTreeMap::from([("cp".to_owned(), provider(max_vcpu_count))]),
            versions: BTreeMap::new(),
            functions_deleting: BTreeSet::new(),
            instances: BTreeMap::new(),
            environments: BTreeMap::new(),
            demand: Demand::default(),
            on_demand: BTreeMap::new(),
            machine,
        };
        Self {
            picture,
            memory: Memory::default(),
            now: PolicyTime(0),
            coins: Coins::from_seed(1),
            last: Plan::default(),
        }
    }

    pub fn publish(&mut self, function: &str, id: u128) -> VersionKey {
        let fresh = version(function, id);
        let key = fresh.key();
        match self.picture.versions.get_mut(&key) {
            Some(existing) => {
                existing.publication = fresh.publication;
                existing.last_update = LastUpdate::InProgress;
            }
            None => {
                self.picture.versions.insert(key.clone(), fresh);
            }
        }
        key
    }

    /// Decides once and carries the plan out; `start` says what becomes of a starting environment.
    fn turn(&mut self, start: impl Fn(&Environment) -> EnvironmentState) {
        let (plan, memory) = decide(&self.picture, self.memory.clone(), self.now, &mut self.coins);
        self.memory = memory;
        self.carry_out(&plan, start);
        self.last = plan;
    }

    pub fn carry_out(&mut self, plan: &Plan, start: impl Fn(&Environment) -> EnvironmentState) {
        for (step, _) in &plan.steps {
            let picture = &mut self.picture;
            match step.clone() {
                Step::Refuse { .. } | Step::Retire { .. } => {}
                Step::ActivateProvider { name } => {
                    picture.providers.get_mut(&name).unwrap().state = ProviderState::Active
                }
                Step::RemoveProvider { name } => drop(picture.providers.remove(&name)),
                Step::LaunchInstance(mut instance) => {
                    instance.state = InstanceState::Running;
                    drop(picture.instances.insert(instance.id.clone(), instance))
                }
                Step::TerminateInstance { id } => drop(picture.instances.remove(&id)),
                Step::StartEnvironment { id, mut environment } => {
                    environment.state = start(&environment);
                    picture.environments.insert(id, environment);
                }
                Step::DrainEnvironment { id } => {
                    let reason = Reason::new("Drained", "drained");
                    picture.environments.get_mut(&id).unwrap().state =
                        EnvironmentState::Ended { reason, settled: true };
                }
                Step::ForgetEnvironment { id } => drop(picture.environments.remove(&id)),
                Step::RemoveVersion { key } => drop(picture.versions.remove(&key)),
                Step::RemoveFunction { name } => drop(picture.functions_deleting.remove(&name)),
                Step::SetVersion { key, change, .. } => {
                    change.apply(picture.versions.get_mut(&key).unwrap());
                }
            }
        }
        let vcpus: u32 =
            self.picture.instances.values().map(|i| by_name(&i.instance_type).unwrap().vcpus).sum();
        assert!(self.picture.providers.values().all(|p| vcpus <= p.scaling.max_vcpu_count), "the cap holds");
    }

    fn settle(&mut self) {
        for _ in 0..6 {
            self.turn(|_| EnvironmentState::Ready);
        }
        assert_eq!(self.last.steps, [], "a settled world needs nothing");
    }

    fn state(&self, key: &VersionKey) -> VersionState {
        self.picture.versions[key].state
    }

    fn running(&self, id: u128) -> usize {
        self.picture.environments.values().filter(|e| e.publication == PublicationId(id)).count()
    }
}

#[test]
fn three_functions_fit_three_instances_in_three_zones() {
    let mut world = World::new(400);
    let keys = [world.publish("a", 1), world.publish("b", 2), world.publish("c", 3)];
    world.settle();
    assert!(keys.iter().all(|key| world.state(key) == VersionState::Active));
    let zones: BTreeSet<&str> =
        world.picture.instances.values().map(|i| i.availability_zone.as_str()).collect();
    assert_eq!(zones, BTreeSet::from(["us-east-1a", "us-east-1b", "us-east-1c"]));
    assert_eq!(world.picture.instances.len(), 3);
    for id in 1..=3 {
        let on: BTreeSet<&InstanceId> = world
            .picture
            .environments
            .values()
            .filter(|e| e.publication == PublicationId(id))
            .map(|e| &e.instance)
            .collect();
        assert_eq!(on.len(), 3, "each function has one environment in each zone");
    }
}

#[test]
fn a_cap_too_small_fails_the_version_with_aws_s_sentence() {
    let mut world = World::new(2);
    let key = world.publish("a", 1);
    world.settle();
    assert_eq!(world.state(&key), VersionState::Failed);
    let reason = world.picture.versions[&key].state_reason.clone().unwrap();
    assert_eq!(reason.code, "CapacityProviderScalingLimitExceeded");
    assert!(reason.text.starts_with("MinimumExecutionEnvironments can't be provisioned"));
    assert_eq!(world.picture.environments.len(), 0);
}

#[test]
fn a_runtime_that_is_not_installed_and_a_foreign_architecture_fail_with_the_mend() {
    let mut world = World::new(400);
    let key = world.publish("a", 1);
    world.picture.versions.get_mut(&key).unwrap().publication.configuration.runtime = "nodejs24.x".into();
    let arm = world.publish("b", 2);
    world.picture.versions.get_mut(&arm).unwrap().publication.configuration.architecture =
        Architecture::Arm64;
    world.settle();
    let reason = |key| world.picture.versions[key].state_reason.clone().unwrap();
    assert_eq!(reason(&key).code, "InvalidRuntime");
    assert!(reason(&key).text.contains("ondol runtime install nodejs24.x"));
    assert!(reason(&arm).text.contains("--any-architecture"));
}

#[test]
fn three_failed_starts_fail_the_version_with_the_last_reason() {
    let mut world = World::new(400);
    let key = world.publish("a", 1);
    let broken = |_: &Environment| EnvironmentState::Ended {
        reason: Reason::new("FunctionError.RuntimeInitError", "import failed"),
        settled: false,
    };
    for _ in 0..4 {
        world.turn(broken);
        world.now = world.now.plus_seconds(400);
    }
    assert_eq!(world.state(&key), VersionState::Failed);
    assert_eq!(
        world.picture.versions[&key].state_reason.clone().unwrap().code,
        "FunctionError.RuntimeInitError"
    );
}

#[test]
fn a_republish_rolls_over_with_the_new_ready_before_the_old_drains() {
    let mut world = World::new(400);
    let key = world.publish("a", 1);
    world.settle();
    world.publish("a", 2);
    world.turn(|_| EnvironmentState::Starting);
    assert_eq!((world.running(1), world.running(2)), (3, 3));
    world.turn(|_| EnvironmentState::Starting);
    assert_eq!((world.running(1), world.running(2)), (3, 3), "nothing drains while the new is not ready");
    for environment in world.picture.environments.values_mut() {
        environment.state = EnvironmentState::Ready;
    }
    world.settle();
    assert_eq!((world.running(1), world.running(2), world.state(&key)), (0, 3, VersionState::Active));
}

#[test]
fn a_failed_roll_over_keeps_what_serves() {
    let mut world = World::new(400);
    let key = world.publish("a", 1);
    world.settle();
    world.publish("a", 2);
    for _ in 0..5 {
        world.turn(|e| match e.publication.0 {
            1 => EnvironmentState::Ready,
            _ => EnvironmentState::Ended {
                reason: Reason::new("FunctionError.RuntimeInitError", "x"),
                settled: false,
            },
        });
        world.now = world.now.plus_seconds(400);
    }
    let version = &world.picture.versions[&key];
    assert_eq!((version.state, world.running(1), world.running(2)), (VersionState::Active, 3, 0));
    assert!(
        matches!(&version.last_update, LastUpdate::Failed(reason) if reason.code == "FunctionError.RuntimeInitError")
    );
}

#[test]
fn the_minimum_is_followed_up_down_to_zero_and_back() {
    let mut world = World::new(400);
    let key = world.publish("a", 1);
    world.settle();
    for (min, max, state, count) in [
        (Some(5), None, VersionState::Active, 5),
        (Some(1), Some(1), VersionState::Active, 1),
        (Some(0), Some(0), VersionState::Deactivated, 0),
        (Some(2), Some(4), VersionState::Active, 2),
    ] {
        world.picture.versions.get_mut(&key).unwrap().scaling = ScalingConfig { min, max };
        world.settle();
        assert_eq!((world.state(&key), world.running(1)), (state, count), "min {min:?} max {max:?}");
    }
}

#[test]
fn a_crashed_environment_is_replaced_at_once() {
    let mut world = World::new(400);
    world.publish("a", 1);
    world.settle();
    let first = *world.picture.environments.keys().next().unwrap();
    let reason = Reason::new("Runtime.ExitError", "exit status 1");
    world.picture.environments.get_mut(&first).unwrap().state =
        EnvironmentState::Ended { reason, settled: true };
    world.turn(|_| EnvironmentState::Ready);
    assert_eq!(world.running(1), 3);
    assert!(!world.picture.environments.contains_key(&first));
}

#[test]
fn deletion_drains_then_removes_and_empty_instances_end() {
    let mut world = World::new(400);
    let key = world.publish("a", 1);
    world.settle();
    world.picture.versions.get_mut(&key).unwrap().state = VersionState::Deleting;
    world.picture.functions_deleting.insert("a".into());
    world.settle();
    assert!(world.picture.versions.is_empty() && world.picture.functions_deleting.is_empty());
    assert_eq!(world.picture.instances.len(), 3, "empty instances stay for a while");
    world.now = world.now.plus_seconds(EMPTY_INSTANCE_SECONDS);
    world.settle();
    assert_eq!(world.picture.instances.len(), 0);
    world.picture.providers.get_mut("cp").unwrap().state = ProviderState::Deleting;
    world.settle();
    assert!(world.picture.providers.is_empty());
    assert_eq!(world.memory, Memory::default(), "nothing is remembered of what is gone");
}

#[test]
fn what_has_just_started_is_not_taken_for_more_load() {
    let mut world = World::new(400);
    world.publish("a", 1);
    world.settle();
    let used = |cpu_used_millis| EnvironmentSignals {
        sampled_at: PolicyTime(1),
        cpu_used_millis,
        cpu_available_millis: 1_000,
        ..EnvironmentSignals::default()
    };
    world.picture.environments.values_mut().for_each(|environment| environment.signals = used(800));
    world.settle();
    assert_eq!(
        world.running(1),
        6,
        "2.4 CPUs at half the use of each, and three of the six not measured yet"
    );
    world.picture.environments.values_mut().for_each(|environment| environment.signals = used(400));
    world.settle();
    assert_eq!(world.running(1), 6);
}

#[test]
fn at_the_cap_one_instance_after_the_other_is_drained_when_what_replaced_the_last_one_is_ready() {
    let mut world = World::new(12);
    let key = world.publish("a", 1);
    world.picture.versions.get_mut(&key).unwrap().scaling = ScalingConfig { min: Some(9), max: Some(9) };
    world.settle();
    let first: BTreeSet<InstanceId> = world.picture.instances.keys().cloned().collect();
    assert_eq!((world.running(1), first.len()), (9, 3), "the cap is used up");
    world.now = world.now.plus_seconds(INSTANCE_AGE_SECONDS_DEFAULT);
    for round in 1..=3 {
        for _ in 0..8 {
            world.turn(|_| EnvironmentState::Starting);
            let ready = world.picture.environments.values().filter(|e| e.state == EnvironmentState::Ready);
            assert!(ready.count() >= 6, "round {round}");
        }
        let left = first.iter().filter(|id| world.picture.instances.contains_key(*id)).count();
        assert_eq!((left, world.running(1)), (3 - round, 9));
        let started = world.picture.environments.values_mut();
        started.for_each(|environment| environment.state = EnvironmentState::Ready);
    }
    world.settle();
}

#[test]
fn the_same_picture_gives_the_same_plan() {
    let mut world = World::new(400);
    world.publish("a", 1);
    let run = || decide(&world.picture, Memory::default(), PolicyTime(5), &mut Coins::from_seed(9));
    assert_eq!(run(), run());
}

#[test]
fn a_crash_loop_is_started_ever_more_slowly() {
    let mut world = World::new(400);
    world.publish("a", 1);
    world.settle();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let id = *world.picture.environments.keys().next().unwrap();
        let reason = Reason::new("Runtime.ExitError", "exit status 1");
        world.picture.environments.get_mut(&id).unwrap().state =
            EnvironmentState::Ended { reason, settled: false };
        world.turn(|_| EnvironmentState::Ready);
        assert_eq!(world.running(1), 2, "it waits");
        let at = world.last.wake_at.unwrap();
        waits.push(at.seconds_since(world.now));
        world.now = at;
        while world.running(1) < 3 {
            world.turn(|_| EnvironmentState::Ready);
            world.now = world.now.plus_seconds(1);
        }
    }
    assert_eq!(waits, [1, 2, 4, 5], "the last is the planner's own look again");
    assert_eq!(world.state(&version("a", 1).key()), VersionState::Active);
}

#[test]
fn room_that_is_about_to_come_is_waited_for() {
    let mut world = World::new(12);
    let key = world.publish("a", 1);
    world.settle();
    world.publish("b", 2);
    world.publish("c", 3);
    world.settle();
    // All twelve vCPUs are used; d comes while a is still draining.
    world.picture.versions.get_mut(&key).unwrap().state = VersionState::Deleting;
    for environment in world.picture.environments.values_mut().filter(|e| e.version == key) {
        environment.state = EnvironmentState::Draining;
    }
    let late = world.publish("d", 4);
    world.turn(|_| EnvironmentState::Ready);
    assert_eq!(world.state(&late), VersionState::Pending);
    assert!(world.last.unmet.contains_key(&late) && world.last.wake_at.is_some());
    world.picture.environments.retain(|_, e| e.version != key);
    world.settle();
    assert_eq!(world.state(&late), VersionState::Active);
}

#[test]
fn a_runtime_that_comes_back_is_found_without_being_told() {
    let mut world = World::new(400);
    let key = world.publish("a", 1);
    world.settle();
    world.picture.environments.clear();
    let installed = std::mem::take(&mut world.picture.machine.installed_runtimes);
    world.turn(|_| EnvironmentState::Ready);
    assert_eq!((world.state(&key), world.running(1)), (VersionState::Active, 0));
    assert!(world.last.wake_at.is_some(), "it looks again by itself");
    world.picture.machine.installed_runtimes = installed;
    world.settle();
    assert_eq!(world.running(1), 3);
}

#[test]
fn a_version_whose_update_failed_can_be_deactivated_and_reactivated() {
    let mut world = World::new(400);
    let key = world.publish("a", 1);
    world.settle();
    let version = world.picture.versions.get_mut(&key).unwrap();
    version.publication = publication(2);
    version.last_update = LastUpdate::Failed(Reason::new("FunctionError", "x"));
    for scaling in
        [ScalingConfig { min: Some(0), max: Some(0) }, ScalingConfig { min: Some(1), max: Some(1) }]
    {
        world.picture.versions.get_mut(&key).unwrap().scaling = scaling;
        world.settle();
    }
    assert_eq!((world.state(&key), world.running(2)), (VersionState::Active, 1));
}

/// A publication of a Lambda (default) function: 2 GiB, on demand.
fn on_demand(world: &mut World, id: u128, waiting: usize) -> PublicationId {
    let mut publication = publication(id);
    publication.configuration.managed_instances = None;
    let key = VersionKey { function: "d".into(), version: "$LATEST".into() };
    world.picture.on_demand.insert(publication.id, (key, publication));
    world.picture.demand.waiting.insert(PublicationId(id), waiting);
    PublicationId(id)
}

#[test]
fn on_demand_one_environment_starts_for_each_invocation_that_waits_and_no_more() {
    let mut world = World::new(64);
    let id = on_demand(&mut world, 7, 2);
    let starts = |plan: &Plan| {
        plan.steps.iter().filter(|(step, _)| matches!(step, Step::StartEnvironment { .. })).count()
    };
    let (plan, _) = decide(&world.picture, Memory::default(), PolicyTime(0), &mut Coins::from_seed(1));
    assert_eq!(starts(&plan), 2);
    // As they were started, so they are in the next picture.
    for (step, _) in &plan.steps {
        if let Step::StartEnvironment { id, environment } = step {
            assert_eq!(environment.instance, default_pool());
            world.picture.environments.insert(*id, environment.clone());
        }
    }
    let decide_again =
        |world: &World| decide(&world.picture, Memory::default(), PolicyTime(1), &mut Coins::from_seed(2)).0;
    assert_eq!(starts(&decide_again(&world)), 0);
    // The default pool has room for two of these; a third is refused with its reason, and so is nobody else.
    world.picture.demand.waiting.insert(id, 3);
    let plan = decide_again(&world);
    let refused = |step: &Step| match step {
        Step::Refuse { reason, whom, .. } => Some((reason.code.clone(), *whom)),
        _ => None,
    };
    assert_eq!(
        plan.steps.iter().find_map(|(step, _)| refused(step)),
        Some((NO_ROOM.into(), Whom::Newest(1)))
    );
    // An update makes its environments go.
    world.picture.on_demand.clear();
    world.picture.demand = Demand::default();
    let plan = decide_again(&world);
    assert_eq!(
        plan.steps.iter().filter(|(step, _)| matches!(step, Step::DrainEnvironment { .. })).count(),
        2
    );
}

#[test]
fn on_demand_a_failed_start_is_told_to_one_invocation_and_nothing_is_kept_running() {
    let mut world = World::new(64);
    world.picture.providers.clear();
    let publication = on_demand(&mut world, 7, 1);
    let environment = Environment {
        version: VersionKey { function: "d".into(), version: "$LATEST".into() },
        publication,
        instance: default_pool(),
        need: Need { vcpus: 2, memory_mib: 2048 },
        state: EnvironmentState::Ended { reason: Reason::new("x", "it broke"), settled: false },
        signals: EnvironmentSignals::default(),
    };
    world.picture.environments.insert(EnvironmentId(1), environment);
    world.picture.demand = Demand::default();
    let (plan, memory) = decide(&world.picture, Memory::default(), PolicyTime(0), &mut Coins::from_seed(1));
    let steps: Vec<&Step> = plan.steps.iter().map(|(step, _)| step).collect();
    assert!(
        matches!(steps[..], [Step::Refuse { whom: Whom::Oldest, .. }, Step::ForgetEnvironment { .. }]),
        "{steps:?}"
    );
    assert_eq!(memory, Memory::default());
}

fn broken() -> EnvironmentState {
    EnvironmentState::Ended { reason: Reason::new("FunctionError.RuntimeInitError", "x"), settled: false }
}

#[test]
fn what_evens_zones_out_waits_after_a_failed_start_like_every_other_start() {
    let mut world = World::new(400);
    world.publish("a", 1);
    world.settle();
    // All three are in one zone, as a fault left them.
    let one = world.picture.instances.keys().next().unwrap().clone();
    world.picture.environments.values_mut().for_each(|environment| environment.instance = one.clone());
    let mut starts = 0;
    for _ in 0..200 {
        world.turn(|_| broken());
        starts += world.last.steps.iter().filter(|(s, _)| matches!(s, Step::StartEnvironment { .. })).count();
        world.now = PolicyTime(world.now.0 + 10_000);
    }
    assert!((1..=3).contains(&starts), "{starts} starts within two seconds");
}

#[test]
fn a_version_reactivated_amid_a_roll_over_starts_only_what_is_to_serve() {
    let mut world = World::new(4);
    world.picture.providers.get_mut("cp").unwrap().subnet_ids.truncate(1);
    let key = world.publish("a", 1);
    world.settle();
    world.publish("a", 2);
    for scaling in
        [ScalingConfig { min: Some(0), max: Some(0) }, ScalingConfig { min: Some(3), max: Some(3) }]
    {
        world.picture.versions.get_mut(&key).unwrap().scaling = scaling;
        world.settle();
    }
    assert_eq!((world.state(&key), world.running(1), world.running(2)), (VersionState::Active, 0, 3));
}

#[test]
fn a_scaling_config_takes_effect_after_an_update_that_failed() {
    let mut world = World::new(400);
    let key = world.publish("a", 1);
    world.settle();
    let version = world.picture.versions.get_mut(&key).unwrap();
    version.publication = publication(2);
    version.last_update = LastUpdate::Failed(Reason::new("FunctionError", "x"));
    version.scaling = ScalingConfig { min: Some(5), max: None };
    world.settle();
    let version = &world.picture.versions[&key];
    assert_eq!((version.applied_scaling, world.running(1)), (Some(version.scaling), 5));
}

#[test]
fn a_planner_that_has_forgotten_does_not_take_old_throttles_for_new_ones() {
    let mut world = World::new(400);
    let key = world.publish("a", 1);
    world.picture.versions.get_mut(&key).unwrap().scaling = ScalingConfig { min: Some(30), max: None };
    world.settle();
    let traffic = Traffic { answered: 100, throttled: [1, 0, 0, 0] };
    world.picture.traffic.insert(PublicationId(1), traffic);
    world.memory = Memory::default();
    world.settle();
    assert_eq!(world.running(1), 30);
}
