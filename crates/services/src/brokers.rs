//! Message brokers that functions read from: where each is.

use std::collections::BTreeMap;

use hyper::Uri;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    RabbitMq,
    ActiveMq,
}

impl Engine {
    /// How many read one queue at once. Source: AWS's page on Amazon MQ: independent of the function's settings.
    pub fn concurrency(self) -> u32 {
        match self {
            Self::RabbitMq => 1,
            Self::ActiveMq => 5,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub engine: Engine,
    pub host: String,
    pub port: u16,
}

/// By the name in a broker's ARN.
#[derive(Debug, Clone, Default)]
pub struct Brokers(BTreeMap<String, Broker>);

impl Brokers {
    /// Reads `NAME=amqp://HOST:PORT`, `NAME=tcp://HOST:PORT`; the error says what is wrong.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        texts.iter().map(|text| broker(text)).collect::<Result<_, _>>().map(Self)
    }

    pub fn get(&self, name: &str) -> Option<&Broker> {
        self.0.get(name)
    }
}

fn broker(text: &str) -> Result<(String, Broker), String> {
    let (name, url) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
        format!("{text:?} is not of the form NAME=URL, such as orders=amqp://127.0.0.1:5672")
    })?;
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let (engine, port) = match uri.scheme_str() {
        Some("amqp") => (Engine::RabbitMq, 5672),
        Some("tcp") => (Engine::ActiveMq, 61616),
        _ => {
            return Err(format!(
                "{url:?} is neither amqp://HOST:PORT (RabbitMQ) nor tcp://HOST:PORT (ActiveMQ's OpenWire); put a proxy on this machine in front of a broker that only speaks TLS"
            ));
        }
    };
    let authority = uri.authority().ok_or_else(|| format!("{url:?} names no host"))?;
    if authority.as_str().contains('@') {
        return Err(format!("{name}'s URL holds a user: a broker's credentials belong in a secret"));
    }
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    Ok((name.to_owned(), Broker { engine, host, port: authority.port_u16().unwrap_or(port) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_read_or_refused() {
        let texts = ["a=amqp://h:1", "b=tcp://[::1]", "c=amqp://h"].map(str::to_owned);
        let brokers = Brokers::parse(&texts).unwrap();
        let rabbit = |port| Broker { engine: Engine::RabbitMq, host: "h".into(), port };
        assert_eq!(
            (brokers.get("a"), brokers.get("c"), brokers.get("d")),
            (Some(&rabbit(1)), Some(&rabbit(5672)), None)
        );
        let active = Broker { engine: Engine::ActiveMq, host: "::1".into(), port: 61616 };
        assert_eq!(brokers.get("b"), Some(&active));
        for bad in ["amqp://h", "=amqp://h", "a=amqps://h", "a=h:5672", "a=amqp://user:secret@h", "a=amqp://"]
        {
            let why = Brokers::parse(&[bad.to_owned()]).unwrap_err();
            assert!(!why.contains("secret@"), "{why}");
        }
    }
}
