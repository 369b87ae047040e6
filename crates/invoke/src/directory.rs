//! Names to publications: an immutable snapshot, kept fresh by the store's change feed.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use ondol_core::attached::{Alias, Attached, FunctionUrl};
use ondol_core::coins::Coins;
use ondol_core::function::{Function, FunctionVersion, Publication, VersionKey, VersionState};
use ondol_core::identity::{Home, LATEST, LATEST_PUBLISHED, PublicationId, Qualifier};
use ondol_core::policy::{Context, Policy};
use ondol_core::signals::Traffic;
use ondol_store::{Changes, Revision, Store, keys};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::SERVICE;
use tokio::sync::watch;

use crate::meter::Meter;

/// Where an invocation goes.
#[derive(Debug, Clone)]
pub struct Target {
    pub version: Arc<VersionKey>,
    pub publication: PublicationId,
    pub timeout_millis: u64,
    /// What bounds it, for a Lambda (default) function.
    pub on_demand: Option<OnDemandLimits>,
    pub meter: Arc<Meter>,
}

/// The concurrency a Lambda (default) function counts against.
#[derive(Debug, Clone)]
pub struct OnDemandLimits {
    pub reserved: Option<u32>,
    /// Running invocations of the function, all versions together.
    pub running: Arc<AtomicU32>,
}

#[derive(Debug, Clone)]
enum Route {
    Ready(Target),
    NotReady(VersionState),
}

#[derive(Debug, Clone)]
struct AliasRoute {
    version: String,
    /// Another version, and its share between 0 and 1.
    other: Option<(String, f64)>,
}

#[derive(Debug, Clone, Default)]
struct FunctionRoutes {
    /// `$LATEST` among them, where it can be invoked.
    versions: BTreeMap<String, Route>,
    aliases: BTreeMap<String, AliasRoute>,
    /// Resource policies, by qualifier; that of `$LATEST` is under the empty one.
    policies: BTreeMap<String, Arc<Policy>>,
    tags: BTreeMap<String, String>,
    urls: Vec<(String, Arc<UrlRoute>)>,
    is_on_demand: bool,
    reserved: Option<u32>,
    running: Arc<AtomicU32>,
}

/// Cut into parts by a hash of the name, so that a change copies one part and not all of them.
#[derive(Debug, Clone)]
struct Functions(Vec<Arc<Part>>);

type Part = HashMap<Arc<str>, Arc<FunctionRoutes>>;

const PARTS: usize = 256;

impl Default for Functions {
    fn default() -> Self {
        Self((0..PARTS).map(|_| Arc::default()).collect())
    }
}

impl Functions {
    fn place(name: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        usize::try_from(hasher.finish() % PARTS as u64).unwrap_or_default()
    }

    fn get(&self, name: &str) -> Option<&Arc<FunctionRoutes>> {
        self.0[Self::place(name)].get(name)
    }

    /// Puts or takes away the routes of a function; gives those that were there.
    fn set(&mut self, name: &str, routes: Option<FunctionRoutes>) -> Option<Arc<FunctionRoutes>> {
        let part = Arc::make_mut(&mut self.0[Self::place(name)]);
        match routes {
            Some(routes) => part.insert(name.into(), Arc::new(routes)),
            None => part.remove(name),
        }
    }
}

/// What a function URL leads to.
#[derive(Debug)]
pub struct UrlRoute {
    pub function: Arc<str>,
    pub qualifier: Option<Qualifier>,
    pub auth_type: String,
    invoke_mode: String,
    pub cors: Option<serde_json::Value>,
}

impl UrlRoute {
    fn of(function: &str, qualifier: Option<Qualifier>, url: &FunctionUrl) -> (String, Arc<Self>) {
        let FunctionUrl { id, auth_type, invoke_mode, cors, .. } = url.clone();
        (id, Arc::new(Self { function: function.into(), qualifier, auth_type, invoke_mode, cors }))
    }

    /// Whether requests must be signed.
    pub fn is_signed(&self) -> bool {
        self.auth_type != "NONE"
    }

    pub fn is_streamed(&self) -> bool {
        self.invoke_mode == "RESPONSE_STREAM"
    }
}

#[derive(Debug, Default)]
struct Snapshot {
    functions: Functions,
    /// By the id in their address.
    urls: Arc<HashMap<String, Arc<UrlRoute>>>,
    /// What functions have reserved, all together.
    reserved: u32,
}

