"""Who signed: every form of a signature, every way it can be wrong, and how long the keys behind it live."""

import json
import re
import subprocess
from datetime import datetime, timezone
from email.utils import format_datetime

import boto3
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from authorization_reference import ACCOUNT, IAM, LAMBDA, denial
from authorization_world import OTHER_ACCOUNT, PYTHON, TRUST_ROOT, allow, key_of, policy
from conftest import BIN, ROLE, TRUST, Server, zip_of
from signed import MATCHES_NOT, REGION, ROOT, Signature, ask, assumed, send, sha256, stamp, written
from test_api import fault

INVALID = "The security token included in the request is invalid."
SEES = ("GetFunctionConfiguration", {"FunctionName": "seen"})


def default_function(server, name, role=ROLE, code=PYTHON, **more):
    server.client.create_function(FunctionName=name, Runtime="python3.13", Handler="app.handler", Role=role, Code={"ZipFile": code}, **more)
    server.settled(name, "$LATEST")


def make_role(server, name, *statements, trust=TRUST_ROOT, **more):
    iam = server.make_client("iam")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, **more)
    if statements:
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy(*statements))
    return f"{IAM}role/{name}"


def who(server, credentials):
    """(account, ARN, user id) of whoever has these credentials."""
    answer = ask(server.url, "sts", "GetCallerIdentity", {}, credentials)
    assert answer.status == 200, answer.error()
    return answer.text("Account"), answer.text("Arn"), answer.text("UserId")


@pytest.fixture(scope="module")
def server():
    made = Server()
    default_function(made, "seen")
    make_role(made, "reader", allow("lambda:GetFunctionConfiguration"))
    yield made
    made.remove()


@pytest.fixture(scope="module")
def reader(server):
    return assumed(server.url, f"{IAM}role/reader", "one")


def sees(server, credentials, **more):
    return ask(server.url, "lambda", *SEES, credentials, **more)


# Forms of a signature.


def presigned(server, service, operation, values, credentials, expires=60, auth=SigV4QueryAuth):
    request = written(server.url, service, operation, values)
    if request.method == "POST":
        # A form as a query, which is how a presigned request of STS is passed on.
        request.method, request.url, request.data = "GET", f"{request.url}?{request.data.decode()}", b""
    request.headers = type(request.headers)({"Host": request.headers["Host"]})
    auth(credentials, service, REGION, expires=expires).add_auth(request)
    return send(request)


@pytest.mark.parametrize("service, operation, values", [("lambda", "GetFunction", {"FunctionName": "seen"}), ("sts", "GetCallerIdentity", {})])
def test_a_presigned_url(server, service, operation, values):
    answer = presigned(server, service, operation, values, ROOT)
    assert answer.status == 200, answer.body
    if service == "sts":
        assert answer.text("Arn") == f"arn:aws:iam::{ACCOUNT}:root"
    else:
        assert json.loads(answer.body)["Configuration"]["FunctionName"] == "seen"


def test_a_presigned_url_of_a_session_and_of_another_secret(server, reader):
    assert presigned(server, "lambda", *SEES, reader).status == 200
    assert presigned(server, "lambda", "ListFunctions", {}, reader).error()[:2] == (403, "AccessDeniedException")
    answer = presigned(server, "lambda", *SEES, Credentials("test", "tested"))
    assert answer.error() == (403, "InvalidSignatureException", MATCHES_NOT)
    without = Credentials(reader.access_key, reader.secret_key)
    assert presigned(server, "lambda", *SEES, without).error() == (403, "UnrecognizedClientException", INVALID)


def test_a_presigned_url_that_expired(server):
    class AMinuteAgo(SigV4QueryAuth):
        def add_auth(self, request):
            request.context["timestamp"] = stamp(-1)
            self._modify_request_before_signing(request)
            text = self.string_to_sign(request, self.canonical_request(request))
            self._inject_signature_to_request(request, self.signature(text, request))

    def asked(expires):
        return presigned(server, "lambda", *SEES, ROOT, expires, AMinuteAgo)

    assert asked(600).status == 200
    status, code, text = asked(30).error()
    assert (status, code) == (403, "InvalidSignatureException")
    # The day may have changed meanwhile.
    assert re.match(r"Signature expired: \d{8}T\d{6}Z is now earlier than \d{8}T\d{6}Z", text), text


