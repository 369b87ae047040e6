//! Whatever comes, an answer comes: forms and chunks of any bytes end in a value or a fault, never in a panic.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::{Chance, KEY, Request};
use ondol_wire::query::{find_operation, read_input};
use ondol_wire::{iam, sts};

#[test]
fn forms_of_any_bytes_are_read_or_refused() {
    let pieces = [
        "&",
        "&",
        "=",
        ".",
        "Tags",
        "member",
        "entry",
        "1",
        "2",
        "0",
        "-1",
        "key",
        "value",
        "RoleName",
        "PolicyArns",
        "arn",
        "%",
        "%C3",
        "+",
        "é",
        "Key",
        "Value",
        "MaxItems",
        "SetAsDefault",
        "true",
        "99999999999",
        "Version",
        "2010-05-08",
        "Tags.member.1.Key=k",
        "Description=",
    ];
    let mut chance = Chance::new();
    let (mut read, mut refused) = (0, 0);
    for _ in 0..5_000 {
        for service in [&iam::SERVICE, &sts::SERVICE] {
            let operation = &service.operations[chance.below(service.operations.len())];
            let rest = chance.text(&pieces, 30);
            let mut form =
                format!("Action={}&Version={}&{rest}", operation.name, service.api_version).into_bytes();
            if chance.below(4) == 0 {
                let place = chance.below(form.len());
                form[place] ^= 1 << chance.below(8);
            }
            match find_operation(service, &form)
                .and_then(|operation| read_input::<serde_json::Value>(service, operation, &form))
            {
                Ok(input) => read += usize::from(input.is_object()),
                Err(fault) => refused += usize::from(fault.status == 400),
            }
        }
    }
    println!("{read} read, {refused} refused");
    assert_eq!(read + refused, 10_000);
    assert!(read > 0 && refused > 0);
}

/// A name with very many parts takes no more stack than its shape has levels.
#[test]
fn deep_names_and_long_lists_end() {
    let deep = format!("Action=TagRole&Version=2010-05-08&RoleName=r&Tags{}=x", ".member.1".repeat(100_000));
    let operation = iam::SERVICE.operation("TagRole").unwrap();
    assert!(read_input::<serde_json::Value>(&iam::SERVICE, operation, deep.as_bytes()).is_err());
    let mut long = String::from("Action=TagRole&Version=2010-05-08&RoleName=r");
    for number in 1..=20_000 {
        long.push_str(&format!("&Tags.member.{number}.Key=k&Tags.member.{number}.Value=v"));
    }
    let fault = read_input::<serde_json::Value>(&iam::SERVICE, operation, long.as_bytes()).unwrap_err();
    assert!(
        fault.message.contains(
            "'tags' failed to satisfy constraint: Member must have length less than or equal to 50"
        )
    );
}

#[test]
fn chunks_of_any_bytes_are_refused() {
    let pieces =
        ["\r\n", "\r\n", "0", "3", "a", "abc", ";chunk-signature=", ":", "\n", "é", "ffffffffffffffff", "-"];
    let mut chance = Chance::new();
    for word in ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"] {
        for _ in 0..2_000 {
            let mut request = Request {
                method: "PUT".into(),
                path: "/".into(),
                body: chance.text(&pieces, 16).into_bytes(),
                ..Request::default()
            };
            let credential = format!("{KEY}/20150830/us-east-1/s3/aws4_request");
            let headers = [
                ("host", "localhost".to_owned()),
                ("x-amz-date", "20150830T123600Z".to_owned()),
                ("x-amz-content-sha256", word.to_owned()),
                ("x-amz-decoded-content-length", chance.pick(&["0", "3", "6", "x"]).to_owned()),
            ];
            request.headers.extend(headers.map(|(name, value)| (name.to_owned(), value)));
            let signature = common::seed(&request, word);
            request.headers.push((
                "authorization".into(),
                format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={signature}"),
            ));
            // The head is good, so that it is the chunks that are looked at.
            match request.check(1_440_938_160) {
                Ok(decoded) => assert!(decoded.is_some() && word.contains("UNSIGNED"), "{request:?}"),
                Err(fault) => assert!(!fault.message.is_empty()),
            }
        }
    }
}
