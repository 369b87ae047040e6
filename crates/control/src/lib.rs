//! The slow loops: take one picture, let `core` decide, carry the plan out, say why.
//!
//! It reads intent from the store and reality from the agent's reports, and writes states to the store and
//! an assignment for the agent. Nothing here decides; nothing here is on the way of an invocation.

mod documents;
mod picture;
mod system_logs;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ondol_core::capacity::{
    Environment, EnvironmentState, Instance, InstanceState, Memory, Picture, Plan, Scaling, Settings, Step,
    VersionChange, decide, default_pool,
};
use ondol_core::capacity_provider::{CapacityProvider, ProviderState};
use ondol_core::coins::Coins;
use ondol_core::function::{Function, FunctionVersion, Reason, VersionKey, VersionState};
use ondol_core::identity::{EnvironmentId, Home, InstanceId, LATEST, PublicationId};
use ondol_core::instance_type::by_name;
use ondol_core::on_demand::{Demand, Whom};
use ondol_core::signals::Traffic;
use ondol_core::time::PolicyTime;
use ondol_failpoint::reach;
use ondol_observe::logs::LogSender;
use ondol_observe::{clock, notice};
use ondol_protocol::assignment::{Assignment, EnvironmentAssignment, Generation, InstanceShare, Report};
use ondol_store::{Committed, Precondition, Store, StoreError, Transaction, keys};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use documents::Documents;
use system_logs::Deed;

pub use picture::MachineFacts;

/// Decisions kept for `ondol status`.
const JOURNAL_MAX: usize = 200;

/// A plan that could not be carried out whole is made again this soon.
const RETRY_SECONDS: u64 = 2;

/// Brings an instance up, or says why it can't.
pub type Launch = Box<dyn Fn(&Instance) -> Result<(), Reason> + Send + Sync>;
/// What the front end counted of each publication.
pub type CountedTraffic = Box<dyn Fn() -> BTreeMap<PublicationId, Traffic> + Send + Sync>;

/// What the control loop has to say to the pool of Lambda (default) functions.
#[derive(Debug, Clone)]
pub enum PoolOrder {
    /// Invocations that wait for an environment are told why none comes.
    Refuse { publication: PublicationId, reason: Reason, whom: Whom },
    /// These give way, if they are idle still.
    Retire(Vec<EnvironmentId>),
}

/// How far a plan was carried out.
struct Carried {
    assignment_changed: bool,
    complete: bool,
    /// No step was refused by the store.
    stored: bool,
}

/// What the loop last saw and did, for people.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub environments: BTreeMap<EnvironmentId, Environment>,
    /// Why a version has less than it should.
    pub unmet: BTreeMap<VersionKey, Reason>,
    /// How many environments each version that serves is to have, and why.
    pub scaling: BTreeMap<VersionKey, Scaling>,
    /// The newest decisions, oldest first.
    pub journal: VecDeque<Decision>,
}

#[derive(Debug, Clone)]
pub struct Decision {
    pub at: PolicyTime,
    pub what: String,
    pub why: String,
}