def test_a_client_with_a_session_token(server, reader):
    made = dict(region_name=REGION, endpoint_url=server.url, config=Config(retries={"total_max_attempts": 1}))
    keys = dict(aws_access_key_id=reader.access_key, aws_secret_access_key=reader.secret_key)
    client = boto3.client("lambda", **made, **keys, aws_session_token=reader.token)
    assert client.get_function_configuration(FunctionName="seen")["FunctionName"] == "seen"
    assert fault(client.list_functions)[0] == "AccessDeniedException"
    client = boto3.client("lambda", **made, **keys)
    assert fault(client.list_functions) == ("UnrecognizedClientException", INVALID, 403)
    client = boto3.client("lambda", **made, **keys, aws_session_token=reader.token[:-2])
    assert fault(client.list_functions) == ("UnrecognizedClientException", INVALID, 403)


@pytest.mark.parametrize("stated", ["UNSIGNED-PAYLOAD", "the hash", "another hash"])
def test_what_a_signature_states_of_the_body(server, stated):
    values = {"Resource": LAMBDA + "function:seen", "Tags": {"stated": stated}}
    body = written(server.url, "lambda", "TagResource", values).data
    payload = {"the hash": sha256(body), "another hash": sha256(b"other")}.get(stated, stated)
    answer = ask(server.url, "lambda", "TagResource", values, signature=Signature(ROOT, "lambda", payload=payload))
    if stated == "another hash":
        assert answer.error()[:2] == (403, "InvalidSignatureException")
        assert server.client.list_tags(Resource=values["Resource"])["Tags"].get("stated") != stated
    else:
        assert answer.status == 204
        assert server.client.list_tags(Resource=values["Resource"])["Tags"]["stated"] == stated


def test_a_body_that_was_changed_on_its_way(server):
    request = written(server.url, "lambda", "TagResource", {"Resource": LAMBDA + "function:seen", "Tags": {"way": "sent"}})
    Signature(ROOT, "lambda").add_auth(request)
    request.data = request.data.replace(b"sent", b"lost")
    assert send(request).error() == (403, "InvalidSignatureException", MATCHES_NOT)


# Clocks.


@pytest.mark.parametrize(
    "service, code",
    [("lambda", "InvalidSignatureException"), ("iam", "SignatureDoesNotMatch"), ("sts", "SignatureDoesNotMatch")],
)
@pytest.mark.parametrize("off", [-1, 1])
def test_a_clock_that_is_off(server, service, code, off):
    """IAM and STS bear fifteen minutes, Lambda bears five."""
    what = {"lambda": ("ListFunctions", {}), "iam": ("ListRoles", {}), "sts": ("GetCallerIdentity", {})}[service]
    borne = 5 if service == "lambda" else 15
    asked = lambda minutes: ask(server.url, service, *what, signature=Signature(ROOT, service, minutes=minutes))
    assert asked(off * 4).status == 200
    status, its_code, text = asked(off * (borne + 1)).error()
    assert (status, its_code) == (403, code)
    verb, sign = ("expired", "-") if off < 0 else ("not yet current", "+")
    comparison = "now earlier" if off < 0 else "still later"
    pattern = rf"Signature {verb}: \d{{8}}T\d{{6}}Z is {comparison} than \d{{8}}T\d{{6}}Z \(\d{{8}}T\d{{6}}Z \{sign} {borne} min\.\)"
    assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize("service", ["iam", "sts"])
def test_a_clock_that_is_ten_minutes_off_is_borne_by_iam_and_sts(server, service):
    what = {"iam": ("ListRoles", {}), "sts": ("GetCallerIdentity", {})}[service]
    assert ask(server.url, service, *what, signature=Signature(ROOT, service, minutes=-10)).status == 200