/// Shared by all shards; reading it takes no lock.
#[derive(Debug)]
pub struct Directory {
    home: Home,
    concurrent_executions: u32,
    snapshot: ArcSwap<Snapshot>,
    /// Told of every new snapshot.
    updated: watch::Sender<()>,
    /// Running invocations of functions without reserved concurrency.
    pub unreserved_running: Arc<AtomicU32>,
    /// The meters of what can be invoked, for as long as it can.
    meters: Mutex<BTreeMap<PublicationId, Weak<Meter>>>,
}

impl Directory {
    pub fn new(home: Home, concurrent_executions: u32) -> Arc<Self> {
        let (snapshot, unreserved_running) = (ArcSwap::default(), Arc::default());
        let updated = watch::Sender::default();
        let meters = Mutex::default();
        Arc::new(Self { home, concurrent_executions, snapshot, updated, unreserved_running, meters })
    }

    /// What was counted of each publication that can be invoked.
    pub fn traffic(&self) -> BTreeMap<PublicationId, Traffic> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        meters.retain(|_, meter| meter.strong_count() > 0);
        let counted = meters.iter().filter_map(|(id, meter)| Some((*id, meter.upgrade()?.read())));
        counted.filter(|(_, traffic)| *traffic != Traffic::default()).collect()
    }

    fn meter(&self, publication: PublicationId) -> Arc<Meter> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = meters.get(&publication).and_then(Weak::upgrade) {
            return meter;
        }
        let meter = Arc::default();
        meters.insert(publication, Arc::downgrade(&meter));
        meter
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Tells of every new snapshot from here on.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.updated.subscribe()
    }

    /// What functions without reserved concurrency share.
    pub fn unreserved(&self) -> u32 {
        self.concurrent_executions.saturating_sub(self.snapshot.load().reserved)
    }

    /// The resource policy of what is invoked. `None` also where there is no such function.
    pub fn policy(&self, name: &str, qualifier: Option<&Qualifier>) -> Option<Arc<Policy>> {
        let qualifier = qualifier.filter(|q| **q != Qualifier::Latest).map(ToString::to_string);
        let snapshot = self.snapshot.load();
        snapshot.functions.get(name)?.policies.get(&qualifier.unwrap_or_default()).cloned()
    }

    /// What a function URL leads to, by the id in its address.
    pub fn url(&self, id: &str) -> Option<Arc<UrlRoute>> {
        self.snapshot.load().urls.get(id).cloned()
    }

    /// Tells a decision about a function of its tags.
    pub fn add_tags(&self, name: &str, context: &mut Context) {
        let snapshot = self.snapshot.load();
        for (key, value) in snapshot.functions.get(name).into_iter().flat_map(|routes| &routes.tags) {
            context.add(format!("aws:ResourceTag/{key}"), value);
        }
    }

    /// The publication that answers for a name and qualifier, or AWS's answer why none does.
    pub fn resolve(
        &self,
        name: &str,
        qualifier: Option<&Qualifier>,
        coins: &mut Coins,
    ) -> Result<Target, Fault> {
        let text = qualifier.map(ToString::to_string);
        let not_found = || {
            let arn = self.home.function_arn(name, text.as_deref());
            Fault::of(&SERVICE, "ResourceNotFoundException", format!("Function not found: {arn}"))
        };
        let snapshot = self.snapshot.load();
        let routes = snapshot.functions.get(name).ok_or_else(not_found)?;
        let version = match qualifier {
            None if routes.is_on_demand => LATEST,
            None | Some(Qualifier::LatestPublished) => LATEST_PUBLISHED,
            Some(Qualifier::Latest) if routes.is_on_demand => LATEST,
            Some(Qualifier::Latest) => return Err(latest_is_not_invocable(routes)),
            Some(Qualifier::Version(_)) => text.as_deref().unwrap_or_default(),
            Some(Qualifier::Alias(alias)) => {
                let alias = routes.aliases.get(alias).ok_or_else(not_found)?;
                match &alias.other {
                    Some((other, share)) if coins.chance(*share) => other,
                    _ => &alias.version,
                }
            }
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
            None if version == LATEST => Err(latest_is_not_invocable(routes)),
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
                        let before = self.snapshot.load();
                        let base = Snapshot {
                            functions: before.functions.clone(),
                            urls: Arc::clone(&before.urls),
                            reserved: before.reserved,
                        };
                        self.update(&store, base, &names);
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
        self.update(store, Snapshot::default(), &names);
        revision
    }

    /// Reads these functions anew and swaps the snapshot once.
    fn update(&self, store: &Store, base: Snapshot, names: &[&str]) {
        let Snapshot { mut functions, mut urls, mut reserved } = base;
        let before = self.snapshot.load();
        for name in names {
            // What runs goes on being counted, whatever changed.
            let running = before.functions.get(name).map(|routes| Arc::clone(&routes.running));
            let fresh =
                read(store, name, running.unwrap_or_default(), &|publication| self.meter(publication));
            reserved += fresh.as_ref().and_then(|routes| routes.reserved).unwrap_or(0);
            let led = before.functions.get(name).map(|routes| routes.urls.as_slice()).unwrap_or_default();
            let leads = fresh.as_ref().map(|routes| routes.urls.as_slice()).unwrap_or_default();
            if !(led.is_empty() && leads.is_empty()) {
                let urls = Arc::make_mut(&mut urls);
                led.iter().for_each(|(id, _)| drop(urls.remove(id)));
                urls.extend(leads.iter().cloned());
            }
            let stale = functions.set(name, fresh);
            reserved -= stale.and_then(|routes| routes.reserved).unwrap_or(0);
        }
        self.snapshot.store(Arc::new(Snapshot { functions, urls, reserved }));
        self.updated.send_replace(());
    }
}

