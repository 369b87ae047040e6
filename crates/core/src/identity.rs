//! Names, ARNs and ids.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::coins::Coins;
use crate::managed_instances::Violation;

/// The longest name of a function, without what an ARN puts around it.
pub const FUNCTION_NAME_LENGTH_MAX: usize = 64;

/// Whose resources these are and where: the fixed parts of every ARN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    pub region: String,
    pub account_id: String,
}

impl Home {
    pub fn function_arn(&self, name: &str, qualifier: Option<&str>) -> String {
        let Self { region, account_id } = self;
        match qualifier {
            Some(qualifier) => format!("arn:aws:lambda:{region}:{account_id}:function:{name}:{qualifier}"),
            None => format!("arn:aws:lambda:{region}:{account_id}:function:{name}"),
        }
    }

    pub fn layer_arn(&self, name: &str) -> String {
        format!("arn:aws:lambda:{}:{}:layer:{name}", self.region, self.account_id)
    }

    pub fn layer_version_arn(&self, name: &str, version: u64) -> String {
        format!("{}:{version}", self.layer_arn(name))
    }

    pub fn event_source_mapping_arn(&self, uuid: &str) -> String {
        format!("arn:aws:lambda:{}:{}:event-source-mapping:{uuid}", self.region, self.account_id)
    }

    pub fn code_signing_config_arn(&self, id: &str) -> String {
        format!("arn:aws:lambda:{}:{}:code-signing-config:{id}", self.region, self.account_id)
    }

    pub fn schedule_arn(&self, group: &str, name: &str) -> String {
        format!("arn:aws:scheduler:{}:{}:schedule/{group}/{name}", self.region, self.account_id)
    }

    pub fn schedule_group_arn(&self, name: &str) -> String {
        format!("arn:aws:scheduler:{}:{}:schedule-group/{name}", self.region, self.account_id)
    }

    pub fn capacity_provider_arn(&self, name: &str) -> String {
        format!("arn:aws:lambda:{}:{}:capacity-provider:{name}", self.region, self.account_id)
    }
}

/// The word after a function's name that says which version is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qualifier {
    Latest,
    LatestPublished,
    Version(u64),
    Alias(String),
}

pub const LATEST: &str = "$LATEST";
pub const LATEST_PUBLISHED: &str = "$LATEST.PUBLISHED";

impl Qualifier {
    pub fn parse(text: &str) -> Self {
        match text {
            LATEST => Self::Latest,
            LATEST_PUBLISHED => Self::LatestPublished,
            // One version has one name: `01` is not version 1.
            _ => match text.parse::<u64>() {
                Ok(number) if number.to_string() == text => Self::Version(number),
                _ => Self::Alias(text.to_owned()),
            },
        }
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str(LATEST),
            Self::LatestPublished => f.write_str(LATEST_PUBLISHED),
            Self::Version(number) => write!(f, "{number}"),
            Self::Alias(name) => f.write_str(name),
        }
    }
}

/// A function as callers name it: a name, a partial ARN (`123456789012:function:name`) or an ARN, each
/// with or without a qualifier. The form itself has been checked against the model's pattern before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionReference {
    pub partition: Option<String>,
    pub region: Option<String>,
    pub account_id: Option<String>,
    pub name: String,
    pub qualifier: Option<String>,
}

impl FunctionReference {
    pub fn parse(text: &str) -> Self {
        let is_account = |part: &str| part.len() == 12 && part.bytes().all(|byte| byte.is_ascii_digit());
        let mut parts: Vec<&str> = text.split(':').collect();
        let mut partition = None;
        if text.starts_with("arn:") && parts.len() > 3 {
            partition = parts.drain(..3).nth(1).map(str::to_owned);
        }
        // Each part may be left out; a region only comes before an account or the word `function`.
        let before_rest = parts.get(1).is_some_and(|next| is_account(next) || *next == "function");
        let region = (before_rest && !is_account(parts[0])).then(|| parts.remove(0).to_owned());
        let account_id = (parts.len() > 1 && is_account(parts[0])).then(|| parts.remove(0).to_owned());
        if parts.len() > 1 && parts[0] == "function" {
            parts.remove(0);
        }
        let mut rest = parts.into_iter().map(str::to_owned);
        Self { partition, region, account_id, name: rest.next().unwrap_or_default(), qualifier: rest.next() }
    }

