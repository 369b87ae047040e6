//! The first question to every request, whichever service it is for: who asks, and is it really they?

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ondol_core::policy::{Caller, Context, Policy};
use ondol_observe::clock;
use ondol_wire::fault::Fault;
use ondol_wire::http::{HeaderView, check_signature};
use ondol_wire::sigv4::{Authorization, Keys, Signer};

use crate::sessions::{SessionError, Sessions};
use crate::{Authorizer, Enforcement, conditions};

/// Where the region of IAM and STS is, whatever the region of everything else.
const GLOBAL_REGION: &str = "us-east-1";
/// Ids of temporary access keys begin so.
const TEMPORARY: &str = "ASIA";

/// A long-lived access key: of the root user of its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    pub secret: String,
    /// None is this server's own account.
    pub account_id: Option<String>,
}

/// The long-lived access keys there are.
pub trait AccessKeys: Send + Sync + fmt::Debug {
    fn find(&self, access_key_id: &str) -> Option<AccessKey>;
}

#[derive(Debug)]
pub struct Gatekeeper {
    keys: Arc<dyn AccessKeys>,
    sessions: Arc<Sessions>,
    authorizer: Authorizer,
    account_id: String,
    region: String,
}

/// What the head of a request shows: who claims to ask, of a key that is known. The body is not read yet.
#[derive(Debug)]
pub struct Head {
    /// None where nobody's signature is checked.
    signer: Option<Signer>,
    holder: Holder,
    /// The service the request is signed for.
    pub service: Option<String>,
}

/// Whose credentials they are.
#[derive(Debug, Clone)]
struct Holder {
    caller: Caller,
    session_policy: Option<Arc<Policy>>,
    /// A long-lived key.
    access_key_id: Option<String>,
    /// Of a session.
    issued_epoch_seconds: Option<i64>,
}

impl Holder {
    /// Nobody's credentials, where those pass.
    fn root(account_id: &str) -> Self {
        Self {
            caller: Caller::root(account_id),
            session_policy: None,
            access_key_id: None,
            issued_epoch_seconds: None,
        }
    }
}

/// Who asks: the signature showed it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub caller: Caller,
    pub session_policy: Option<Arc<Policy>>,
    pub peer: Option<IpAddr>,
    pub region: String,
    /// The long-lived key it is signed with; none of a session.
    pub access_key_id: Option<String>,
    /// When the session was made.
    pub issued_epoch_seconds: Option<i64>,
}

impl Asked {
    /// What policies may ask of the request itself.
    pub fn context(&self) -> Context {
        let context = conditions::now(&self.region, self.issued_epoch_seconds);
        match self.peer {
            Some(peer) => context.with("aws:SourceIp", peer.to_string()),
            None => context,
        }
    }
}

/// One look-up of a key, and what was found besides its secret.
#[derive(Debug)]
struct LookUp<'a> {
    gatekeeper: &'a Gatekeeper,
    found: OnceLock<Holder>,
    refused: OnceLock<SessionError>,
}

impl Keys for LookUp<'_> {
    fn secret(&self, access_key_id: &str, session_token: Option<&str>) -> Option<String> {
        let gatekeeper = self.gatekeeper;
        if !access_key_id.starts_with(TEMPORARY) {
            let AccessKey { secret, account_id } = gatekeeper.keys.find(access_key_id)?;
            let account_id = account_id.unwrap_or_else(|| gatekeeper.account_id.clone());
            let access_key_id = Some(access_key_id.to_owned());
            let _ = self.found.set(Holder { access_key_id, ..Holder::root(&account_id) });
            return Some(secret);
        }
        let now = clock::epoch_millis() / 1_000;
        match gatekeeper.sessions.check(access_key_id, session_token.unwrap_or_default(), now) {
            Ok(session) => {
                // The root user's sessions end with the key they were made with.
                let key = session.claims.access_key_id.as_deref();
                if session.claims.role.is_none() && key.is_none_or(|id| gatekeeper.keys.find(id).is_none()) {
                    let _ = self.refused.set(SessionError::Invalid);
                    return None;
                }
                let _ = self.found.set(Holder {
                    caller: session.caller,
                    session_policy: session.session_policy,
                    access_key_id: None,
                    issued_epoch_seconds: Some(session.claims.issued_epoch_seconds),
                });
                Some(session.secret_access_key)
            }
            Err(error) => {
                let _ = self.refused.set(error);
                None
            }
        }
    }
}