fn read(
    store: &Store,
    name: &str,
    running: Arc<AtomicU32>,
    meter: &dyn Fn(PublicationId) -> Arc<Meter>,
) -> Option<FunctionRoutes> {
    // A document this build cannot read is as good as absent here; the API answers for it.
    let (function, _) = store.document::<Function>(&keys::function(name)).ok()??;
    let mut routes = FunctionRoutes {
        is_on_demand: function.configuration.is_on_demand(),
        reserved: function.reserved_concurrency,
        running,
        tags: function.tags.clone(),
        ..FunctionRoutes::default()
    };
    let limits = OnDemandLimits { reserved: routes.reserved, running: Arc::clone(&routes.running) };
    let ready = |version: &str, publication: &Publication| {
        let version = VersionKey { function: name.to_owned(), version: version.to_owned() };
        Route::Ready(Target {
            version: Arc::new(version),
            publication: publication.id,
            timeout_millis: u64::from(publication.configuration.timeout_seconds) * 1_000,
            on_demand: publication.configuration.is_on_demand().then(|| limits.clone()),
            meter: meter(publication.id),
        })
    };
    routes.keep_policy("", &function.attached);
    routes.urls.extend(function.attached.url.as_ref().map(|url| UrlRoute::of(name, None, url)));
    if let Some(latest) = function.publication() {
        routes.versions.insert(LATEST.into(), ready(LATEST, &latest));
    }
    for version in store.all::<FunctionVersion>(&keys::versions_of(name)).unwrap_or_default() {
        routes.keep_policy(&version.version, &version.attached);
        let route = match &version.serving {
            Some(serving) if version.state == VersionState::Active && !function.deleting => {
                ready(&version.version, serving)
            }
            _ => Route::NotReady(version.state),
        };
        routes.versions.insert(version.version, route);
    }
    for alias in store.all::<Alias>(&keys::aliases_of(name)).unwrap_or_default() {
        routes.keep_policy(&alias.name, &alias.attached);
        let qualifier = || Some(Qualifier::Alias(alias.name.clone()));
        routes.urls.extend(alias.attached.url.as_ref().map(|url| UrlRoute::of(name, qualifier(), url)));
        let other = alias.additional_version_weights.into_iter().next();
        routes.aliases.insert(alias.name, AliasRoute { version: alias.version, other });
    }
    Some(routes)
}

impl FunctionRoutes {
    /// Statements are read once, here.
    fn keep_policy(&mut self, qualifier: &str, attached: &Attached) {
        if attached.policy.is_empty() {
            return;
        }
        let policy = Policy::attached(&attached.policy_document());
        self.policies.insert(qualifier.to_owned(), Arc::new(policy));
    }
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