    /// Checks that it names a function that can be here; gives the qualifier, in the name or beside it. The
    /// error is AWS's code and text.
    pub fn in_home(&self, home: &Home, beside: Option<String>) -> Result<Option<String>, Violation> {
        let refuse = |code, message| Err(Violation { code, message });
        if self.partition.as_ref().is_some_and(|partition| partition != "aws") {
            let arn = self.arn(home, self.qualifier.as_deref());
            return refuse("ResourceNotFoundException", format!("Function not found: {arn}"));
        }
        if let Some(region) = self.region.as_ref().filter(|region| **region != home.region) {
            let text =
                format!("Functions from '{region}' are not reachable in this region ('{}')", home.region);
            return refuse("ResourceNotFoundException", text);
        }
        if self.name.len() > FUNCTION_NAME_LENGTH_MAX {
            let text = format!(
                "1 validation error detected: Value '{}' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to {FUNCTION_NAME_LENGTH_MAX}",
                self.name
            );
            return refuse("InvalidParameterValueException", text);
        }
        if let (Some(own), Some(asked)) = (&self.qualifier, &beside) {
            if own != asked {
                let text =
                    "The derived qualifier from the function name does not match the specified qualifier.";
                return refuse("InvalidParameterValueException", text.to_owned());
            }
        }
        let qualifier = self.qualifier.clone().or(beside);
        if self.account_id.as_ref().is_some_and(|account| *account != home.account_id) {
            let arn = self.arn(home, qualifier.as_deref());
            return refuse("ResourceNotFoundException", format!("Function not found: {arn}"));
        }
        Ok(qualifier)
    }

    /// The ARN it stands for, with what it leaves out taken from `home`.
    pub fn arn(&self, home: &Home, qualifier: Option<&str>) -> String {
        let account_id = self.account_id.clone().unwrap_or_else(|| home.account_id.clone());
        let region = self.region.clone().unwrap_or_else(|| home.region.clone());
        Home { region, account_id }.function_arn(&self.name, qualifier)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// An instance of a capacity provider: `i-` and 17 hex digits.
    InstanceId
);

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = std::num::ParseIntError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                u128::from_str_radix(&text, 16).map(Self)
            }
        }
    };
}

number_id!(
    /// One execution environment: one contained process tree. Written as 32 hex digits.
    EnvironmentId
);
number_id!(
    /// Code and configuration frozen by one publish. A republished `$LATEST.PUBLISHED` is a new publication.
    PublicationId
);
number_id!(
    /// One invocation, shown to users as a UUID.
    RequestId
);

impl RequestId {
    /// From random bits, with the version and variant bits of a random UUID.
    pub fn from_random(high: u64, low: u64) -> Self {
        let value = u128::from(high) << 64 | u128::from(low);
        Self(value & !(0xF << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62))
    }

    /// A new one, by chance.
    pub fn by(coins: &mut Coins) -> Self {
        Self::from_random(coins.flip(), coins.flip())
    }

    /// `8-4-4-4-12` hex digits.
    pub fn uuid(self) -> String {
        let hex = self.to_string();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// Reads what `uuid` writes.
    pub fn parse_uuid(text: &str) -> Option<Self> {
        let place = [8, 13, 18, 23];
        let bytes = text.as_bytes();
        if bytes.len() != 36 || place.iter().any(|at| bytes[*at] != b'-') {
            return None;
        }
        let mut value = 0_u128;
        for (_, byte) in bytes.iter().enumerate().filter(|(at, _)| !place.contains(at)) {
            value = value << 4 | u128::from((*byte as char).to_digit(16)?);
        }
        Some(Self(value))
    }
}

impl InstanceId {
    pub fn from_random(bits: u64, more: u64) -> Self {
        Self(format!("i-{bits:016x}{:x}", more & 0xF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_function_reference() {
        let full = "arn:aws:lambda:eu-west-1:123456789012:function:f:$LATEST.PUBLISHED";
        for (text, region, account, name, qualifier) in [
            ("f", None, None, "f", None),
            ("f:3", None, None, "f", Some("3")),
            ("123456789012:function:f", None, Some("123456789012"), "f", None),
            ("123456789012:f:live", None, Some("123456789012"), "f", Some("live")),
            ("function:f", None, None, "f", None),
            ("us-east-1:123456789012:function:f", Some("us-east-1"), Some("123456789012"), "f", None),
            ("arn:aws:lambda:123456789012:function:f:1", None, Some("123456789012"), "f", Some("1")),
            ("my-function-1:live", None, None, "my-function-1", Some("live")),
            (full, Some("eu-west-1"), Some("123456789012"), "f", Some("$LATEST.PUBLISHED")),
        ] {
            let reference = FunctionReference::parse(text);
            assert_eq!(
                (
                    reference.region.as_deref(),
                    reference.account_id.as_deref(),
                    reference.name.as_str(),
                    reference.qualifier.as_deref()
                ),
                (region, account, name, qualifier),
                "{text}"
            );
        }
    }

    #[test]
    fn request_ids_are_version_4_uuids() {
        let id = RequestId::from_random(u64::MAX, u64::MAX);
        assert_eq!(id.uuid(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(RequestId::from_random(0, 0).uuid(), "00000000-0000-4000-8000-000000000000");
        assert_eq!(RequestId::parse_uuid(&id.uuid()), Some(id));
        for bad in ["", "ffffffff-ffff-4fff-bfff-fffffffffffg", "ffffffffffff-4fff-bfff-ffffffffffff---"] {
            assert_eq!(RequestId::parse_uuid(bad), None, "{bad}");
        }
    }
}
