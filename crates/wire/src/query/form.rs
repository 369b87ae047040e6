//! The parameters of a form, by name.

use std::collections::BTreeMap;

use crate::uri::percent_decode;

/// Decoded parameters in the order of their names, so that all below a prefix are neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads `a=b&c=d`, where a `+` is a space. Of a repeated name the first counts.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut form = BTreeMap::new();
        for pair in bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let pair = String::from_utf8_lossy(pair);
            let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
            form.entry(decode(name)).or_insert_with(|| decode(value));
        }
        Self(form)
    }

    /// The value of the parameter of exactly this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// What follows `prefix` in every name that begins with it, in order.
    pub(super) fn below<'f>(&'f self, prefix: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.range(prefix.to_owned()..).map_while(move |(name, _)| name.strip_prefix(prefix))
    }
}

fn decode(text: &str) -> String {
    if text.contains('+') { percent_decode(&text.replace('+', " ")) } else { percent_decode(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_decoded_and_its_first_value_counts() {
        let form = Form::parse(b"a=x+y%2B&&b&a=later&%C3%A9=%zz");
        assert_eq!((form.get("a"), form.get("b"), form.get("é")), (Some("x y+"), Some(""), Some("%zz")));
        assert_eq!(Form::parse(b"T.member.2=b&T.member.1=a&TT=c").below("T.").count(), 2);
        assert_eq!(Form::parse(b"\xff=\xfe").get("\u{fffd}"), Some("\u{fffd}"));
    }
}