pub struct Control {
    pub store: Store,
    pub home: Home,
    /// Which runtimes are installed and what the machine is; asked anew for each picture.
    pub machine: Box<dyn Fn() -> MachineFacts + Send + Sync>,
    pub assignments: watch::Sender<Arc<Assignment>>,
    pub reports: watch::Receiver<Report>,
    /// What Lambda (default) functions want now.
    pub demand: watch::Receiver<Demand>,
    /// What the pool of Lambda (default) functions is to do.
    pub pool: mpsc::UnboundedSender<PoolOrder>,
    /// Where Lambda (default) functions run.
    pub default_pool: InstanceShare,
    pub views: watch::Sender<Arc<View>>,
    pub coins: Coins,
    pub settings: Settings,
    pub launch: Launch,
    pub traffic: CountedTraffic,
    pub epoch: u64,
    pub logs: LogSender,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Control {
    /// Decides whenever something changed, until the store stops.
    pub async fn run(mut self) {
        let mut environments: BTreeMap<EnvironmentId, EnvironmentAssignment> = BTreeMap::new();
        let mut needs = BTreeMap::new();
        let mut memory = Memory::default();
        let mut documents = Documents::default();
        let mut changed = self.store.watch();
        let mut generation = 0;
        loop {
            changed.mark_unchanged();
            self.reports.mark_unchanged();
            // Looked at before the store: whoever waits for a publication found it there.
            let demand = self.demand.borrow_and_update().clone();
            let wake_at = match documents.refresh(&self.store) {
                Ok(()) => {
                    let picture = self.picture(&documents, demand, &environments, &needs);
                    let now = clock::policy();
                    let (plan, remembered) = decide(&picture, memory, now, &mut self.coins);
                    memory = remembered;
                    let carried = self.carry_out(&plan, &mut environments, &mut needs).await;
                    if carried.assignment_changed {
                        generation += 1;
                        let generation = Generation { epoch: self.epoch, number: generation };
                        let assignment = Assignment { generation, environments: environments.clone() };
                        self.assignments.send_replace(Arc::new(assignment));
                    }
                    self.show(&plan, picture.environments, now);
                    if carried.complete { plan.wake_at } else { Some(now.plus_seconds(RETRY_SECONDS)) }
                }
                Err(error) => {
                    notice::error(&format!("taking a picture of the store: {error}; trying again"));
                    (memory, documents) = (Memory::default(), Documents::default());
                    Some(clock::policy().plus_seconds(RETRY_SECONDS))
                }
            };
            let sleep = wake_at.map(clock::until);
            tokio::select! {
                ended = changed.changed() => if ended.is_err() { return },
                ended = self.reports.changed() => if ended.is_err() { return },
                ended = self.demand.changed() => if ended.is_err() { return },
                () = async { match sleep {
                    Some(sleep) => tokio::time::sleep(sleep).await,
                    None => std::future::pending().await,
                } } => {}
            }
        }
    }

    fn picture(
        &self,
        documents: &Documents,
        demand: Demand,
        environments: &BTreeMap<EnvironmentId, EnvironmentAssignment>,
        needs: &BTreeMap<EnvironmentId, Environment>,
    ) -> Picture {
        let report = self.reports.borrow().clone();
        let environments = needs
            .iter()
            .map(|(id, environment)| {
                let signals =
                    report.environments.get(id).map(|reported| reported.signals).unwrap_or_default();
                let reported = report.environments.get(id).map(|reported| reported.state.clone());
                let draining = environments.get(id).is_some_and(|assigned| assigned.draining);
                let state = match reported {
                    // What was told to drain is draining, until it is over.
                    Some(EnvironmentState::Ready | EnvironmentState::Starting) if draining => {
                        EnvironmentState::Draining
                    }
                    Some(state) => state,
                    None if draining => EnvironmentState::Draining,
                    None => EnvironmentState::Starting,
                };
                (*id, Environment { state, signals, ..environment.clone() })
            })
            .collect();
        let machine = MachineFacts { signals: report.machine, ..(self.machine)() };
        let seen = picture::Seen { environments, demand, machine, traffic: (self.traffic)() };
        picture::take(documents, &self.home, self.settings, seen)
    }

    /// Carries a plan out in its order. Once the store refused a step, those that need it are left for the next
    /// plan; environments are started and ended all the same, as a full disk must not keep them down.
    async fn carry_out(
        &self,
        plan: &Plan,
        environments: &mut BTreeMap<EnvironmentId, EnvironmentAssignment>,
        needs: &mut BTreeMap<EnvironmentId, Environment>,
    ) -> Carried {
        let mut carried = Carried { assignment_changed: false, complete: true, stored: true };
        for (step, _) in &plan.steps {
            reach(&format!("control.before-{}", name(step)));
            let done = match step {
                Step::StartEnvironment { id, environment } => {
                    match self.assign(environment) {
                        Some(assigned) => {
                            environments.insert(*id, assigned);
                            needs.insert(*id, environment.clone());
                            carried.assignment_changed = true;
                        }
                        None => carried.complete = false,
                    }
                    Ok(())
                }
                Step::DrainEnvironment { id } => {
                    if let Some(assigned) = environments.get_mut(id) {
                        assigned.draining = true;
                        carried.assignment_changed = true;
                    }
                    Ok(())
                }
                Step::ForgetEnvironment { id } => {
                    needs.remove(id);
                    carried.assignment_changed |= environments.remove(id).is_some();
                    Ok(())
                }
                // Whoever hears these is gone only when the server ends.
                Step::Refuse { publication, reason, whom } => {
                    let (publication, reason, whom) = (*publication, reason.clone(), *whom);
                    let _ = self.pool.send(PoolOrder::Refuse { publication, reason, whom });
                    Ok(())
                }
                Step::Retire { environments } => {
                    let _ = self.pool.send(PoolOrder::Retire(environments.clone()));
                    Ok(())
                }
                // What comes after a refused step may rest on it.
                _ if !carried.stored => continue,
                stored => self.store_step(stored).await,
            };
            reach(&format!("control.after-{}", name(step)));
            if let Err(error) = done {
                notice::error(&format!("carrying out {step:?}: {error}"));
                (carried.complete, carried.stored) = (false, false);
            }
        }
        carried
    }

    /// The assignment of a planned environment; `None` if what it is for has just gone.
    fn assign(&self, environment: &Environment) -> Option<EnvironmentAssignment> {
        let Environment { version, publication, instance, .. } = environment;
        let wanted = if *instance == default_pool() && version.version == LATEST {
            let (function, _) =
                self.store.document::<Function>(&keys::function(&version.function)).ok()??;
            function.publication().filter(|latest| latest.id == *publication)?
        } else {
            let key = keys::version(&version.function, &version.version);
            let (document, _) = self.store.document::<FunctionVersion>(&key).ok()??;
            [Some(document.publication), document.serving]
                .into_iter()
                .flatten()
                .find(|p| p.id == *publication)?
        };
        Some(EnvironmentAssignment {
            version: version.clone(),
            function_arn: self.home.function_arn(&version.function, Some(&version.version)).into(),
            publication: Arc::new(wanted),
            instance: self.share(instance)?,
            draining: false,
        })
    }

    /// The share of the machine an instance is; the default pool is all of it.
    fn share(&self, id: &InstanceId) -> Option<InstanceShare> {
        if *id == default_pool() {
            return Some(self.default_pool.clone());
        }
        let (instance, _) = self.store.document::<Instance>(&keys::instance(&id.0)).ok()??;
        let instance_type = by_name(&instance.instance_type)?;
        Some(InstanceShare {
            id: instance.id,
            availability_zone: instance.availability_zone,
            vcpus: instance_type.vcpus,
            memory_mib: instance_type.memory_mib,
        })
    }

    /// A document that changed meanwhile is left alone: the change wakes the loop, and it decides again.
    async fn store_step(&self, step: &Step) -> Result<(), StoreError> {
        let instance = match step {
            Step::LaunchInstance(instance) => Some(self.launched(instance)),
            Step::TerminateInstance { id } => {
                self.store.document(&keys::instance(&id.0))?.map(|(found, _)| found)
            }
            _ => None,
        };
        let launches = matches!(step, Step::LaunchInstance(_));
        // What never came up has no end of its own.
        let instance =
            instance.filter(|found| launches || !matches!(found.state, InstanceState::LaunchFailed(_)));
        if let Some(found) = &instance {
            self.system_log(found, &if launches { Deed::Launching } else { Deed::Terminating });
        }
        let transaction = match step {
            Step::ActivateProvider { name } => {
                let key = keys::capacity_provider(name);
                let Some((mut provider, revision)) = self.store.document::<CapacityProvider>(&key)? else {
                    return Ok(());
                };
                if provider.state != ProviderState::Pending {
                    return Ok(());
                }
                provider.state = ProviderState::Active;
                Transaction::default()
                    .when(Precondition::Unchanged(key.clone(), revision))
                    .put(key, &provider)
            }
            Step::LaunchInstance(Instance { id, .. }) => {
                let key = keys::instance(&id.0);
                let absent = Transaction::default().when(Precondition::Absent(key.clone()));
                match &instance {
                    Some(instance) => absent.put(key, instance),
                    None => absent,
                }
            }
            Step::TerminateInstance { id } => Transaction::default().delete(keys::instance(&id.0)),
            Step::RemoveProvider { name } => {
                let leaves = |provider: &CapacityProvider| provider.state == ProviderState::Deleting;
                return self.remove(keys::capacity_provider(name), leaves).await;
            }
            Step::RemoveFunction { name } => {
                return self.remove(keys::function(name), |function: &Function| function.deleting).await;
            }
            Step::RemoveVersion { key } => {
                let leaves = |version: &FunctionVersion| version.state == VersionState::Deleting;
                return self.remove(keys::version(&key.function, &key.version), leaves).await;
            }
            Step::SetVersion { key, publication, change } => {
                let key = keys::version(&key.function, &key.version);
                let Some((version, revision)) = self.store.document::<FunctionVersion>(&key)? else {
                    return Ok(());
                };
                let Some(version) = changed(version, *publication, change) else { return Ok(()) };
                Transaction::default().when(Precondition::Unchanged(key.clone(), revision)).put(key, &version)
            }
            Step::StartEnvironment { .. }
            | Step::DrainEnvironment { .. }
            | Step::ForgetEnvironment { .. }
            | Step::Refuse { .. }
            | Step::Retire { .. } => return Ok(()),
        };
        let committed = self.store.commit(transaction).await;
        if let Some(instance) = &instance {
            let deed = match (&committed, &instance.state) {
                (Ok(_), InstanceState::LaunchFailed(reason)) => Deed::LaunchFailed(reason.text.clone()),
                (Ok(_), _) if launches => Deed::Launched,
                (Ok(_), _) => Deed::Terminated,
                (Err(error), _) if launches => Deed::LaunchFailed(error.to_string()),
                (Err(_), _) => Deed::TerminateFailed,
            };
            self.system_log(instance, &deed);
        }
        match committed? {
            Committed::At(_) | Committed::Conflict => Ok(()),
        }
    }

    /// The instance as it is after its launch.
    fn launched(&self, instance: &Instance) -> Instance {
        let state = match (self.launch)(instance) {
            Ok(()) => InstanceState::Running,
            Err(reason) => InstanceState::LaunchFailed(reason),
        };
        Instance { state, ..instance.clone() }
    }

    /// Removes what still is to be removed: a restore may have brought it back since the decision.
    async fn remove<T: DeserializeOwned>(
        &self,
        key: String,
        leaves: impl Fn(&T) -> bool,
    ) -> Result<(), StoreError> {
        if let Some((_, revision)) = self.store.document::<T>(&key)?.filter(|(found, _)| leaves(found)) {
            let unchanged = Precondition::Unchanged(key.clone(), revision);
            self.store.commit(Transaction::default().when(unchanged).delete(key)).await?;
        }
        Ok(())
    }

    /// A line in the log of an instance's capacity provider.
    fn system_log(&self, instance: &Instance, deed: &Deed) {
        let key = keys::capacity_provider(&instance.capacity_provider);
        // A provider that is gone has no log any more.
        if let Ok(Some((provider, _))) = self.store.document::<CapacityProvider>(&key) {
            system_logs::write(&self.logs, &self.home, &provider, instance, deed);
        }
    }

    fn show(&self, plan: &Plan, environments: BTreeMap<EnvironmentId, Environment>, now: PolicyTime) {
        let mut view = View::clone(&self.views.borrow());
        for (version, reason) in plan.unmet.iter().filter(|(version, _)| !view.unmet.contains_key(version)) {
            notice::warning(&format!("{version}: {} ({})", reason.text, reason.code));
        }
        view.environments = environments;
        view.unmet.clone_from(&plan.unmet);
        view.scaling.clone_from(&plan.scaling);
        for (step, why) in &plan.steps {
            if view.journal.len() == JOURNAL_MAX {
                view.journal.pop_front();
            }
            view.journal.push_back(Decision { at: now, what: describe(step), why: why.clone() });
        }
        self.views.send_replace(Arc::new(view));
    }
}

/// The version after a change; `None` if it has moved on since the decision.
fn changed(
    mut version: FunctionVersion,
    publication: PublicationId,
    change: &VersionChange,
) -> Option<FunctionVersion> {
    let is_current = version.publication.id == publication && version.state != VersionState::Deleting;
    is_current.then(|| {
        change.apply(&mut version);
        version
    })
}

/// A step's name, for the points at which tests kill the server.
fn name(step: &Step) -> &'static str {
    match step {
        Step::ActivateProvider { .. } => "activate-provider",
        Step::RemoveProvider { .. } => "remove-provider",
        Step::LaunchInstance(_) => "launch-instance",
        Step::TerminateInstance { .. } => "terminate-instance",
        Step::StartEnvironment { .. } => "start-environment",
        Step::DrainEnvironment { .. } => "drain-environment",
        Step::ForgetEnvironment { .. } => "forget-environment",
        Step::SetVersion { change: VersionChange::Activate, .. } => "activate-version",
        Step::SetVersion { change: VersionChange::ApplyScaling, .. } => "apply-scaling",
        Step::SetVersion { change: VersionChange::Fail(_), .. } => "fail-version",
        Step::SetVersion { change: VersionChange::FailUpdate(_), .. } => "fail-update",
        Step::SetVersion { change: VersionChange::Deactivate, .. } => "deactivate-version",
        Step::SetVersion { change: VersionChange::Deactivated, .. } => "deactivated-version",
        Step::SetVersion { change: VersionChange::Reactivate, .. } => "reactivate-version",
        Step::RemoveVersion { .. } => "remove-version",
        Step::RemoveFunction { .. } => "remove-function",
        Step::Refuse { .. } => "refuse",
        Step::Retire { .. } => "retire",
    }
}

