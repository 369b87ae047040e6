//! What all brokers have in common: credentials, and what a poller may hold.

use ondol_services::{BasicCredentials, Broker};

use super::mapping::Reading;
use super::source::Trouble;

/// Messages a broker gives to one poller before it has settled any: they are in memory.
pub const AHEAD_MAX: usize = 2_000;

/// Asks for the broker's credentials, if the function's role may see them.
pub async fn credentials<I>(reading: &Reading<I>) -> Result<BasicCredentials, Trouble> {
    let arn = reading.mapping.event_source_arn.as_deref().unwrap_or_default();
    reading.permit("mq:DescribeBroker", arn)?;
    let missing = "ESM_CONFIG_NOT_VALID: The mapping has no BASIC_AUTH in its SourceAccessConfigurations.";
    basic_auth(reading).await?.ok_or_else(|| Trouble(missing.into()))
}

/// The credentials that the mapping names, if any.
pub async fn basic_auth<I>(reading: &Reading<I>) -> Result<Option<BasicCredentials>, Trouble> {
    let Some(secret) = reading.mapping.access("BASIC_AUTH") else { return Ok(None) };
    reading.permit("secretsmanager:GetSecretValue", secret)?;
    let outside = &reading.tools.outside;
    let found = outside.secrets.basic(&outside.services, secret).await;
    found.map(Some).map_err(|why| Trouble(format!("EVENT_SOURCE_AUTHN_ERROR: {why}")))
}

/// The queue that is read.
pub fn queue<I>(reading: &Reading<I>) -> Result<&str, Trouble> {
    // A short string of AMQP has 255 bytes.
    let queue = reading.mapping.queue().filter(|queue| (1..=255).contains(&queue.len()));
    queue.ok_or_else(|| {
        Trouble("ESM_CONFIG_NOT_VALID: The mapping names no queue of at most 255 bytes.".into())
    })
}

/// How many messages are asked for ahead of their batch.
pub fn ahead<I>(reading: &Reading<I>) -> u16 {
    u16::try_from(reading.limits.records_max).unwrap_or(u16::MAX)
}

pub fn unreachable(broker: &Broker, why: &str) -> Trouble {
    Trouble(format!("The broker at {}:{} can't be read: {why}", broker.host, broker.port))
}
