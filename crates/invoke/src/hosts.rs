//! Keeping web pages away from a port on this machine.

use std::net::IpAddr;

/// Who may be named in a request's `Host` header.
#[derive(Debug, Clone, Default)]
pub struct HostPolicy {
    /// Names besides addresses and `localhost`.
    pub names: Vec<String>,
}

impl HostPolicy {
    /// A page on the web can make a browser send requests here, either openly (then the browser says so in
    /// `Origin`) or under a name of its own that it points at this machine (then `Host` is that name). An
    /// address cannot be rebound, and `localhost` is ours.
    pub fn admits(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), String> {
        if let Some(origin) = origin {
            return Err(format!("Requests from web pages ({origin}) are refused."));
        }
        let Some(host) = host else { return Err("The request has no Host header.".into()) };
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
            .map_or(host, |(name, _)| name);
        let name = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let own = name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok();
        if own || self.names.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            return Ok(());
        }
        Err(format!(
            "The host name {name:?} is not one of this server's. Add it with --allow-host {name} if it is."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_pages_are_kept_out() {
        let policy = HostPolicy { names: vec!["build.internal".into()] };
        for host in
            ["127.0.0.1:4566", "localhost:4566", "[::1]:4566", "s3.localhost", "build.internal:1", "10.0.0.7"]
        {
            assert_eq!(policy.admits(Some(host), None), Ok(()), "{host}");
        }
        for host in ["evil.example:4566", "localhost.evil.example", "127.0.0.1.nip.io"] {
            assert!(policy.admits(Some(host), None).is_err(), "{host}");
        }
        assert!(policy.admits(Some("127.0.0.1:4566"), Some("https://evil.example")).is_err());
        assert!(policy.admits(None, None).is_err());
    }
}