def hand_signed(server, headers, signed_headers, credential=None):
    """A request whose signature names exactly these headers."""
    request = written(server.url, "lambda", "ListFunctions", {})
    signer = Signature(ROOT, "lambda")
    for name, value in headers.items():
        request.headers[name] = value
    request.context["timestamp"] = stamp()
    chosen = {name: request.headers[name] for name in signed_headers}
    canonical = "\n".join(
        ["GET", "/2015-03-31/functions", "", *(f"{name}:{value}" for name, value in chosen.items()), "", ";".join(chosen), sha256(b"")]
    )
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    scope = credential or signer.scope(request)
    request.headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={';'.join(chosen)}, Signature={signature}"
    return send(request)


def test_a_date_instead_of_amazon_s(server):
    """Proxies and old clients send `Date`; as in AWS's own examples, `X-Amz-Date` is not needed beside it."""
    now = datetime.now(timezone.utc)
    assert hand_signed(server, {"Date": format_datetime(now, usegmt=True)}, ["date", "host"]).status == 200
    status, code, text = hand_signed(server, {}, ["host"]).error()
    assert (status, code) == (403, "IncompleteSignatureException")
    assert "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header." in text


def test_the_date_must_be_one(server):
    status, code, text = hand_signed(server, {"X-Amz-Date": "yesterday"}, ["host", "x-amz-date"]).error()
    assert (status, code) == (403, "IncompleteSignatureException")
    assert text.startswith("Date must be in ISO-8601 'basic format'. Got 'yesterday'.")


# Scopes, and headers that are none.


@pytest.mark.parametrize("region", ["eu-west-1", "us-east-2"])
def test_another_region(server, region):
    answer = ask(server.url, "lambda", "ListFunctions", {}, signature=Signature(ROOT, "lambda", region))
    assert answer.error() == (403, "InvalidSignatureException", "Credential should be scoped to a valid region.")
    answer = ask(server.url, "sts", "GetCallerIdentity", {}, signature=Signature(ROOT, "sts", region))
    assert answer.error() == (403, "SignatureDoesNotMatch", "Credential should be scoped to a valid region.")


def test_another_service(server):
    """One address serves them all, and the signature says which is meant: a path of Lambda is nothing to another."""
    for service, expected in (("sqs", (501, "NotImplementedException")), ("sts", (400, "MissingAction")), ("iam", (400, "MissingAction"))):
        request = written(server.url, "lambda", "ListFunctions", {})
        Signature(ROOT, service).add_auth(request)
        answer = send(request)
        assert answer.error()[:2] == expected, answer.body


GARBLED = {
    "Bearer abc": "Invalid key=value pair (missing equal-sign) in Authorization header",
    "AWS4-HMAC-SHA256 x": "Invalid key=value pair (missing equal-sign) in Authorization header",
    "AWS4-HMAC-SHA256 Signature=1, SignedHeaders=host": "Authorization header requires 'Credential' parameter.",
    "AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request, SignedHeaders=host": "Authorization header requires 'Signature' parameter.",
    "AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request, Signature=1": "Authorization header requires 'SignedHeaders' parameter.",
    "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=1": "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'a/b/c'",
    "AWS3-HTTPS AWSAccessKeyId=a": "Unsupported AWS 'algorithm': 'AWS3-HTTPS'.",
}


@pytest.mark.parametrize("header", GARBLED)
def test_an_authorization_that_is_none(server, header):
    request = written(server.url, "lambda", "ListFunctions", {})
    request.headers["Authorization"], request.headers["X-Amz-Date"] = header, stamp()
    status, code, text = send(request).error()
    assert (status, code) == (403, "IncompleteSignatureException")
    assert GARBLED[header] in text
    assert header not in text, "an Authorization may hold a secret"


# Who is it?


def test_get_caller_identity(server):
    assert who(server, ROOT) == (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT)
    other = key_of(server, OTHER_ACCOUNT)
    assert who(server, other) == (OTHER_ACCOUNT, f"arn:aws:iam::{OTHER_ACCOUNT}:root", OTHER_ACCOUNT)
    arn = make_role(server, "who", Path="/a/b/").replace("role/", "role/a/b/")
    role_id = server.make_client("iam").get_role(RoleName="who")["Role"]["RoleId"]
    # The path is not in the ARN of a session.
    assert who(server, assumed(server.url, arn, "me@x")) == (ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/who/me@x", f"{role_id}:me@x")


def test_get_session_token_gives_the_root_user_s_sessions(server):
    sts = server.make_client("sts")
    made = sts.get_session_token()["Credentials"]
    credentials = Credentials(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])
    assert who(server, credentials) == (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT)
    assert sees(server, credentials).status == 200


