//! What every operation works with.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use ondol_core::event_source::SourceReports;
use ondol_core::identity::{Home, PublicationId};
use ondol_core::quotas::Quotas;
use ondol_core::throttle::{Group, Throttle};
use ondol_failpoint::reach;
use ondol_identity::{Asked, Gatekeeper, Roles};
use ondol_observe::clock;
use ondol_services::ServiceEndpoints;
use ondol_store::artifacts::Artifacts;
use ondol_store::{Committed, Revision, Store, StoreError, Transaction, Turn, Turns};
use ondol_wire::fault::Fault;
use ondol_wire::lambda::SERVICE;
use ondol_wire::sigv4::{constant_time_equal, hex, hmac};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::watch;

/// Tries of a change whose document changed under it.
const ATTEMPTS_MAX: usize = 20;

/// How long a link to a package holds, as on AWS.
const PACKAGE_LINK_SECONDS: i64 = 600;

#[derive(Clone)]
pub struct Context {
    pub store: Store,
    pub artifacts: Artifacts,
    pub home: Home,
    pub quotas: Quotas,
    /// The services Ondol does not serve, where the operator says that they are.
    pub services: Arc<ServiceEndpoints>,
    /// What is told of the event sources.
    pub sources: watch::Receiver<SourceReports>,
    throttle: Arc<Mutex<Throttle>>,
    pub gatekeeper: Arc<Gatekeeper>,
    pub roles: Arc<Roles>,
    /// Who asks, and how they reached this server. Of one request; of nobody in between.
    pub asked: Option<Arc<Asked>>,
    /// Environment variables in the order they were sent, which typed inputs lose and an answer names.
    pub environment_as_sent: Option<String>,
    /// The origin of links in answers.
    origin: Arc<str>,
    /// What links to packages are signed with; new with every start.
    link_secret: Arc<[u8; 32]>,
    /// Roles that were warned about, each once.
    warned: Arc<Mutex<BTreeSet<String>>>,
    /// Taken for the time of one commit, never while a package is unpacked.
    pub turns: Arc<Turns>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Context {
    pub fn new(
        store: Store,
        artifacts: Artifacts,
        home: Home,
        quotas: Quotas,
        (services, sources): (Arc<ServiceEndpoints>, watch::Receiver<SourceReports>),
        (gatekeeper, roles): (Arc<Gatekeeper>, Arc<Roles>),
    ) -> Self {
        let origin = Arc::from("http://localhost");
        let mut link_secret = [0; 32];
        link_secret.chunks_mut(8).for_each(|part| part.copy_from_slice(&random().to_le_bytes()));
        Self {
            store,
            artifacts,
            home,
            quotas,
            services,
            sources,
            throttle: Arc::default(),
            gatekeeper,
            roles,
            asked: None,
            environment_as_sent: None,
            origin,
            link_secret: Arc::new(link_secret),
            warned: Arc::default(),
            turns: Arc::default(),
        }
    }

    /// The context of one request.
    pub fn of(&self, asked: Asked, origin: String) -> Self {
        Self { asked: Some(Arc::new(asked)), origin: origin.into(), ..self.clone() }
    }

    /// With what only the input as it was sent can tell.
    pub fn with_sent(&self, input: &Map<String, Value>) -> Self {
        let variables = input.get("Environment").and_then(|environment| environment.get("Variables"));
        Self { environment_as_sent: variables.map(Value::to_string), ..self.clone() }
    }

    /// Counts a request against its quota; refuses it when that is used up.
    pub fn admit(&self, operation: &str) -> Result<(), Fault> {
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        if throttle.admit(clock::wall(), Group::of(operation), &self.quotas) {
            return Ok(());
        }
        Err(Fault::of(&SERVICE, "TooManyRequestsException", "Rate exceeded")
            .with_member("Reason", "CallerRateLimitExceeded")
            .with_header("retry-after", "1"))
    }

    /// Whether a role is warned about for the first time since the server started.
    pub fn warns_of(&self, role: &str) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        !warned.contains(role) && warned.insert(role.to_owned())
    }

