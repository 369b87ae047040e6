//! Names to publications: an immutable snapshot, kept fresh by the store's change feed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ondol_core::function::{Function, FunctionVersion, VersionKey, VersionState};
use ondol_core::identity::{Home, LATEST_PUBLISHED, PublicationId, Qualifier};
use ondol_store::{Changes, Revision, Store, keys};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::SERVICE;

/// Where an invocation goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub version: Arc<VersionKey>,
    pub publication: PublicationId,
    pub timeout_millis: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Route {
    Ready(Target),
    NotReady(VersionState),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct FunctionRoutes {
    versions: BTreeMap<String, Route>,
}

/// Shared by all shards; reading it takes no lock.
#[derive(Debug)]
pub struct Directory {
    home: Home,
    functions: ArcSwap<HashMap<String, Arc<FunctionRoutes>>>,
}

impl Directory {
    pub fn new(home: Home) -> Arc<Self> {
        Arc::new(Self { home, functions: ArcSwap::default() })
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The publication that answers for a name and qualifier, or AWS's answer why none does.
    pub fn resolve(&self, name: &str, qualifier: Option<&Qualifier>) -> Result<Target, Fault> {
        let text = qualifier.map(ToString::to_string);
        let not_found = || {
            let arn = self.home.function_arn(name, text.as_deref());
            Fault::of(&SERVICE, "ResourceNotFoundException", format!("Function not found: {arn}"))
        };
        let functions = self.functions.load();
        let routes = functions.get(name).ok_or_else(not_found)?;
        let version = match qualifier {
            None | Some(Qualifier::LatestPublished) => LATEST_PUBLISHED,
            Some(Qualifier::Latest) => return Err(latest_is_not_invocable(routes)),
            Some(Qualifier::Version(_)) => text.as_deref().unwrap_or_default(),
            Some(Qualifier::Alias(_)) => return Err(not_found()),
        };
        match routes.versions.get(version) {
            Some(Route::Ready(target)) => Ok(target.clone()),
            Some(Route::NotReady(state)) => Err(Fault::of(
                &SERVICE,
                "ResourceConflictException",
                format!(
                    "The operation cannot be performed at this time. The function is currently in the following state: {state}"
                ),
            )),
            None if qualifier.is_none() => Err(no_published_version()),
            None => Err(not_found()),
        }
    }

    /// Follows the feed from what `read_all` gave until the store stops.
    pub async fn follow(self: Arc<Self>, store: Store, mut at: Revision) {
        let mut changed = store.watch();
        changed.mark_changed();
        while changed.changed().await.is_ok() {
            at = match store.changes(at) {
                Changes::Compacted(_) => self.read_all(&store),
                Changes::Events(events) => {
                    let mut names: Vec<&str> =
                        events.iter().filter_map(|change| keys::function_of(&change.key)).collect();
                    names.sort_unstable();
                    names.dedup();
                    let newest = events.last().map_or(at, |change| change.revision);
                    if !names.is_empty() {
                        self.update(&store, HashMap::clone(&self.functions.load()), &names);
                    }
                    newest
                }
            };
        }
    }

    /// Fills the snapshot from the store's mirror; gives the revision to follow from.
    pub fn read_all(&self, store: &Store) -> Revision {
        let revision = store.revision();
        let keys: Vec<String> =
            store.scan(keys::FUNCTIONS, None, usize::MAX).into_iter().map(|(key, _)| key).collect();
        let names: Vec<&str> = keys.iter().filter_map(|key| keys::function_of(key)).collect();
        self.update(store, HashMap::new(), &names);
        revision
    }

    /// Reads these functions anew and swaps the snapshot once.
    fn update(&self, store: &Store, mut functions: HashMap<String, Arc<FunctionRoutes>>, names: &[&str]) {
        for name in names {
            match read(store, name) {
                Some(routes) => drop(functions.insert((*name).to_owned(), Arc::new(routes))),
                None => drop(functions.remove(*name)),
            }
        }
        self.functions.store(Arc::new(functions));
    }
}

fn read(store: &Store, name: &str) -> Option<FunctionRoutes> {
    // A document this build cannot read is as good as absent here; the API answers for it.
    let (function, _) = store.document::<Function>(&keys::function(name)).ok()??;
    let versions: Vec<FunctionVersion> = store.all(&keys::versions_of(name)).unwrap_or_default();
    let routes = versions.into_iter().map(|version| {
        let key = version.key();
        let route = match version.serving {
            Some(serving) if version.state == VersionState::Active && !function.deleting => {
                Route::Ready(Target {
                    version: Arc::new(key),
                    publication: serving.id,
                    timeout_millis: u64::from(serving.configuration.timeout_seconds) * 1_000,
                })
            }
            _ => Route::NotReady(version.state),
        };
        (version.version, route)
    });
    Some(FunctionRoutes { versions: routes.collect() })
}

fn latest_is_not_invocable(routes: &FunctionRoutes) -> Fault {
    if routes.versions.contains_key(LATEST_PUBLISHED) {
        Fault::of(
            &SERVICE,
            "InvalidParameterValueException",
            "Functions configured with capacity provider configuration can't be invoked with $LATEST qualifier. To invoke this function, specify a published version qualifier or $LATEST.PUBLISHED.",
        )
    } else {
        no_published_version()
    }
}

fn no_published_version() -> Fault {
    Fault::of(
        &SERVICE,
        "NoPublishedVersionException",
        "The function can't be invoked because no published version exists. For functions with capacity provider configuration, either publish a version to $LATEST.PUBLISHED, or specify a published version qualifier.",
    )
}
