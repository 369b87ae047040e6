//! Random policies, decided twice: by the code and by a second evaluator that knows only JSON, tries every way
//! a star can match, and follows AWS's text sentence by sentence without any of the code's types.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::*;
use crate::coins::Coins;

const ACTIONS: [&str; 7] = ["*", "a:*", "a:Get", "a:P?t", "b:*", "A:GET", "a:*t"];
const RESOURCES: [&str; 6] =
    ["*", "arn:aws:a:::x", "arn:aws:a:::x*", "arn:aws:a:::?", "arn:aws:*", "arn:aws:a:::*y"];
const ASKED_ACTIONS: [&str; 3] = ["a:Get", "a:Put", "b:Get"];
const ASKED_RESOURCES: [&str; 4] = ["arn:aws:a:::x", "arn:aws:a:::y", "arn:aws:a:::xy", "arn:aws:b:::x"];
const VALUES: [&str; 3] = ["v", "w", "v*"];
const OPERATORS: [&str; 8] = [
    "StringEquals",
    "StringNotEquals",
    "StringLike",
    "StringNotLike",
    "StringEqualsIfExists",
    "ForAllValues:StringEquals",
    "ForAnyValue:StringLike",
    "Null",
];
const HOME: &str = "111111111111";
const AWAY: &str = "222222222222";

fn principals() -> Vec<Value> {
    vec![
        json!("*"),
        json!({"AWS": HOME}),
        json!({"AWS": AWAY}),
        json!({"AWS": format!("arn:aws:iam::{HOME}:role/r")}),
        json!({"AWS": [format!("arn:aws:sts::{HOME}:assumed-role/r/s"), AWAY]}),
        json!({"Service": "a.amazonaws.com"}),
        json!({"AWS": [HOME, format!("arn:aws:iam::{HOME}:role/r"), format!("arn:aws:sts::{HOME}:assumed-role/r/s")]}),
    ]
}

fn one<'a>(coins: &mut Coins, list: &[&'a str]) -> &'a str {
    list[coins.below(list.len())]
}

fn statement(coins: &mut Coins, with_principal: bool) -> Value {
    let mut statement = json!({"Effect": if coins.below(4) == 0 { "Deny" } else { "Allow" }});
    let not =
        |coins: &mut Coins, name: &str| if coins.below(6) == 0 { format!("Not{name}") } else { name.into() };
    let name = not(coins, "Action");
    statement[name] = json!([one(coins, &ACTIONS), one(coins, &ACTIONS)]);
    let name = not(coins, "Resource");
    statement[name] = json!(one(coins, &RESOURCES));
    if with_principal {
        let name = not(coins, "Principal");
        let all = principals();
        statement[name] = all[coins.below(all.len())].clone();
    }
    if coins.below(3) == 0 {
        let operator = one(coins, &OPERATORS);
        let value = match operator {
            "Null" => json!(one(coins, &["true", "false"])),
            _ => json!([one(coins, &VALUES), one(coins, &VALUES)]),
        };
        statement["Condition"] = json!({operator: {"a:Key": value}});
    }
    statement
}

fn policy(coins: &mut Coins, with_principal: bool) -> Value {
    let statements: Vec<Value> = (0..=coins.below(3)).map(|_| statement(coins, with_principal)).collect();
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// Every way a star can match, tried.
fn star_matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|taken| star_matches(rest, &text[taken..])),
        Some((b'?', rest)) => !text.is_empty() && star_matches(rest, &text[1..]),
        Some((byte, rest)) => text.first() == Some(byte) && star_matches(rest, &text[1..]),
    }
}

fn list(value: &Value) -> Vec<String> {
    let texts = |list: &Vec<Value>| list.iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    value.as_array().map_or_else(|| vec![value.as_str().unwrap().to_owned()], texts)
}

/// The second evaluator's picture of a caller: every name it answers to, the widest first.
struct Who {
    account: &'static str,
    names: Vec<String>,
    is_root: bool,
    signed: bool,
}

fn who(number: usize) -> (Caller, Who) {
    let role = |account: &'static str| {
        let names = vec![
            account.to_owned(),
            format!("arn:aws:iam::{account}:role/r"),
            format!("arn:aws:sts::{account}:assumed-role/r/s"),
        ];
        let caller = Caller::assumed_role(&names[1], "AROAAAAAAAAAAAAAAAAAA", "s");
        (caller, Who { account, names, is_root: false, signed: true })
    };
    let other = |caller, account: &'static str, names: &[&str], is_root| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        (caller, Who { account, names, is_root, signed: is_root })
    };
    match number {
        0 | 1 => role(HOME),
        2 => role(AWAY),
        3 => other(Caller::root(HOME), HOME, &[HOME], true),
        4 => other(Caller::service("a.amazonaws.com"), "", &["a.amazonaws.com"], false),
        _ => other(Caller::anonymous(), "", &[], false),
    }
}

/// 0: not named; 1: by account; 2: by role; 3: itself.
fn named(who: &Who, principal: &Value) -> usize {
    if *principal == json!("*") {
        return 3;
    }
    let names: Vec<String> = principal.as_object().unwrap().values().flat_map(list).collect();
    let place = who.names.iter().rposition(|name| names.contains(name));
    match place {
        None => 0,
        Some(_) if who.names.len() == 1 && !who.signed => 3,
        Some(place) => place + 1,
    }
}

