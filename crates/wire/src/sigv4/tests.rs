use super::*;

const NOW: i64 = 1_440_938_160; // 2015-08-30T12:36:00Z
const STAMP: &str = "20150830T123600Z";

fn outgoing<'a>(method: &'a str, path: &'a str, query: &'a str, body: &'a [u8]) -> Outgoing<'a> {
    Outgoing { method, path, query, host: "example.amazonaws.com", stamp: STAMP, body }
}

/// Headers as a test writes them, and a key that is known.
#[derive(Debug, Clone)]
struct Sent(Vec<(&'static str, String)>);

impl Sent {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.push((name, value.into()));
        self
    }
}

impl Headers for Sent {
    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }
}

#[derive(Debug)]
struct OneKey(&'static str);

impl Keys for OneKey {
    fn secret(&self, _: &str, _: Option<&str>) -> Option<String> {
        Some(self.0.to_owned())
    }
}

fn signer(headers: &dyn Headers) -> Signer {
    Signer::of(headers, "", &OneKey("test")).unwrap()
}

/// The published `get-vanilla-query-order-key-case` case of AWS's own signing test suite.
#[test]
fn a_published_case_gives_the_published_signature() {
    let header = sign(
        &outgoing("GET", "/", "Param2=value2&Param1=value1", b""),
        ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        ("us-east-1", "service"),
    );
    assert!(
        header.ends_with("Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
        "{header}"
    );
}

fn signed(sent: &Outgoing<'_>) -> Sent {
    let header = sign(sent, ("test", "test"), ("us-east-1", "lambda"));
    Sent(vec![("host", sent.host.into()), ("x-amz-date", sent.stamp.into()), ("authorization", header)])
}

#[test]
fn what_is_signed_verifies_and_any_change_does_not() {
    let sent = outgoing("POST", "/a%3Ab/c", "x=1", b"body");
    let headers = signed(&sent);
    let request = SignedRequest { method: "POST", path: sent.path, query: sent.query, headers: &headers };
    let check = |request, body: &[u8], now| signer(&headers).check(request, body, now);
    assert_eq!(check(request, b"body", NOW), Ok(None));
    assert!(check(request, b"Body", NOW).is_err());
    assert!(check(SignedRequest { path: "/a%3Ab/d", ..request }, b"body", NOW).is_err());
    assert!(check(SignedRequest { query: "x=2", ..request }, b"body", NOW).is_err());
    assert!(check(SignedRequest { method: "PUT", ..request }, b"body", NOW).is_err());
    assert_eq!(check(request, b"body", NOW + SKEW_SECONDS_MAX), Ok(None));
    assert_eq!(
        check(request, b"body", NOW + SKEW_SECONDS_MAX + 1).unwrap_err().message,
        "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)"
    );
    assert_eq!(
        check(request, b"body", NOW - SKEW_SECONDS_MAX - 1).unwrap_err().message,
        "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z (20150830T123059Z + 5 min.)"
    );
    let stranger = Signer::of(&headers, "", &OneKey("tost")).unwrap();
    assert_eq!(stranger.check(request, b"body", NOW).unwrap_err().code, "InvalidSignatureException");
}

#[test]
fn paths_are_read_as_the_service_and_its_clients_read_them() {
    let at = |path: &'static str, reading| {
        let request = SignedRequest { method: "GET", path, query: "", headers: &Sent(Vec::new()) };
        let authorization = Authorization::parse(Some(
            "AWS4-HMAC-SHA256 Credential=k/20150830/r/lambda/aws4_request, SignedHeaders=host, Signature=s",
        ))
        .unwrap();
        let reading = Reading { path: reading, plus_is_space: false, without_token: false };
        let text = canonical_request(&request, &authorization, "", reading);
        String::from_utf8(text).unwrap().lines().nth(1).unwrap().to_owned()
    };
    for (path, normalised, with_slash) in [
        ("", "/", "/"),
        ("/", "/", "/"),
        ("//", "/", "/"),
        ("/..", "/", "/"),
        ("/a/./b//c", "/a/b/c", "/a/b/c"),
        ("/a/b/..", "/a", "/a/"),
        ("/a/b/../", "/a/", "/a/"),
        ("/a/.", "/a", "/a/"),
        ("/x%2Fy z", "/x%252Fy%20z", "/x%252Fy%20z"),
    ] {
        assert_eq!(at(path, PathReading::Normalised), normalised, "{path}");
        assert_eq!(at(path, PathReading::NormalisedWithSlash), with_slash, "{path}");
    }
    assert_eq!(at("/a//../b%20", PathReading::AsItCame), "/a//../b%20");
    assert_eq!(at("/a//../b%20", PathReading::Encoded), "/a//../b%2520");
}

#[test]
fn broken_headers_are_refused_with_a_code_and_every_missing_part() {
    let refused = |header: &str| Authorization::parse(Some(header)).unwrap_err();
    assert_eq!(
        Authorization::parse(None).unwrap_err(),
        Fault::new("MissingAuthenticationTokenException", 403, "Missing Authentication Token")
    );
    for bad in [
        "",
        "Basic x",
        "Basic eDp5==",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=a/b",
        "AWS4-HMAC-SHA256 é",
    ] {
        assert_eq!(refused(bad).code, "IncompleteSignatureException", "{bad}");
    }
    assert!(
        refused("AWS4-HMAC-SHA256 SignedHeaders=host").message.starts_with(
            "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. (Hashed"
        )
    );
    let undated = Sent(vec![("authorization", "AWS4-HMAC-SHA256 Signature=s".into())]);
    assert!(Authorization::of(&undated, "").unwrap_err().message.contains(
        "requires 'SignedHeaders' parameter. Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
    ));
    assert_eq!(refused("AWS4-HMAC-SHA512 a=b").message, "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA512'.");
    let scoped = |credential: &str| {
        refused(&format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0")).message
    };
    assert_eq!(
        scoped("k/d/r"),
        "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'k/d/r'"
    );
    assert!(scoped("k/d/r/s/aws3_request").contains("valid terminator: 'aws4_request', not 'aws3_request'"));
}

#[test]
fn a_scope_names_the_right_region_and_service() {
    let authorization = signer(&signed(&outgoing("GET", "/", "", b""))).authorization;
    assert_eq!(authorization.check_scope(&["us-east-1"], "lambda"), Ok(()));
    let region = authorization.check_scope(&["eu-west-1"], "lambda").unwrap_err();
    assert_eq!(region.message, "Credential should be scoped to a valid region.");
    let service = authorization.check_scope(&["us-east-1"], "iam").unwrap_err();
    assert_eq!(service.message, "Credential should be scoped to correct service: 'iam'.");
}

#[test]
fn the_list_of_signed_headers_is_held_to_its_form() {
    let sent = outgoing("GET", "/", "", b"");
    for (list, text) in [
        ("x-amz-date", "'Host' or ':authority' must be a 'SignedHeader'"),
        ("x-amz-date;host", "sorted"),
        ("Host;x-amz-date", "lower case"),
        ("host;host", "named once"),
        ("", "'Host'"),
    ] {
        let mut headers = signed(&sent);
        headers.0[2].1 = headers.0[2].1.replace("=host;x-amz-date", &format!("={list}"));
        let request = SignedRequest { method: "GET", path: "/", query: "", headers: &headers };
        let fault = signer(&headers).check(request, b"", NOW).unwrap_err();
        assert!(fault.message.contains(text), "{list}: {fault}");
    }
}

const QUERY: &str = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k%2F20150830%2Fus-east-1%2Flambda%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host&X-Amz-Signature=0";

#[test]
fn presigned_queries_are_read_and_bounded() {
    let read = |query: &str| Authorization::of(&Sent(Vec::new()), query);
    let presigned =
        read(&format!("{QUERY}&X-Amz-Expires=60&X-Amz-Security-Token=a%2Bb")).unwrap().presigned.unwrap();
    assert_eq!((presigned.expires_seconds, presigned.session_token.as_deref()), (Some(60), Some("a+b")));
    for (expires, text) in [("604801", "less than a week"), ("-1", "non-negative"), ("soon", "a number")] {
        let fault = read(&format!("{QUERY}&X-Amz-Expires={expires}")).unwrap_err();
        assert!(fault.message.contains(text), "{fault}");
    }
    assert_eq!(
        read("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=x&X-Amz-Signature=0").unwrap_err().message,
        "AWS query-string parameters must include 'X-Amz-Credential'. AWS query-string parameters must include 'X-Amz-SignedHeaders'. Re-examine the query-string parameters."
    );
    assert_eq!(read("a=b").unwrap_err().code, "MissingAuthenticationTokenException");
}

/// The example of AWS's documentation of presigned requests to S3.
#[test]
fn the_documented_presigned_request_verifies_until_it_expires() {
    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    let headers = Sent(vec![("host", "examplebucket.s3.amazonaws.com".into())]);
    let signer = Signer::of(&headers, query, &OneKey("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")).unwrap();
    let request = SignedRequest { method: "GET", path: "/test.txt", query, headers: &headers };
    let at = 1_369_353_600;
    assert_eq!(signer.check(request, b"", at), Ok(None));
    assert_eq!(signer.check(request, b"", at + 86_400), Ok(None));
    assert!(signer.check(request, b"", at + 86_401).unwrap_err().message.contains("- 1440 min.)"));
    assert!(signer.check(SignedRequest { path: "/test.txu", ..request }, b"", at).is_err());
}

/// The examples of AWS's documentation of signed chunks, with and without a trailer.
fn documented_chunks(trailer: bool) -> (Sent, Vec<u8>) {
    let chunked = if trailer {
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    } else {
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    };
    let (names, seed, signatures) = if trailer {
        (
            "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer",
            "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
            [
                "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
                "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
                "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
            ],
        )
    } else {
        (
            "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
            "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
            [
                "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
                "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
                "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
            ],
        )
    };
    let mut body = Vec::new();
    for (size, signature) in [65_536_usize, 1_024, 0].into_iter().zip(signatures) {
        body.extend(format!("{size:x};chunk-signature={signature}\r\n").bytes());
        body.extend(std::iter::repeat_n(b'a', size));
        body.extend(b"\r\n");
    }
    if trailer {
        body.truncate(body.len() - 2);
        body.extend(b"x-amz-checksum-crc32c:sOO8/Q==\r\n");
        body.extend(
            b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n",
        );
    }
    let headers = Sent(vec![
        ("host", "s3.amazonaws.com".into()),
        ("x-amz-date", "20130524T000000Z".into()),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY".into()),
        ("content-encoding", "aws-chunked".into()),
        ("content-length", "66824".into()),
        ("x-amz-decoded-content-length", "66560".into()),
        ("x-amz-content-sha256", chunked.into()),
    ])
    .with(
        "authorization",
        format!("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders={names},Signature={seed}"),
    );
    (if trailer { headers.with("x-amz-trailer", "x-amz-checksum-crc32c") } else { headers }, body)
}

fn check_chunks(headers: &Sent, body: &[u8]) -> Result<Option<Decoded>, Fault> {
    let signer = Signer::of(headers, "", &OneKey("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))?;
    let request = SignedRequest { method: "PUT", path: "/examplebucket/chunkObject.txt", query: "", headers };
    signer.check(request, body, 1_369_353_600)
}

#[test]
fn documented_chunks_verify_and_come_out_of_their_frames() {
    for trailer in [false, true] {
        let (headers, body) = documented_chunks(trailer);
        let decoded = check_chunks(&headers, &body).unwrap().unwrap();
        assert_eq!(decoded.body, vec![b'a'; 66_560]);
        assert_eq!(decoded.trailers.len(), usize::from(trailer));
    }
}

#[test]
fn chunks_that_were_touched_or_cut_are_refused() {
    for trailer in [false, true] {
        let (headers, body) = documented_chunks(trailer);
        // The last few bytes are line ends, which nothing hangs on.
        let places =
            (0..body.len() - 4).filter(|place| *place < 200 || *place > 65_400 || place % 9_973 == 0);
        for place in places {
            let mut touched = body.clone();
            touched[place] ^= 1;
            assert!(check_chunks(&headers, &touched).is_err(), "trailer {trailer}, byte {place}");
        }
        for length in (0..body.len() - 4).rev().step_by(251) {
            assert!(check_chunks(&headers, &body[..length]).is_err(), "trailer {trailer}, {length} bytes");
        }
    }
}

#[test]
fn lengths_and_trailers_are_held_to_what_the_head_says() {
    let head = |length: &str| {
        Sent(vec![
            ("x-amz-decoded-content-length", length.into()),
            ("x-amz-trailer", "X-Amz-Checksum-Crc32".into()),
        ])
    };
    let decode = |length: &str, body: &str| chunked::decode(body.as_bytes(), &head(length), None, true);
    let good = decode("3", "3\r\nabc\r\n0\r\nx-amz-checksum-crc32:NSRBwg==\r\n\r\n").unwrap();
    assert_eq!((good.body.as_slice(), good.trailers.len()), (&b"abc"[..], 1));
    assert_eq!(decode("0", "0\r\n\r\n").unwrap(), Decoded::default());
    for (length, body, code) in [
        ("4", "3\r\nabc\r\n0\r\n\r\n", "IncompleteBody"),
        ("2", "3\r\nabc\r\n0\r\n\r\n", "IncompleteBody"),
        ("3", "3\r\nabcd\r\n0\r\n\r\n", "IncompleteBody"),
        ("3", "+3\r\nabc\r\n0\r\n\r\n", "IncompleteBody"),
        ("3", "ffffffffffffffffffff\r\nabc", "IncompleteBody"),
        ("3", "é\r\nabc", "IncompleteBody"),
        ("99999999999", "3\r\nabc\r\n0\r\n\r\n", "IncompleteBody"),
        ("x", "0\r\n\r\n", "IncompleteBody"),
        ("3", "3\r\nabc\r\n0\r\nother:1\r\n\r\n", "MalformedTrailerError"),
        ("3", "3\r\nabc\r\n0\r\nno colon\r\n\r\n", "MalformedTrailerError"),
    ] {
        assert_eq!(decode(length, body).unwrap_err().code, code, "{length} {body:?}");
    }
    let unstated = chunked::decode(b"0\r\n\r\n", &Sent(Vec::new()), None, false).unwrap_err();
    assert_eq!((unstated.code.as_str(), unstated.status), ("MissingContentLength", 411));
}

#[test]
fn a_stated_hash_must_be_the_bodys_and_unsigned_bodies_are_free() {
    let sent = outgoing("GET", "/", "", b"body");
    let stated = signed(&sent).with("x-amz-content-sha256", hex(&sha256(b"other")));
    let request = SignedRequest { method: "GET", path: "/", query: "", headers: &stated };
    assert!(signer(&stated).check(request, b"body", NOW).unwrap_err().message.contains("not the hash"));
    // Saying later that the body is unsigned changes the canonical request.
    let unsigned = signed(&sent).with("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
    let request = SignedRequest { headers: &unsigned, ..request };
    assert_eq!(signer(&unsigned).check(request, b"body", NOW).unwrap_err().message, verify::DOES_NOT_MATCH);
}

/// What `+` means is signed: nobody can turn a space into a plus, or a plus into a space, on the way.
#[test]
fn a_plus_means_to_the_signature_what_it_means_to_the_service() {
    for (service, signed_query, same, other) in
        [("lambda", "a=x%2By", "a=x+y", "a=x%20y"), ("iam", "a=x%20y", "a=x+y", "a=x%2By")]
    {
        let sent = outgoing("GET", "/", signed_query, b"");
        let header = sign(&sent, ("test", "test"), ("us-east-1", service));
        let headers =
            Sent(vec![("host", sent.host.into()), ("x-amz-date", STAMP.into()), ("authorization", header)]);
        let check = |query| {
            let request = SignedRequest { method: "GET", path: "/", query, headers: &headers };
            signer(&headers).check(request, b"", NOW)
        };
        assert_eq!((check(signed_query), check(same)), (Ok(None), Ok(None)), "{service}");
        assert!(check(other).is_err(), "{service}");
    }
}
