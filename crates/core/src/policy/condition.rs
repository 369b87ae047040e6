//! Conditions: one operator over one key.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::context::Facts;
use super::date;
use super::pattern::{Comparison, Grammar, Pattern};

/// One key of a statement's `Condition` under one operator.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    operator: Operator,
    /// In lower case.
    pub key: String,
    operands: Vec<Operand>,
}

/// `ForAnyValue:StringNotLikeIfExists` and its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operator {
    test: Test,
    negated: bool,
    quantifier: Option<Quantifier>,
    if_exists: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    All,
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    StringEquals,
    StringEqualsIgnoreCase,
    StringLike,
    Arn,
    Bool,
    Null,
    Numeric(Relation),
    Date(Relation),
    IpAddress,
    /// Over base64, which writes the same bytes in one way.
    Binary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equals,
    LessThan,
    LessThanEquals,
    GreaterThan,
    GreaterThanEquals,
}

/// A value of the policy.
#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Pattern(Pattern),
    Flag(bool),
    Number(f64),
    Moment(i64),
    Network(IpAddr, u32),
}

impl Operator {
    pub fn read(text: &str) -> Option<Self> {
        let (quantifier, rest) = match text.split_once(':') {
            Some(("ForAllValues", rest)) => (Some(Quantifier::All), rest),
            Some(("ForAnyValue", rest)) => (Some(Quantifier::Any), rest),
            Some(_) => return None,
            None => (None, text),
        };
        let (name, if_exists) = rest.strip_suffix("IfExists").map_or((rest, false), |name| (name, true));
        let (test, negated) = test(name)?;
        // Whether a key is there is what `Null` asks.
        if test == Test::Null && if_exists {
            return None;
        }
        Some(Self { test, negated, quantifier, if_exists })
    }
}

fn test(name: &str) -> Option<(Test, bool)> {
    use Relation::{Equals, GreaterThan, GreaterThanEquals, LessThan, LessThanEquals};
    Some(match name {
        "StringEquals" => (Test::StringEquals, false),
        "StringNotEquals" => (Test::StringEquals, true),
        "StringEqualsIgnoreCase" => (Test::StringEqualsIgnoreCase, false),
        "StringNotEqualsIgnoreCase" => (Test::StringEqualsIgnoreCase, true),
        "StringLike" => (Test::StringLike, false),
        "StringNotLike" => (Test::StringLike, true),
        // AWS gives both of each pair the same meaning.
        "ArnEquals" | "ArnLike" => (Test::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Test::Arn, true),
        "Bool" => (Test::Bool, false),
        "Null" => (Test::Null, false),
        "NumericEquals" => (Test::Numeric(Equals), false),
        "NumericNotEquals" => (Test::Numeric(Equals), true),
        "NumericLessThan" => (Test::Numeric(LessThan), false),
        "NumericLessThanEquals" => (Test::Numeric(LessThanEquals), false),
        "NumericGreaterThan" => (Test::Numeric(GreaterThan), false),
        "NumericGreaterThanEquals" => (Test::Numeric(GreaterThanEquals), false),
        "DateEquals" => (Test::Date(Equals), false),
        "DateNotEquals" => (Test::Date(Equals), true),
        "DateLessThan" => (Test::Date(LessThan), false),
        "DateLessThanEquals" => (Test::Date(LessThanEquals), false),
        "DateGreaterThan" => (Test::Date(GreaterThan), false),
        "DateGreaterThanEquals" => (Test::Date(GreaterThanEquals), false),
        "IpAddress" => (Test::IpAddress, false),
        "NotIpAddress" => (Test::IpAddress, true),
        "BinaryEquals" => (Test::Binary, false),
        _ => return None,
    })
}

impl Relation {
    fn holds(self, ordering: Option<Ordering>) -> bool {
        let Some(ordering) = ordering else { return false };
        match self {
            Self::Equals => ordering.is_eq(),
            Self::LessThan => ordering.is_lt(),
            Self::LessThanEquals => ordering.is_le(),
            Self::GreaterThan => ordering.is_gt(),
            Self::GreaterThanEquals => ordering.is_ge(),
        }
    }
}

impl Condition {
    /// `None` when a value is not of the operator's kind.
    pub fn read(operator: Operator, key: &str, values: &[String], variables: bool) -> Option<Self> {
        let operands =
            values.iter().map(|value| operator.test.operand(value, variables)).collect::<Option<_>>()?;
        Some(Self { operator, key: key.to_ascii_lowercase(), operands })
    }