fn describe(step: &Step) -> String {
    match step {
        Step::ActivateProvider { name } => format!("activated capacity provider {name}"),
        Step::RemoveProvider { name } => format!("removed capacity provider {name}"),
        Step::LaunchInstance(instance) => {
            format!("launching {} {} in {}", instance.instance_type, instance.id, instance.availability_zone)
        }
        Step::TerminateInstance { id } => format!("terminated instance {id}"),
        Step::StartEnvironment { id, environment } => {
            format!(
                "started execution environment {id} of {} on {}",
                environment.version, environment.instance
            )
        }
        Step::DrainEnvironment { id } => format!("draining execution environment {id}"),
        Step::ForgetEnvironment { id } => format!("execution environment {id} ended"),
        Step::SetVersion { key, change, .. } => format!("{key}: {}", describe_change(change)),
        Step::RemoveVersion { key } => format!("removed {key}"),
        Step::RemoveFunction { name } => format!("removed function {name}"),
        Step::Refuse { reason, .. } => format!("refused waiting invocations ({})", reason.code),
        Step::Retire { environments } => {
            format!("retired {} idle execution environments", environments.len())
        }
    }
}

fn describe_change(change: &VersionChange) -> String {
    match change {
        VersionChange::Activate => "Active".into(),
        VersionChange::ApplyScaling => "its scaling config is in effect".into(),
        VersionChange::Fail(reason) => format!("Failed ({})", reason.code),
        VersionChange::FailUpdate(reason) => {
            format!("its update failed ({}); the version before serves on", reason.code)
        }
        VersionChange::Deactivate => "Deactivating".into(),
        VersionChange::Deactivated => "Deactivated".into(),
        VersionChange::Reactivate => "Pending".into(),
    }
}
