//! Temporary credentials that carry all that is to be known of them, so that nothing is kept of each.
//!
//! The token is what was claimed and a code over it; the access key id and the secret follow from the token and
//! this server's secret. Who has no secret can make none of them, and whoever keeps the secret over a restart
//! keeps the sessions.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ondol_core::policy::{Caller, Policy, PolicyUse};
use ondol_wire::fault::Fault;
use ondol_wire::sigv4::{constant_time_equal, hmac};
use serde::{Deserialize, Serialize};

use crate::random::{letters_of, number};

/// Characters of the policies given to AssumeRole, as far as a token has room for them.
pub const SESSION_POLICY_LENGTH_MAX: usize = 2_048;

/// Whose session it is and how far it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub account_id: String,
    /// None is a session of the root user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleSession>,
    /// None does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_epoch_seconds: Option<i64>,
    /// Ends with this run of the server, as execution environments do.
    #[serde(default)]
    pub ends_with_server: bool,
    /// The policy given to AssumeRole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_policy: Option<String>,
    /// What the session was made for: a function's ARN, or who assumed the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of a session of the root user: the access key it was made with, and ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// When it was made, which policies may ask for.
    #[serde(default)]
    pub issued_epoch_seconds: i64,
}

/// A session of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSession {
    pub arn: String,
    pub id: String,
    pub session_name: String,
}

impl Claims {
    /// What an execution environment is given: its function's role, for as long as this server runs. Without a
    /// role that is there, `role_id` is empty and nothing is allowed.
    pub fn of_execution_environment(
        account_id: &str,
        role_arn: &str,
        role_id: &str,
        function_name: &str,
        function_arn: &str,
        now_epoch_seconds: i64,
    ) -> Self {
        Self {
            account_id: account_id.to_owned(),
            role: Some(RoleSession {
                arn: role_arn.to_owned(),
                id: role_id.to_owned(),
                session_name: function_name.to_owned(),
            }),
            expires_epoch_seconds: None,
            ends_with_server: true,
            session_policy: None,
            source: Some(function_arn.to_owned()),
            access_key_id: None,
            issued_epoch_seconds: now_epoch_seconds,
        }
    }

    /// Who asks with such credentials.
    pub fn caller(&self) -> Caller {
        match &self.role {
            Some(role) => Caller::assumed_role(&role.arn, &role.id, &role.session_name),
            None => Caller::root(&self.account_id),
        }
    }
}

/// Credentials as they are handed out.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// A session whose token was checked.
#[derive(Clone)]
pub struct Session {
    /// What the request must be signed with.
    pub secret_access_key: String,
    pub caller: Caller,
    pub session_policy: Option<Arc<Policy>>,
    pub claims: Claims,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("caller", &self.caller).finish_non_exhaustive()
    }
}

/// Why credentials are not taken, in AWS's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("The security token included in the request is expired")]
    Expired,
    #[error("The security token included in the request is invalid.")]
    Invalid,
}

impl SessionError {
    /// The answer of a service, by the name in its signing scope.
    pub fn fault(self, service: &str) -> Fault {
        let code = match (self, service) {
            (Self::Expired, "iam" | "sts") => "ExpiredToken",
            (Self::Expired, _) => "ExpiredTokenException",
            (Self::Invalid, "iam" | "sts") => "InvalidClientTokenId",
            (Self::Invalid, _) => "UnrecognizedClientException",
        };
        Fault::new(code, 403, self.to_string())
    }
}

/// What a token holds.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    claims: Claims,
    /// The run of the server the session ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<u64>,
    /// Makes two sessions with the same claims two.
    nonce: u64,
}

const CODE_LENGTH: usize = 32;

/// Makes and checks temporary credentials.
pub struct Sessions {
    secret: [u8; 32],
    boot: u64,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("boot", &self.boot).finish_non_exhaustive()
    }
}

impl Sessions {
    /// `boot` is another number at each start of the server.
    pub fn new(secret: [u8; 32], boot: u64) -> Self {
        Self { secret, boot }
    }

    /// Credentials for what is claimed.
    pub fn issue(&self, claims: Claims) -> Credentials {
        let boot = claims.ends_with_server.then_some(self.boot);
        let payload = Payload { claims, boot, nonce: number() };
        // Claims are plain data, which serde_json always writes.
        let payload = serde_json::to_vec(&payload).unwrap_or_default();
        let code = self.code("token", &payload);
        let access_key_id = self.access_key_id(&code);
        let session_token = URL_SAFE_NO_PAD.encode([&code, payload.as_slice()].concat());
        let secret_access_key = self.secret_of(&access_key_id);
        Credentials { access_key_id, secret_access_key, session_token }
    }

    /// Who asks with these credentials and what their secret is.
    pub fn check(
        &self,
        access_key_id: &str,
        session_token: &str,
        now_epoch_seconds: i64,
    ) -> Result<Session, SessionError> {
        let token = URL_SAFE_NO_PAD.decode(session_token).map_err(|_| SessionError::Invalid)?;
        let (code, payload) = token.split_at_checked(CODE_LENGTH).ok_or(SessionError::Invalid)?;
        let genuine = constant_time_equal(code, &self.code("token", payload));
        let its_own = constant_time_equal(access_key_id.as_bytes(), self.access_key_id(code).as_bytes());
        if !(genuine && its_own) {
            return Err(SessionError::Invalid);
        }
        let Payload { claims, boot, .. } =
            serde_json::from_slice(payload).map_err(|_| SessionError::Invalid)?;
        let over = claims.expires_epoch_seconds.is_some_and(|expires| now_epoch_seconds >= expires);
        if over || boot.is_some_and(|boot| boot != self.boot) {
            return Err(SessionError::Expired);
        }
        // It was read before it was put into the token.
        let read =
            |text: &String| Policy::parse(text, PolicyUse::Identity).map_err(|_| SessionError::Invalid);
        let session_policy = claims.session_policy.as_ref().map(read).transpose()?.map(Arc::new);
        let secret_access_key = self.secret_of(access_key_id);
        Ok(Session { secret_access_key, caller: claims.caller(), session_policy, claims })
    }