def test_a_deleted_role_leaves_its_sessions_nothing(server):
    arn = make_role(server, "deleted", allow("*"))
    credentials = assumed(server.url, arn, "one")
    assert sees(server, credentials).status == 200
    iam = server.make_client("iam")
    iam.delete_role_policy(RoleName="deleted", PolicyName="p")
    iam.delete_role(RoleName="deleted")
    what = ("lambda:GetFunctionConfiguration", LAMBDA + "function:seen", "identity")
    expected = (403, "AccessDeniedException", denial(f"arn:aws:sts::{ACCOUNT}:assumed-role/deleted/one", *what))
    assert sees(server, credentials).error() == expected
    # Another role of its name is another role.
    make_role(server, "deleted", allow("*"))
    assert sees(server, credentials).error() == expected
    assert who(server, credentials)[1] == f"arn:aws:sts::{ACCOUNT}:assumed-role/deleted/one"


# AssumeRole.


@pytest.mark.parametrize("seconds, taken", [(899, False), (900, True), (3600, True), (7200, True), (7201, False), (43201, False)])
def test_how_long_a_session_may_last(server, seconds, taken):
    name = f"lasts-{seconds}"
    arn = make_role(server, name, MaxSessionDuration=7200)
    sts = server.make_client("sts", parameter_validation=False)
    before = datetime.now(timezone.utc)
    try:
        made = sts.assume_role(RoleArn=arn, RoleSessionName="one", DurationSeconds=seconds)
    except ClientError as error:
        assert not taken, error
        assert (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]) == ("ValidationError", 400)
        text = error.response["Error"]["Message"]
        if seconds == 7201:
            assert text == "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        else:
            bound = "greater than or equal to 900" if seconds < 900 else "less than or equal to 43200"
            assert text == f"1 validation error detected: Value '{seconds}' at 'durationSeconds' failed to satisfy constraint: Member must have value {bound}"
    else:
        assert taken
        assert seconds - 2 <= (made["Credentials"]["Expiration"] - before).total_seconds() <= seconds + 60