fn statement_reach(statement: &Value, who: &Who, action: &str, resource: &str, key: &[String]) -> usize {
    let any = |name: &str, text: &str, lower: bool| {
        statement.get(name).map(|patterns| {
            list(patterns).iter().any(|pattern| {
                let pattern = if lower { pattern.to_lowercase() } else { pattern.clone() };
                star_matches(pattern.as_bytes(), text.as_bytes())
            })
        })
    };
    let action = action.to_lowercase();
    let selected = any("Action", &action, true).unwrap_or_else(|| !any("NotAction", &action, true).unwrap())
        && any("Resource", resource, false).unwrap_or_else(|| !any("NotResource", resource, false).unwrap());
    if !selected {
        return 0;
    }
    if let Some(condition) = statement.get("Condition") {
        let (operator, keys) = condition.as_object().unwrap().iter().next().unwrap();
        let wanted = list(&keys["a:Key"]);
        let equal = |value: &String| wanted.contains(value);
        let like =
            |value: &String| wanted.iter().any(|pattern| star_matches(pattern.as_bytes(), value.as_bytes()));
        let holds = match operator.as_str() {
            "StringEquals" => key.iter().any(equal),
            "StringNotEquals" => !key.iter().any(equal),
            "StringLike" | "ForAnyValue:StringLike" => key.iter().any(like),
            "StringNotLike" => !key.iter().any(like),
            "StringEqualsIfExists" => key.is_empty() || key.iter().any(equal),
            "ForAllValues:StringEquals" => key.iter().all(equal),
            _ => wanted[0] == key.is_empty().to_string(),
        };
        if !holds {
            return 0;
        }
    }
    if let Some(principal) = statement.get("Principal") {
        return named(who, principal);
    }
    let Some(principal) = statement.get("NotPrincipal") else { return 3 };
    let excepted = if statement["Effect"] == "Deny" {
        let names: Vec<String> =
            principal.as_object().map_or_else(Vec::new, |kinds| kinds.values().flat_map(list).collect());
        *principal == json!("*")
            || (!who.names.is_empty() && who.names.iter().all(|name| names.contains(name)))
    } else {
        named(who, principal) > 0
    };
    if excepted { 0 } else { 3 }
}

#[test]
fn agrees_with_trying_everything() {
    let (mut allowed, mut denied) = (0, 0);
    for seed in 0..20_000 {
        let mut coins = Coins::from_seed(seed);
        let identity: Vec<Value> = (0..coins.below(3)).map(|_| policy(&mut coins, false)).collect();
        let session = (coins.below(3) == 0).then(|| policy(&mut coins, false));
        let boundary = (coins.below(3) == 0).then(|| policy(&mut coins, false));
        let resource = (coins.below(2) == 0).then(|| policy(&mut coins, true));
        let (caller, who) = who(coins.below(6));
        let action = one(&mut coins, &ASKED_ACTIONS);
        let asked = one(&mut coins, &ASKED_RESOURCES);
        let key: Vec<String> =
            (0..coins.below(3)).map(|_| one(&mut coins, &["v", "w", "vv"]).into()).collect();

        // The code.
        let read = |value: &Value, for_use| Policy::parse(&value.to_string(), for_use).expect("a policy");
        let parsed: Vec<Arc<Policy>> =
            identity.iter().map(|value| Arc::new(read(value, PolicyUse::Identity))).collect();
        let (parsed_session, parsed_boundary, parsed_resource) = (
            session.as_ref().map(|value| read(value, PolicyUse::Identity)),
            boundary.as_ref().map(|value| read(value, PolicyUse::Identity)),
            resource.as_ref().map(|value| read(value, PolicyUse::Resource)),
        );
        let mut context = Context::default();
        for value in &key {
            context.add("a:Key", value);
        }
        let request = Request { caller: &caller, action, resource: asked, context: &context };
        let policies = Policies {
            identity: &parsed,
            session: parsed_session.as_ref(),
            permissions_boundary: parsed_boundary.as_ref(),
            resource: parsed_resource.as_ref(),
            trust: false,
            resource_account: HOME,
        };
        let decision = decide(&request, &policies).is_allowed();

        // The second opinion.
        let reaches = |policy: &Value, effect: &str| -> usize {
            let all = policy["Statement"].as_array().unwrap().iter();
            let all = all.filter(|statement| statement["Effect"] == effect);
            all.map(|statement| statement_reach(statement, &who, action, asked, &key)).max().unwrap_or(0)
        };
        let every: Vec<&Value> = identity.iter().chain(&session).chain(&boundary).chain(&resource).collect();
        let any_denial = every.iter().any(|policy| reaches(policy, "Deny") > 0);
        let identity_allows = who.is_root || identity.iter().any(|policy| reaches(policy, "Allow") > 0);
        let left = [&session, &boundary]
            .into_iter()
            .all(|policy| policy.as_ref().is_none_or(|policy| reaches(policy, "Allow") > 0));
        let resource_allows = resource.as_ref().map_or(0, |policy| reaches(policy, "Allow"));
        let expected = !any_denial
            && if !who.signed {
                resource_allows > 0
            } else if who.account == HOME {
                resource_allows == 3 || (left && (resource_allows == 2 || identity_allows))
            } else {
                left && identity_allows && resource_allows > 0
            };
        assert_eq!(
            decision, expected,
            "seed {seed}: {caller:?} {action} {asked} {key:?} identity {identity:?} session {session:?} boundary {boundary:?} resource {resource:?}"
        );
        if decision { allowed += 1 } else { denied += 1 }
    }
    assert!(
        allowed > 2_000 && denied > 2_000,
        "{allowed} allowed, {denied} denied: the cases say too little"
    );
}
