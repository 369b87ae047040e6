//! Percent-encoding as AWS reads it, and the split of a request target.

/// Decodes `%XX`; a `+` stays a plus, as in paths and in AWS's query strings.
pub fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while place < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
        match (bytes[place], hex(place + 1), hex(place + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                place += 3;
            }
            (byte, ..) => {
                out.push(byte);
                place += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Encodes everything but RFC 3986's unreserved characters; `/` too unless `keep_slash`.
pub fn percent_encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b'/' if keep_slash => out.push('/'),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(HEX[usize::from(byte >> 4)] as char);
                out.push(HEX[usize::from(byte & 15)] as char);
            }
        }
    }
    out
}

/// The decoded pairs of a query string, in order.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value))
        })
        .collect()
}

/// Matches a path against a template; on success the decoded labels, in the template's order.
pub fn match_path<'t>(template: &'t str, path: &str) -> Option<Vec<(&'t str, String)>> {
    let mut labels = Vec::new();
    let mut parts = path.trim_end_matches('/').split('/');
    for expected in template.trim_end_matches('/').split('/') {
        match expected.strip_prefix('{').and_then(|label| label.strip_suffix('}')) {
            Some(label) if label.ends_with('+') => {
                let rest: Vec<&str> = parts.by_ref().collect();
                labels.push((label.trim_end_matches('+'), percent_decode(&rest.join("/"))));
            }
            Some(label) => {
                labels.push((label, percent_decode(parts.next().filter(|part| !part.is_empty())?)));
            }
            None if parts.next() == Some(expected) => {}
            None => return None,
        }
    }
    parts.next().is_none().then_some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_decoded_and_extra_parts_refused() {
        let template = "/2015-03-31/functions/{FunctionName}/invocations";
        let labels = match_path(template, "/2015-03-31/functions/arn%3Aaws%3Alambda/invocations").unwrap();
        assert_eq!(labels, vec![("FunctionName", "arn:aws:lambda".to_owned())]);
        assert_eq!(match_path(template, "/2015-03-31/functions/a/b/invocations"), None);
        assert_eq!(match_path(template, "/2015-03-31/functions//invocations"), None);
        assert_eq!(match_path("/2015-03-31/functions", "/2015-03-31/functions/"), Some(vec![]));
    }

    #[test]
    fn encoding_and_decoding_agree() {
        let odd = "a b/$é+%";
        assert_eq!(percent_decode(&percent_encode(odd, false)), odd);
        assert_eq!(percent_encode("a/b", true), "a/b");
        assert_eq!(percent_decode("%zz%4"), "%zz%4");
    }
}