def test_a_session_of_a_session_lasts_an_hour(server):
    arn = make_role(server, "chained", allow("sts:AssumeRole"), MaxSessionDuration=7200)
    first = assumed(server.url, arn, "one")
    values = {"RoleArn": arn, "RoleSessionName": "two", "DurationSeconds": 3601}
    expected = (400, "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
    assert ask(server.url, "sts", "AssumeRole", values, first).error() == expected
    assert ask(server.url, "sts", "AssumeRole", values | {"DurationSeconds": 3600}, first).status == 200


def test_an_external_id(server):
    trust = json.loads(TRUST_ROOT)
    trust["Statement"][0]["Condition"] = {"StringEquals": {"sts:ExternalId": "right"}}
    arn = make_role(server, "external", trust=json.dumps(trust))
    values = {"RoleArn": arn, "RoleSessionName": "one"}
    expected = (403, "AccessDenied", denial(f"arn:aws:iam::{ACCOUNT}:root", "sts:AssumeRole", arn, "trust"))
    assert ask(server.url, "sts", "AssumeRole", values).error() == expected
    assert ask(server.url, "sts", "AssumeRole", values | {"ExternalId": "wrong"}).error() == expected
    assert ask(server.url, "sts", "AssumeRole", values | {"ExternalId": "right"}).status == 200


def test_a_role_that_is_not_there_is_told_as_one_that_may_not_be_assumed(server):
    arn = f"{IAM}role/nobody-has-it"
    expected = (403, "AccessDenied", denial(f"arn:aws:iam::{ACCOUNT}:root", "sts:AssumeRole", arn, "trust"))
    assert ask(server.url, "sts", "AssumeRole", {"RoleArn": arn, "RoleSessionName": "one"}).error() == expected


def test_another_account_assumes_a_role_that_trusts_it(server):
    other = key_of(server, OTHER_ACCOUNT)
    arn = make_role(server, "across", allow("lambda:*"), trust=TRUST_ROOT.replace(ACCOUNT, OTHER_ACCOUNT))
    credentials = assumed(server.url, arn, "one", other)
    assert who(server, credentials)[:2] == (ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/across/one")
    assert sees(server, credentials).status == 200
    refused = ask(server.url, "sts", "AssumeRole", {"RoleArn": arn, "RoleSessionName": "one"})
    assert refused.error() == (403, "AccessDenied", denial(f"arn:aws:iam::{ACCOUNT}:root", "sts:AssumeRole", arn, "trust"))


def test_a_session_policy_only_takes_away(server):
    arn = make_role(server, "wide", allow("lambda:Get*"))
    narrow = assumed(server.url, arn, "one", Policy=policy(allow("lambda:GetFunctionConfiguration"), allow("lambda:ListFunctions")))
    assert sees(server, narrow).status == 200
    who_asks = f"arn:aws:sts::{ACCOUNT}:assumed-role/wide/one"
    expected = denial(who_asks, "lambda:GetFunction", LAMBDA + "function:seen", "session")
    assert ask(server.url, "lambda", "GetFunction", {"FunctionName": "seen"}, narrow).error() == (403, "AccessDeniedException", expected)
    expected = denial(who_asks, "lambda:ListFunctions", "*", "identity")
    assert ask(server.url, "lambda", "ListFunctions", {}, narrow).error() == (403, "AccessDeniedException", expected)
    denies = policy(allow("*"), allow("lambda:GetFunctionConfiguration") | {"Effect": "Deny"})
    denied = assumed(server.url, arn, "two", Policy=denies)
    expected = denial(who_asks.replace("/one", "/two"), "lambda:GetFunctionConfiguration", LAMBDA + "function:seen", "explicit")
    assert sees(server, denied).error() == (403, "AccessDeniedException", expected.replace("an identity-based", "a session"))


# Functions' own credentials, and restarts.

TELLS = """
import os
def handler(event, context):
    return [os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
"""


def own_credentials(server, name):
    error, told = server.invoke(name)
    assert error is None, told
    return Credentials(*told)


def test_a_function_s_own_credentials(server):
    role = make_role(server, "its", trust=TRUST)
    default_function(server, "tells", role, zip_of({"app.py": TELLS}), Timeout=30)
    credentials = own_credentials(server, "tells")
    role_id = server.make_client("iam").get_role(RoleName="its")["Role"]["RoleId"]
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/its/tells"
    assert who(server, credentials) == (ACCOUNT, arn, f"{role_id}:tells")
    what = ("lambda:GetFunctionConfiguration", LAMBDA + "function:seen", "identity")
    assert sees(server, credentials).error() == (403, "AccessDeniedException", denial(arn, *what))
    # What the role is allowed counts for environments that run already.
    text = policy(allow("lambda:GetFunctionConfiguration", LAMBDA + "function:seen"))
    server.make_client("iam").put_role_policy(RoleName="its", PolicyName="p", PolicyDocument=text)
    assert sees(server, credentials).status == 200
    server.make_client("iam").delete_role_policy(RoleName="its", PolicyName="p")
    assert sees(server, credentials).denied()


SDK = """
import boto3
lambdas, identity = boto3.client("lambda"), boto3.client("sts").get_caller_identity()
def handler(event, context):
    try:
        return [identity["Arn"], lambdas.get_function_configuration(FunctionName=event)["FunctionName"]]
    except lambdas.exceptions.ClientError as error:
        return [identity["Arn"], error.response["Error"]["Code"]]
"""


def test_code_that_uses_the_sdk_is_its_role(server):
    role = make_role(server, "sdk", allow("lambda:GetFunctionConfiguration", LAMBDA + "function:by-sdk"), trust=TRUST)
    default_function(server, "by-sdk", role, zip_of({"app.py": SDK}), Timeout=60, MemorySize=512)
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/sdk/by-sdk"
    assert server.invoke("by-sdk", "by-sdk") == (None, [arn, "by-sdk"])
    assert server.invoke("by-sdk", "another") == (None, [arn, "AccessDeniedException"])


def test_sessions_live_through_a_restart_and_those_of_environments_do_not():
    server = Server()
    try:
        default_function(server, "seen")
        arn = make_role(server, "reader", allow("lambda:GetFunctionConfiguration"))
        role = make_role(server, "its", allow("*"), trust=TRUST)
        default_function(server, "tells", role, zip_of({"app.py": TELLS}), Timeout=30)
        reader, environment = assumed(server.url, arn, "one"), own_credentials(server, "tells")
        assert sees(server, reader).status == sees(server, environment).status == 200
        server.stop()
        server.start()
        assert sees(server, reader).status == 200
        assert ask(server.url, "lambda", "ListFunctions", {}, reader).denied()
        expected = (403, "ExpiredTokenException", "The security token included in the request is expired")
        assert sees(server, environment).error() == expected
        # A new environment has new ones.
        assert sees(server, own_credentials(server, "tells")).status == 200
    finally:
        server.remove()


def test_without_authorization_everything_passes_and_the_status_says_so():
    server = Server(None, "--auth", "off")
    try:
        assert server.status()["auth"] == "off"
        assert any("--auth off" in note for note in server.status()["notes"])
        default_function(server, "seen", f"{IAM}role/nobody-has-it")
        for credentials in (None, Credentials("AKIANOBODYKNOWSTHIS1", "x"), Credentials("test", "tested"), Credentials("ASIANOBODYKNOWSTHIS1", "x", "y")):
            assert sees(server, credentials).status == 200
            assert who(server, credentials)[:2] == (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root")
            assert ask(server.url, "iam", "ListRoles", {}, credentials).status == 200
        assert ask(server.url, "lambda", *SEES, signature=Signature(ROOT, "lambda", minutes=-600)).status == 200
        # A session without any allowance may do everything too, and is still known by name.
        session = assumed(server.url, make_role(server, "nothing"), "one")
        assert who(server, session)[1] == f"arn:aws:sts::{ACCOUNT}:assumed-role/nothing/one"
        assert sees(server, session).status == 200
    finally:
        server.remove()


def test_the_status_says_that_policies_count(server):
    assert server.status()["auth"] == "on"
    assert not any("--auth off" in note for note in server.status()["notes"])


# What is not wrong here and would be elsewhere.


def warned(server, role):
    return [note for note in server.status()["notes"] if "confused deputy" in note and f"{IAM}role/{role} " in note]


def test_confused_deputies_are_named_while_they_are_used(server):
    trust = json.loads(TRUST)
    trust["Statement"][0]["Condition"] = {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    closed = make_role(server, "closed", trust=json.dumps(trust))
    opened = make_role(server, "opened", trust=TRUST)
    assert not warned(server, "opened"), "nothing runs with it yet"
    default_function(server, "deputy", opened)
    assert len(warned(server, "opened")) == 1
    out = subprocess.run([BIN, "status", "--port", str(server.port)], capture_output=True, text=True, check=True).stdout
    assert "confused deputy" in out
    default_function(server, "careful", closed)
    assert not warned(server, "closed")
    # The warning goes when its cause does.
    server.make_client("iam").update_assume_role_policy(RoleName="opened", PolicyDocument=json.dumps(trust))
    assert not warned(server, "opened")


def test_a_role_that_does_not_trust_this_account_s_functions_runs_none(server):
    trust = json.loads(TRUST)
    trust["Statement"][0]["Condition"] = {"StringEquals": {"aws:SourceAccount": OTHER_ACCOUNT}}
    role = make_role(server, "theirs", trust=json.dumps(trust))
    expected = ("InvalidParameterValueException", "The role defined for the function cannot be assumed by Lambda.", 400)
    assert fault(default_function, server, "theirs", role) == expected
    assert fault(default_function, server, "theirs", f"{IAM}role/nobody-has-it") == expected