impl Gatekeeper {
    pub fn new(
        keys: Arc<dyn AccessKeys>,
        sessions: Arc<Sessions>,
        authorizer: Authorizer,
        account_id: &str,
        region: &str,
    ) -> Self {
        Self { keys, sessions, authorizer, account_id: account_id.to_owned(), region: region.to_owned() }
    }

    pub fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// A service of this server that asks with a role, which must let it; `source_arn` is what it acts for. The error
    /// says why it can't.
    pub fn acting_as(&self, role_arn: &str, service: &str, source_arn: &str) -> Result<Asked, String> {
        let trust = self.authorizer.role_exists_and_trusts(role_arn, service, Some(source_arn));
        trust.map_err(|_| {
            format!("The role {role_arn} isn't there, or its trust policy doesn't let {service} assume it.")
        })?;
        let name = service.split('.').next().unwrap_or(service);
        let session = self.authorizer.session_of(role_arn, name);
        Ok(Asked {
            // Where policies don't count, roles need not be there.
            caller: session.unwrap_or_else(|| Caller::root(self.account_id.as_str())),
            session_policy: None,
            peer: None,
            region: self.region.clone(),
            access_key_id: None,
            issued_epoch_seconds: Some(clock::epoch_millis() / 1_000),
        })
    }

    /// Whether a caller may do everything that no policy of a resource forbids.
    pub fn is_owner(&self, asked: &Asked) -> bool {
        self.authorizer.enforcement() == Enforcement::Off
            || asked.session_policy.is_none() && asked.caller == Caller::root(self.account_id.as_str())
    }

    /// What the head alone can show. Asked before a body is read, so that strangers cannot fill the server's memory.
    pub fn head(&self, headers: &HeaderView<'_>, query: &str) -> Result<Head, Fault> {
        let look_up = LookUp { gatekeeper: self, found: OnceLock::new(), refused: OnceLock::new() };
        let signer = Signer::of(headers, query, &look_up);
        if self.authorizer.enforcement() == Enforcement::Off {
            // Whoever is known is known by name; everybody passes.
            let service = Authorization::of(headers, query).ok().map(|authorization| authorization.service);
            let holder = look_up.found.into_inner().unwrap_or_else(|| Holder::root(&self.account_id));
            return Ok(Head { signer: None, holder, service });
        }
        let signer = signer.map_err(|fault| match look_up.refused.get() {
            Some(error) => error.fault("lambda"),
            None => fault,
        })?;
        let holder = look_up.found.into_inner().ok_or_else(|| SessionError::Invalid.fault(""))?;
        let service = Some(signer.authorization.service.clone());
        Ok(Head { signer: Some(signer), holder, service })
    }

    /// Whether the whole request is what its signer signed, for here, and for this service if one is named. Gives who
    /// asks, and the body where it came in signed chunks.
    pub fn check(
        &self,
        head: Head,
        parts: &http::request::Parts,
        body: &[u8],
        service: Option<&str>,
    ) -> Result<(Asked, Option<bytes::Bytes>), Fault> {
        let unchunked = match &head.signer {
            Some(signer) => {
                let unchunked = check_signature(signer, parts, body, clock::epoch_millis() / 1_000)?;
                self.check_region(&signer.authorization, parts, service)?;
                unchunked
            }
            None => None,
        };
        let Holder { caller, session_policy, access_key_id, issued_epoch_seconds } = head.holder;
        let asked = Asked {
            caller,
            session_policy,
            access_key_id,
            issued_epoch_seconds,
            peer: parts.extensions.get::<Peer>().map(|Peer(address)| *address),
            region: self.region.clone(),
        };
        Ok((asked, unchunked))
    }

    /// A signature is for one region. Pages of our own, below `/_ondol/`, are in none.
    fn check_region(
        &self,
        authorization: &Authorization,
        parts: &http::request::Parts,
        service: Option<&str>,
    ) -> Result<(), Fault> {
        if parts.uri.path().starts_with("/_ondol/") {
            return Ok(());
        }
        let global = matches!(authorization.service.as_str(), "iam" | "sts").then_some(GLOBAL_REGION);
        let regions: Vec<&str> = [Some(self.region.as_str()), global].into_iter().flatten().collect();
        authorization.check_scope(&regions, service.unwrap_or(&authorization.service))
    }
}

/// The address a request came from, among its extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);
