//! Text with wildcards and policy variables.

use super::context::Facts;

/// A text of a policy that is compared with one of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Unit(Unit),
    /// `${key}` or `${key, 'default'}`; the key in lower case.
    Variable {
        key: String,
        default: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Char(char),
    /// `?`
    One,
    /// `*`
    Any,
}

/// What is special in a text besides its characters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grammar {
    pub wildcards: bool,
    pub variables: bool,
}

/// How a text is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// A star matches everything, colons too.
    Plain,
    IgnoreCase,
    /// Each of the six parts of an ARN on its own.
    Arn,
}

impl Pattern {
    pub(super) fn read(text: &str, grammar: Grammar) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if grammar.variables && rest.starts_with("${") {
                if let Some((inside, after)) = rest[2..].split_once('}') {
                    pieces.push(variable(inside));
                    rest = after;
                    continue;
                }
            }
            pieces.push(Piece::Unit(match next {
                '*' if grammar.wildcards => Unit::Any,
                '?' if grammar.wildcards => Unit::One,
                other => Unit::Char(other),
            }));
            rest = &rest[next.len_utf8()..];
        }
        Self { text: text.to_owned(), pieces }
    }

    /// The text as the policy has it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a text matches; `None` when a variable has neither a value nor a default.
    pub(super) fn matches(&self, value: &str, facts: &Facts<'_>, comparison: Comparison) -> Option<bool> {
        if matches!(self.pieces[..], [Piece::Unit(Unit::Any)]) {
            return Some(true);
        }
        let mut units = self.units(facts)?;
        Some(match comparison {
            Comparison::Plain => glob(&units, value),
            Comparison::IgnoreCase => {
                for unit in &mut units {
                    if let Unit::Char(char) = unit {
                        *char = char.to_ascii_lowercase();
                    }
                }
                glob(&units, &value.to_ascii_lowercase())
            }
            Comparison::Arn => {
                let pattern: Vec<&[Unit]> = units.splitn(6, |unit| *unit == Unit::Char(':')).collect();
                let value: Vec<&str> = value.splitn(6, ':').collect();
                pattern.len() == 6
                    && value.len() == 6
                    && pattern.into_iter().zip(value).all(|(pattern, part)| glob(pattern, part))
            }
        })
    }

    fn units(&self, facts: &Facts<'_>) -> Option<Vec<Unit>> {
        let mut units = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            match piece {
                Piece::Unit(unit) => units.push(*unit),
                Piece::Variable { key, default } => {
                    // A variable stands for one text; a key with several values has none.
                    let value = match facts.values(key) {
                        Some([value]) => value,
                        _ => default.as_ref()?,
                    };
                    units.extend(value.chars().map(Unit::Char));
                }
            }
        }
        Some(units)
    }
}

fn variable(inside: &str) -> Piece {
    // `${*}`, `${?}` and `${$}` are the characters themselves.
    if let "*" | "?" | "$" = inside {
        return Piece::Unit(Unit::Char(inside.chars().next().unwrap_or('*')));
    }
    let (key, default) =
        inside.split_once(',').map_or((inside, None), |(key, default)| (key, Some(default.trim())));
    let default = default.map(|default| {
        let quoted = default.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        quoted.unwrap_or(default).to_owned()
    });
    Piece::Variable { key: key.trim().to_ascii_lowercase(), default }
}

/// Matches in the time of both lengths multiplied, whatever the pattern: a policy cannot hold the server up.
fn glob(pattern: &[Unit], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // The last star, and where the text after it was tried.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Unit::Any) => {
                star = Some((p, t));
                p += 1;
            }
            Some(Unit::One) => (p, t) = (p + 1, t + 1),
            Some(Unit::Char(char)) if *char == text[t] => (p, t) = (p + 1, t + 1),
            _ => match &mut star {
                Some((at, tried)) => {
                    *tried += 1;
                    (p, t) = (*at + 1, *tried);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|unit| *unit == Unit::Any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Context;

    fn matches(pattern: &str, value: &str, comparison: Comparison) -> Option<bool> {
        let request = Context::default()
            .with("aws:PrincipalTag/team", "red*")
            .with("aws:TagKeys", "a")
            .with("aws:TagKeys", "b");
        let facts = Facts { caller: Context::default(), request: &request };
        Pattern::read(pattern, Grammar { wildcards: true, variables: true })
            .matches(value, &facts, comparison)
    }

    #[test]
    fn wildcards_and_variables() {
        let arn = "arn:aws:lambda:eu-west-1:123456789012:function:f:live";
        for (pattern, value, comparison, expected) in [
            ("*", "", Comparison::Plain, Some(true)),
            ("a*c?", "abbcd", Comparison::Plain, Some(true)),
            ("a*c?", "abbc", Comparison::Plain, Some(false)),
            ("a**b", "ab", Comparison::Plain, Some(true)),
            ("?", "é", Comparison::Plain, Some(true)),
            ("A", "a", Comparison::Plain, Some(false)),
            ("lambda:Get*", "LAMBDA:getFunction", Comparison::IgnoreCase, Some(true)),
            // What a variable stands for is no pattern.
            ("x/${aws:PrincipalTag/Team}/*", "x/red*/1", Comparison::Plain, Some(true)),
            ("x/${aws:PrincipalTag/Team}/*", "x/redder/1", Comparison::Plain, Some(false)),
            ("${aws:username}", "", Comparison::Plain, None),
            ("${aws:username, 'nobody'}", "nobody", Comparison::Plain, Some(true)),
            ("${aws:TagKeys}", "a", Comparison::Plain, None),
            ("a${*}b${?}${$}", "a*b?$", Comparison::Plain, Some(true)),
            ("a${*}", "ab", Comparison::Plain, Some(false)),
            ("${unclosed", "${unclosed", Comparison::Plain, Some(true)),
            ("arn:aws:lambda:*:123456789012:function:*", arn, Comparison::Arn, Some(true)),
            ("arn:aws:lambda:*:function:f:live", arn, Comparison::Arn, Some(false)),
            ("arn:aws:lambda:*:function:f:live", arn, Comparison::Plain, Some(true)),
            ("arn:*:*:*:*:*", "not an arn", Comparison::Arn, Some(false)),
        ] {
            assert_eq!(matches(pattern, value, comparison), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn many_stars_do_not_take_forever() {
        let pattern = "*a".repeat(200);
        assert_eq!(matches(&format!("{pattern}b"), &"a".repeat(2_000), Comparison::Plain), Some(false));
    }
}
