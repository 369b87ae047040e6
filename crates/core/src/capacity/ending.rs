//! What is over: environments that ended, what belongs to nothing, and what is being deleted.

use std::collections::BTreeSet;

use crate::capacity_provider::ProviderState;
use crate::function::{FunctionVersion, VersionKey, VersionState};
use crate::identity::PublicationId;
use crate::on_demand::Whom;

use super::{EnvironmentState, Failures, Planner, Step, default_pool};

impl Planner<'_> {
    /// Failed starts are counted and set the back-off; what ended is forgotten.
    pub(super) fn ended_environments(&mut self) {
        let picture = self.picture;
        for (id, environment) in &picture.environments {
            let EnvironmentState::Ended { reason, settled } = &environment.state else { continue };
            let (id, publication, settled) = (*id, environment.publication, *settled);
            if environment.instance == default_pool() {
                // Nothing is kept running: the invocation it was started for hears why, and the next one tries again.
                if !settled {
                    let refuse = Step::Refuse { publication, reason: reason.clone(), whom: Whom::Oldest };
                    self.step(refuse, reason.text.clone());
                }
            } else if !settled {
                let failures =
                    Failures::after(self.memory.failures.get(&publication), reason.clone(), self.now);
                self.memory.failures.insert(publication, failures);
            }
            self.step(Step::ForgetEnvironment { id }, reason.text.clone());
        }
    }

    /// Environments of versions that are no more, and of instances that are no more.
    pub(super) fn orphans(&mut self) {
        let picture = self.picture;
        let pool = default_pool();
        let is_orphan = |version: &VersionKey| !picture.versions.contains_key(version);
        let mut orphans = Vec::new();
        let mut stranded = Vec::new();
        for (number, member) in self.fleet.members.iter().enumerate() {
            let Some(seen) = member.seen.filter(|seen| member.is_running() && seen.instance != pool) else {
                continue;
            };
            if is_orphan(&seen.version) {
                orphans.push(number);
            } else if self.fleet.hosts.get(member.host).is_none() {
                stranded.push(number);
            }
        }
        self.drain(&orphans, "its function version was deleted");
        self.drain(&stranded, "its instance is gone");
    }

    /// Failures of publications that no version has any more, and scaling of versions that are gone.
    pub(super) fn forget(&mut self) {
        let versions = self.picture.versions.values();
        let known: BTreeSet<PublicationId> = versions
            .flat_map(|version| [Some(&version.publication), version.serving.as_ref()])
            .flatten()
            .map(|publication| publication.id)
            .collect();
        self.memory.failures.retain(|publication, _| known.contains(publication));
        self.memory.scaling.retain(|version, _| self.picture.versions.contains_key(version));
        self.memory.launch_failures.retain(|(provider, _), _| self.picture.providers.contains_key(provider));
    }

    /// What is Deleting goes when nothing of it runs any more.
    pub(super) fn removals(&mut self) {
        let picture = self.picture;
        let mut left: BTreeSet<&str> = BTreeSet::new();
        for (key, version) in &picture.versions {
            let is_over =
                version.state == VersionState::Deleting && self.fleet.of_version(key).next().is_none();
            if is_over {
                self.step(
                    Step::RemoveVersion { key: FunctionVersion::key(version) },
                    "its last execution environment ended",
                );
            } else {
                left.insert(&key.function);
            }
        }
        for name in &picture.functions_deleting {
            if !left.contains(name.as_str()) {
                self.step(Step::RemoveFunction { name: name.clone() }, "its last version is gone");
            }
        }
        for (number, provider) in picture.providers.values().enumerate() {
            let is_over = self.fleet.providers[number].instances == 0;
            if provider.state == ProviderState::Deleting && is_over {
                self.step(Step::RemoveProvider { name: provider.name.clone() }, "its last instance ended");
            }
        }
    }
}