    fn code(&self, purpose: &str, message: &[u8]) -> [u8; CODE_LENGTH] {
        hmac(&hmac(&self.secret, purpose.as_bytes()), message)
    }

    fn access_key_id(&self, code: &[u8]) -> String {
        format!("ASIA{}", letters_of(&self.code("id", code), 16))
    }

    fn secret_of(&self, access_key_id: &str) -> String {
        STANDARD.encode(&self.code("secret", access_key_id.as_bytes())[..30])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "123456789012";

    fn claims() -> Claims {
        Claims {
            account_id: ACCOUNT.into(),
            role: Some(RoleSession {
                arn: format!("arn:aws:iam::{ACCOUNT}:role/app/worker"),
                id: "AROAEXAMPLEEXAMPLE123".into(),
                session_name: "one".into(),
            }),
            expires_epoch_seconds: Some(1_000),
            ends_with_server: false,
            session_policy: None,
            source: None,
            access_key_id: None,
            issued_epoch_seconds: 100,
        }
    }

    #[test]
    fn what_is_issued_is_recognised_until_it_expires() {
        let sessions = Sessions::new([7; 32], 1);
        let credentials = sessions.issue(claims());
        let check = |sessions: &Sessions, now| {
            sessions.check(&credentials.access_key_id, &credentials.session_token, now)
        };
        let session = check(&sessions, 999).unwrap();
        assert_eq!(session.secret_access_key, credentials.secret_access_key);
        assert_eq!(session.caller.arn(), "arn:aws:sts::123456789012:assumed-role/worker/one");
        assert_eq!(session.caller.user_id(), "AROAEXAMPLEEXAMPLE123:one");
        assert!(session.session_policy.is_none());
        assert_eq!((credentials.access_key_id.len(), credentials.secret_access_key.len()), (20, 40));
        assert!(credentials.access_key_id.starts_with("ASIA"));
        assert_eq!(check(&sessions, 1_000).unwrap_err(), SessionError::Expired);
        assert_eq!(SessionError::Expired.fault("lambda").code, "ExpiredTokenException");
        // A later run with the same secret knows it; one with another does not.
        assert!(check(&Sessions::new([7; 32], 2), 999).is_ok());
        assert_eq!(check(&Sessions::new([8; 32], 1), 999).unwrap_err(), SessionError::Invalid);
        // The same again is another session.
        assert_ne!(sessions.issue(claims()), credentials);
    }

    #[test]
    fn sessions_of_execution_environments_end_with_the_server() {
        let (role, function) =
            ("arn:aws:iam::123456789012:role/r", "arn:aws:lambda:eu-west-1:123456789012:function:f");
        let claims = Claims::of_execution_environment(ACCOUNT, role, "AROA1", "f", function, 7);
        assert_eq!(claims.caller().arn(), "arn:aws:sts::123456789012:assumed-role/r/f");
        let Credentials { access_key_id, session_token, .. } = Sessions::new([7; 32], 1).issue(claims);
        let check = |boot| Sessions::new([7; 32], boot).check(&access_key_id, &session_token, i64::MAX);
        assert!(check(1).is_ok());
        assert_eq!(check(2).unwrap_err(), SessionError::Expired);
    }

    #[test]
    fn nothing_of_a_token_can_be_changed() {
        let sessions = Sessions::new([7; 32], 1);
        let one = sessions.issue(claims());
        let other = sessions.issue(claims());
        let bytes = URL_SAFE_NO_PAD.decode(&one.session_token).unwrap();
        for place in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[place] ^= 1;
            let token = URL_SAFE_NO_PAD.encode(bytes);
            let error = sessions.check(&one.access_key_id, &token, 0).unwrap_err();
            assert_eq!(error, SessionError::Invalid, "{place}");
        }
        for (id, token) in [
            (&one.access_key_id, &other.session_token),
            (&other.access_key_id, &one.session_token),
            (&"ASIA".to_owned(), &one.session_token),
            (&one.access_key_id, &String::new()),
            (&one.access_key_id, &"AAAA".to_owned()),
            (&one.access_key_id, &"no base64!".to_owned()),
        ] {
            assert_eq!(sessions.check(id, token, 0).unwrap_err(), SessionError::Invalid, "{id} {token}");
        }
    }

    #[test]
    fn a_session_carries_its_policy_and_root_has_sessions_too() {
        let sessions = Sessions::new([7; 32], 1);
        let text =
            r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}"#;
        let given = Claims { session_policy: Some(text.into()), role: None, ..claims() };
        let credentials = sessions.issue(given);
        let session = sessions.check(&credentials.access_key_id, &credentials.session_token, 0).unwrap();
        assert_eq!(session.session_policy.unwrap().text(), text);
        assert_eq!(session.caller, Caller::root(ACCOUNT));
        assert!(!format!("{credentials:?} {sessions:?}").contains(&credentials.secret_access_key));
    }
}
