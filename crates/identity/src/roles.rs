//! Roles with their policies read: a snapshot without locks, kept fresh by the store's change feed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use ondol_core::identity::Home;
use ondol_core::policy::{Context, MalformedPolicy, Policy, PolicyUse};
use ondol_observe::notice;
use ondol_store::{Changes, Revision, Store, keys};

use crate::managed_policies::aws_managed_policy;
use crate::nouns::{ManagedPolicy, Role};

/// A role and what it may do.
#[derive(Debug)]
pub struct RolePolicies {
    pub arn: String,
    /// `AROA…`
    pub id: String,
    pub trust: Policy,
    /// Inline and attached.
    pub identity: Vec<Arc<Policy>>,
    pub permissions_boundary: Option<Arc<Policy>>,
    pub tags: BTreeMap<String, String>,
    pub max_session_duration_seconds: u32,
    /// The managed policies it depends on.
    managed: Vec<String>,
}

impl RolePolicies {
    /// Tells a decision about the role of its tags.
    pub fn add_tags(&self, context: &mut Context) {
        for (key, value) in &self.tags {
            for prefix in ["aws", "iam"] {
                context.add(format!("{prefix}:ResourceTag/{key}"), value);
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Snapshot {
    roles: HashMap<String, Arc<RolePolicies>>,
    /// Those of the customer, by ARN.
    managed: HashMap<String, Arc<Policy>>,
}

/// All roles; reading takes no lock.
#[derive(Debug)]
pub struct Roles {
    home: Home,
    snapshot: ArcSwap<Snapshot>,
    /// One update at a time: the feed, and operations that show what they wrote.
    updating: Mutex<()>,
}

impl Roles {
    pub fn new(home: Home) -> Arc<Self> {
        Arc::new(Self { home, snapshot: ArcSwap::default(), updating: Mutex::default() })
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    /// A role by its name without a path.
    pub fn policies_of(&self, role_name: &str) -> Option<Arc<RolePolicies>> {
        self.snapshot.load().roles.get(role_name).cloned()
    }

    /// A role by its ARN, path and all.
    pub fn by_arn(&self, role_arn: &str) -> Option<Arc<RolePolicies>> {
        let name = role_arn.rsplit('/').next()?;
        self.policies_of(name).filter(|role| role.arn == role_arn)
    }

    /// A managed policy, of AWS or of the customer.
    pub fn managed_policy(&self, arn: &str) -> Option<Arc<Policy>> {
        self.snapshot.load().managed.get(arn).cloned().or_else(|| Some(aws_managed_policy(arn)?.1))
    }

    /// Fills the snapshot from the store's mirror; gives the revision to follow from.
    pub fn read_all(&self, store: &Store) -> Revision {
        let revision = store.revision();
        let names = |prefix: &str| -> Vec<String> {
            store.scan(prefix, None, usize::MAX).into_iter().map(|(key, _)| key).collect()
        };
        let keys = [names(keys::IAM_POLICIES), names(keys::IAM_ROLES)].concat();
        self.update(store, &keys, Snapshot::default);
        revision
    }

    /// Follows the feed from what `read_all` gave until the store stops.
    pub async fn follow(self: Arc<Self>, store: Store, mut at: Revision) {
        let mut changed = store.watch();
        changed.mark_changed();
        while changed.changed().await.is_ok() {
            at = match store.changes(at) {
                Changes::Compacted(_) => self.read_all(&store),
                Changes::Events(events) => {
                    let newest = events.last().map_or(at, |change| change.revision);
                    let keys: Vec<String> = events.into_iter().map(|change| change.key).collect();
                    self.refresh(&store, &keys);
                    newest
                }
            };
        }
    }

    /// Reads documents anew, so that an operation that wrote them finds them as soon as it has answered.
    pub fn refresh(&self, store: &Store, keys: &[String]) {
        if keys.iter().any(|key| key.starts_with(keys::IAM_ROLES) || key.starts_with(keys::IAM_POLICIES)) {
            self.update(store, keys, || Snapshot::clone(&self.snapshot.load()));
        }
    }

    fn update(&self, store: &Store, keys: &[String], start: impl FnOnce() -> Snapshot) {
        let _one = self.updating.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut snapshot = start();
        let mut names: Vec<String> = Vec::new();
        for key in keys {
            if let Some(arn) = key.strip_prefix(keys::IAM_POLICIES) {
                match read_managed(store, arn) {
                    Some(policy) => drop(snapshot.managed.insert(arn.to_owned(), Arc::new(policy))),
                    None => drop(snapshot.managed.remove(arn)),
                }
                let depends = |role: &RolePolicies| role.managed.iter().any(|other| other == arn);
                let who = snapshot.roles.iter().filter(|(_, role)| depends(role));
                names.extend(who.map(|(name, _)| name.clone()));
            } else if let Some(name) = key.strip_prefix(keys::IAM_ROLES) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        names.dedup();
        for name in names {
            match self.read_role(store, &snapshot, &name) {
                Some(role) => drop(snapshot.roles.insert(name, Arc::new(role))),
                None => drop(snapshot.roles.remove(&name)),
            }
        }
        self.snapshot.store(Arc::new(snapshot));
    }

    /// A role that cannot be read whole is as good as none: without one of its policies it might be allowed
    /// what that policy denies.
    fn read_role(&self, store: &Store, snapshot: &Snapshot, name: &str) -> Option<RolePolicies> {
        let (role, _) = match store.document::<Role>(&keys::iam_role(name)) {
            Ok(found) => found?,
            Err(error) => {
                notice::error(&error.to_string());
                return None;
            }
        };
        let read = || -> Result<RolePolicies, MalformedPolicy> {
            let managed = |arn: &String| {
                snapshot.managed.get(arn).cloned().or_else(|| Some(aws_managed_policy(arn)?.1)).ok_or_else(
                    || MalformedPolicy {
                        message: format!("Policy {arn} does not exist or is not attachable."),
                    },
                )
            };
            let inline = role.inline_policies.values();
            let mut identity = inline
                .map(|text| Policy::parse(text, PolicyUse::Identity).map(Arc::new))
                .collect::<Result<Vec<_>, _>>()?;
            for arn in &role.attached_policies {
                identity.push(managed(arn)?);
            }
            Ok(RolePolicies {
                arn: role.arn(&self.home),
                id: role.id.clone(),
                trust: Policy::parse(&role.trust_policy, PolicyUse::Trust)?,
                identity,
                permissions_boundary: role.permissions_boundary.as_ref().map(managed).transpose()?,
                tags: role.tags.clone(),
                max_session_duration_seconds: role.max_session_duration_seconds,
                managed: role.attached_policies.iter().chain(&role.permissions_boundary).cloned().collect(),
            })
        };
        read().map_err(|error| notice::error(&format!("the role {name} may do nothing: {error}"))).ok()
    }
}

fn read_managed(store: &Store, arn: &str) -> Option<Policy> {
    let (policy, _) = store.document::<ManagedPolicy>(&keys::iam_policy(arn)).ok()??;
    Policy::parse(policy.document()?, PolicyUse::Identity).ok()
}
