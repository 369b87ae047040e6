//! Where a function URL is: a host of its own, `ID.lambda-url.REGION.ANYTHING`, or a path, where names are hard to have.

/// What a request's host and path say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub id: String,
    /// The host as the function is told of it, without a port.
    pub domain: String,
    /// The path as it was sent, from the function's own root on.
    pub path: String,
}

const PATH: &str = "/_ondol/url/";

impl Address {
    /// None if the request is for somebody else.
    pub fn of(host: Option<&str>, path: &str) -> Option<Self> {
        let host = host.unwrap_or_default();
        let domain = host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
        });
        if let Some((id, rest)) = domain.split_once('.') {
            if rest.to_ascii_lowercase().starts_with("lambda-url.") {
                let id = id.to_ascii_lowercase();
                return Some(Self { id, domain: domain.to_owned(), path: path.to_owned() });
            }
        }
        let rest = path.strip_prefix(PATH)?;
        let (id, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        Some(Self { id: id.to_ascii_lowercase(), domain: domain.to_owned(), path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_paths() {
        let of = |host, path| Address::of(Some(host), path).map(|a| (a.id, a.domain, a.path));
        let wanted = |id: &str, domain: &str, path: &str| Some((id.into(), domain.into(), path.into()));
        let host = "abc.lambda-url.us-east-1.localhost:4566";
        assert_eq!(of(host, "/a%2Fb"), wanted("abc", "abc.lambda-url.us-east-1.localhost", "/a%2Fb"));
        assert_eq!(of("ABC.Lambda-Url.x.on.aws", "/"), wanted("abc", "ABC.Lambda-Url.x.on.aws", "/"));
        assert_eq!(of("127.0.0.1:4566", "/_ondol/url/abc/x/y"), wanted("abc", "127.0.0.1", "/x/y"));
        assert_eq!(of("[::1]:4566", "/_ondol/url/abc"), wanted("abc", "[::1]", "/"));
        assert_eq!(of("localhost:4566", "/2015-03-31/functions"), None);
        assert_eq!(of("lambda-url.localhost", "/"), None);
    }
}