    /// The address of a function, of the kind by which this server was reached: a host below its name, or a path where
    /// it has none.
    pub fn function_url(&self, id: &str) -> String {
        let (scheme, authority) = self.origin.split_once("://").unwrap_or(("http", &self.origin));
        let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
        if name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() {
            return format!("{}/_ondol/url/{id}/", self.origin);
        }
        format!("{scheme}://{id}.lambda-url.{}.{authority}/", self.home.region)
    }

    /// Where a package can be fetched for a while, by whoever holds the link.
    pub fn package_link(&self, sha256: &str) -> String {
        let until = clock::epoch_millis() / 1_000 + PACKAGE_LINK_SECONDS;
        let signature = self.package_signature(sha256, until);
        format!("{}/_ondol/packages/{sha256}.zip?until={until}&signature={signature}", self.origin)
    }

    /// Whether a link was made here, and still holds.
    pub fn admits_package(&self, sha256: &str, until: i64, signature: &str) -> bool {
        let expected = self.package_signature(sha256, until);
        until >= clock::epoch_millis() / 1_000
            && constant_time_equal(expected.as_bytes(), signature.as_bytes())
    }

    fn package_signature(&self, sha256: &str, until: i64) -> String {
        hex(&hmac(&self.link_secret[..], format!("{sha256}/{until}").as_bytes()))
    }

    pub fn now_epoch_millis(&self) -> i64 {
        clock::epoch_millis()
    }

    pub fn document<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, Revision)>, Fault> {
        self.store.document(key).map_err(|error| broken(&error))
    }

    pub fn all<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, Fault> {
        self.store.all(prefix).map_err(|error| broken(&error))
    }

    /// Changes what looks at more than one resource: alone.
    pub async fn change<T>(
        &self,
        build: impl FnMut() -> Result<(Transaction, T), Fault>,
    ) -> Result<T, Fault> {
        let turn = self.turns.alone().await;
        self.commit(build, turn).await
    }

    /// Changes one resource and what belongs to it; others change beside it.
    pub async fn change_of<T>(
        &self,
        name: &str,
        build: impl FnMut() -> Result<(Transaction, T), Fault>,
    ) -> Result<T, Fault> {
        let turn = self.turns.of(name).await;
        self.commit(build, turn).await
    }

    /// Builds a transaction from what is there and commits it; again if the control loops were faster.
    async fn commit<T>(
        &self,
        mut build: impl FnMut() -> Result<(Transaction, T), Fault>,
        _turn: Turn<'_>,
    ) -> Result<T, Fault> {
        for _ in 0..ATTEMPTS_MAX {
            let (transaction, result) = build()?;
            reach("api.before-commit");
            match self.store.commit(transaction).await.map_err(|error| broken(&error))? {
                Committed::At(_) => {
                    reach("api.after-commit");
                    return Ok(result);
                }
                Committed::Conflict => {}
            }
        }
        Err(Fault::of(&SERVICE, "ServiceException", "The resource changes too fast; try again."))
    }
}

/// A random UUID, as revision ids are.
pub fn uuid() -> String {
    ondol_core::identity::RequestId::from_random(random(), random()).uuid()
}

pub fn publication_id() -> PublicationId {
    PublicationId(u128::from(random()) << 64 | u128::from(random()))
}

/// So many lower-case letters and digits, as ids of function URLs and code signing configs are.
pub fn letters(count: usize) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let (mut bits, mut left) = (0_u64, 0);
    let mut letter = || {
        if left < 5 {
            (bits, left) = (random(), 60);
        }
        let letter = ALPHABET[(bits & 31) as usize];
        (bits, left) = (bits >> 5, left - 5);
        letter as char
    };
    (0..count).map(|_| letter()).collect()
}

fn random() -> u64 {
    // The system's generator does not fail on any Linux this runs on; an id of zeros would collide and be seen.
    getrandom::u64().unwrap_or_default()
}

pub fn broken(error: &StoreError) -> Fault {
    Fault::of(&SERVICE, "ServiceException", format!("The change couldn't be stored: {error}"))
}