    /// Whether it binds a key to what the policy lists: not the other way round, and not only if the key is there.
    pub fn pins(&self, key: &str) -> bool {
        let Operator { test, negated, if_exists, quantifier } = self.operator;
        self.key == key && !negated && !if_exists && test != Test::Null && quantifier != Some(Quantifier::All)
    }

    /// `denies` says what the statement does: where a variable has no value, the condition is read so that
    /// less is granted and more denied.
    pub fn holds(&self, facts: &Facts<'_>, denies: bool) -> bool {
        let Operator { test, negated, quantifier, if_exists } = self.operator;
        let values = facts.values(&self.key);
        if test == Test::Null {
            return self.operands.contains(&Operand::Flag(values.is_none()));
        }
        let Some(values) = values else {
            // A key that is not there is unequal to everything.
            return if_exists
                || match quantifier {
                    Some(Quantifier::All) => true,
                    Some(Quantifier::Any) => false,
                    None => negated,
                };
        };
        let one = |value: &String| {
            let mut hit = false;
            for operand in &self.operands {
                match test.matches(operand, value, facts) {
                    Some(matched) => hit |= matched,
                    // It may be equal or not: an allowance must not rest on its being unequal.
                    None if negated && !denies => return false,
                    None => {}
                }
            }
            hit != negated
        };
        match quantifier {
            Some(Quantifier::All) => values.iter().all(one),
            Some(Quantifier::Any) => values.iter().any(one),
            None if negated => values.iter().all(one),
            None => values.iter().any(one),
        }
    }
}

impl Test {
    fn operand(self, value: &str, variables: bool) -> Option<Operand> {
        let pattern =
            |wildcards, variables| Operand::Pattern(Pattern::read(value, Grammar { wildcards, variables }));
        Some(match self {
            Self::StringEquals | Self::StringEqualsIgnoreCase => pattern(false, variables),
            Self::StringLike | Self::Arn => pattern(true, variables),
            Self::Binary => pattern(false, false),
            Self::Bool | Self::Null => Operand::Flag(flag(value)?),
            Self::Numeric(_) => Operand::Number(value.trim().parse().ok()?),
            Self::Date(_) => Operand::Moment(date::epoch_seconds(value)?),
            Self::IpAddress => {
                let (address, bits) = network(value)?;
                Operand::Network(address, bits)
            }
        })
    }

    fn matches(self, operand: &Operand, value: &str, facts: &Facts<'_>) -> Option<bool> {
        Some(match (self, operand) {
            (_, Operand::Pattern(pattern)) => {
                let comparison = match self {
                    Self::Arn => Comparison::Arn,
                    Self::StringEqualsIgnoreCase => Comparison::IgnoreCase,
                    _ => Comparison::Plain,
                };
                pattern.matches(value, facts, comparison)?
            }
            (Self::Numeric(relation), Operand::Number(number)) => {
                relation.holds(value.trim().parse::<f64>().ok().and_then(|value| value.partial_cmp(number)))
            }
            (Self::Date(relation), Operand::Moment(moment)) => {
                relation.holds(date::epoch_seconds(value).map(|value| value.cmp(moment)))
            }
            (_, Operand::Network(address, bits)) => {
                value.parse().is_ok_and(|value: IpAddr| contains(*address, *bits, value))
            }
            (_, Operand::Flag(expected)) => flag(value) == Some(*expected),
            _ => false,
        })
    }
}

fn flag(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else {
        text.eq_ignore_ascii_case("false").then_some(false)
    }
}

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(width), |bits| bits.parse().ok())?;
    (bits <= width).then_some((address, bits))
}

fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Context;

    /// Whether a condition of an allowance holds of a request whose key `k` has these values.
    fn holds(operator: &str, policy: &[&str], request: &[&str]) -> bool {
        holds_for(operator, policy, request, false)
    }

    fn holds_for(operator: &str, policy: &[&str], request: &[&str], denies: bool) -> bool {
        let mut context = Context::default();
        for value in request {
            context.add("K", *value);
        }
        let facts = Facts { caller: Context::default(), request: &context };
        let values: Vec<String> = policy.iter().map(|value| (*value).to_owned()).collect();
        let operator = Operator::read(operator).unwrap();
        Condition::read(operator, "k", &values, true).unwrap().holds(&facts, denies)
    }

    #[test]
    fn every_operator() {
        let arn = "arn:aws:s3:::bucket/a";
        for (operator, policy, request, expected) in [
            ("StringEquals", &["a", "b"][..], &["b"][..], true),
            ("StringEquals", &["a*"], &["ab"], false),
            ("StringEquals", &["a"], &[], false),
            ("StringNotEquals", &["a", "b"], &["c"], true),
            ("StringNotEquals", &["a", "b"], &["b"], false),
            ("StringNotEquals", &["a"], &[], true),
            ("StringNotEquals", &["${aws:username}"], &["a"], false),
            ("StringEqualsIgnoreCase", &["ABC"], &["abc"], true),
            ("StringNotEqualsIgnoreCase", &["ABC"], &["abc"], false),
            ("StringLike", &["a*"], &["ab"], true),
            ("StringNotLike", &["a*"], &["ab"], false),
            ("StringEqualsIfExists", &["a"], &[], true),
            ("StringEqualsIfExists", &["a"], &["b"], false),
            ("ArnLike", &["arn:aws:s3:::bucket/*"], &[arn], true),
            ("ArnEquals", &["arn:aws:s3:::bucket/*"], &[arn], true),
            ("ArnNotLike", &["arn:aws:s3:::bucket/*"], &[arn], false),
            ("ArnNotEquals", &["arn:aws:s3:::other/*"], &[arn], true),
            ("Bool", &["true"], &["True"], true),
            ("Bool", &["true"], &["false"], false),
            ("Bool", &["true"], &[], false),
            ("Null", &["true"], &[], true),
            ("Null", &["false"], &["x"], true),
            ("Null", &["true"], &["x"], false),
            ("NumericEquals", &["10"], &["10.0"], true),
            ("NumericNotEquals", &["10"], &["10.0"], false),
            ("NumericLessThan", &["10"], &["9"], true),
            ("NumericLessThan", &["10"], &["10"], false),
            ("NumericLessThanEquals", &["10"], &["10"], true),
            ("NumericGreaterThan", &["10"], &["9"], false),
            ("NumericGreaterThanEquals", &["10"], &["x"], false),
            ("DateGreaterThan", &["2020-01-01"], &["2026-01-01T00:00:00Z"], true),
            ("DateLessThan", &["2020-01-01"], &["2026-01-01T00:00:00Z"], false),
            ("DateEquals", &["1970-01-01T00:00:10Z"], &["1970-01-01T01:00:10+01:00"], true),
            ("DateNotEquals", &["1970-01-02"], &["86400"], false),
            ("IpAddress", &["10.0.0.0/8", "::1"], &["10.1.2.3"], true),
            ("IpAddress", &["10.0.0.0/8"], &["11.1.2.3"], false),
            ("IpAddress", &["0.0.0.0/0"], &["11.1.2.3"], true),
            ("IpAddress", &["2001:db8::/32"], &["2001:db8::1"], true),
            ("NotIpAddress", &["10.0.0.0/8"], &["10.1.2.3"], false),
            ("BinaryEquals", &["aGk="], &["aGk="], true),
            ("ForAllValues:StringEquals", &["a", "b"], &["a", "b"], true),
            ("ForAllValues:StringEquals", &["a"], &["a", "b"], false),
            ("ForAllValues:StringEquals", &["a"], &[], true),
            ("ForAnyValue:StringEquals", &["a"], &["a", "b"], true),
            ("ForAnyValue:StringEquals", &["a"], &[], false),
            ("ForAnyValue:StringNotEquals", &["a"], &["a", "b"], true),
            ("ForAllValues:StringNotEquals", &["a"], &["a", "b"], false),
        ] {
            assert_eq!(holds(operator, policy, request), expected, "{operator} {policy:?} {request:?}");
        }
    }

    #[test]
    fn a_variable_without_a_value_grants_nothing_and_excuses_nothing() {
        let without = &["${aws:username}"];
        for (operator, allowance, denial) in
            [("StringEquals", false, false), ("StringNotEquals", false, true), ("StringNotLike", false, true)]
        {
            assert_eq!(holds_for(operator, without, &["a"], false), allowance, "{operator}");
            assert_eq!(holds_for(operator, without, &["a"], true), denial, "{operator}");
        }
    }

    #[test]
    fn what_is_no_operator_or_no_value_of_one_is_refused() {
        for bad in ["StringIs", "ForSomeValues:StringEquals", "NullIfExists", "", "stringequals"] {
            assert_eq!(Operator::read(bad), None, "{bad}");
        }
        for (operator, value) in
            [("Bool", "yes"), ("NumericEquals", "ten"), ("DateEquals", "today"), ("IpAddress", "10.0.0.0/33")]
        {
            let operator = Operator::read(operator).unwrap();
            assert_eq!(Condition::read(operator, "k", &[value.to_owned()], true), None, "{value}");
        }
    }
}
