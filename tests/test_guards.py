"""Ways around what policies, keys and quotas say: each was open once."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from authorization_reference import ACCOUNT, LAMBDA
from authorization_world import OTHER_ACCOUNT, allow, key_of, policy
from conftest import BIN, PROVIDER_ARN, ROLE, TRUST, Server, wait_until, zip_of
from on_demand import create
from signed import ROOT, ask, assumed
from stubs import s3
from test_api import fault
from test_layers import publish_layer
from test_signatures import make_role

FUNCTION = LAMBDA + "function:guarded"
INVALID_PRINCIPAL = ("InvalidParameterValueException", "The provided principal was invalid. Please check the principal and try again.", 400)


def deny(action, resource="*", **condition):
    return allow(action, resource) | {"Effect": "Deny"} | ({"Condition": condition} if condition else {})


@pytest.fixture(scope="module")
def server():
    made = Server()
    create(made, "guarded", Tags={"secret": "yes"})
    yield made
    made.remove()


def session(server, name, *statements, **more):
    return assumed(server.url, make_role(server, name, *statements, **more), "one")


def invoke(server, credentials=ROOT, name="guarded"):
    return ask(server.url, "lambda", "Invoke", {"FunctionName": name, "Payload": b"{}"}, credentials)


@pytest.mark.parametrize("principal", ["arn:aws:iam::123456789012:group/x", "arn:aws:iam::123456789012:role/*", "arn:aws:iam::abcdefghijkl:role/x"])
def test_a_bad_principal_does_not_lift_a_denial(server, principal):
    statement = {"Sid": "closed", "Effect": "Deny", "Principal": "*", "Action": "lambda:InvokeFunction", "Resource": FUNCTION}
    server.client.put_resource_policy(ResourceArn=FUNCTION, Policy=json.dumps({"Version": "2012-10-17", "Statement": statement}))
    try:
        assert invoke(server).denied()
        add = dict(FunctionName="guarded", StatementId="x", Action="lambda:InvokeFunction", Principal=principal)
        assert fault(server.client.add_permission, **add) == INVALID_PRINCIPAL
        assert invoke(server).denied()
        layer = publish_layer(server, "guarded", {"a": "b"})
        add = dict(LayerName=layer["LayerArn"], VersionNumber=layer["Version"], StatementId="x", Action="lambda:GetLayerVersion", Principal=principal)
        assert fault(server.client.add_layer_version_permission, **add)[2] == 400
    finally:
        server.client.delete_resource_policy(ResourceArn=FUNCTION)


def test_a_session_of_the_root_user_ends_with_its_key():
    server = Server()
    try:
        run = lambda *arguments: subprocess.run([BIN, "keys", *arguments, "--data-dir", server.folder], capture_output=True, text=True, check=True).stdout
        made = json.loads(run("create", "--json"))
        key = Credentials(*(made[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")))
        answer = ask(server.url, "sts", "GetSessionToken", {}, key)
        assert answer.status == 200, answer.body
        session = Credentials(*(answer.text(name) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")))
        assert ask(server.url, "lambda", "ListFunctions", {}, session).status == 200
        renewed = ask(server.url, "sts", "GetSessionToken", {}, session)
        assert renewed.error() == (403, "AccessDenied", "Cannot call GetSessionToken with session credentials")
        run("delete", key.access_key)
        ended = lambda: ask(server.url, "lambda", "ListFunctions", {}, session).error()[:2] == (403, "UnrecognizedClientException")
        wait_until(ended, "the session to end with its key")
    finally:
        server.remove()


def test_tags_of_what_is_asked_for_count_everywhere(server):
    tagged = {"StringEquals": {"aws:ResourceTag/secret": "yes"}}
    refused = session(server, "no-secrets", allow("*"), deny("*", **tagged))
    assert invoke(server, refused).denied()
    assert ask(server.url, "lambda", "GetFunctionConfiguration", {"FunctionName": "guarded"}, refused).denied()
    allowed = session(server, "secrets", allow("lambda:InvokeFunction") | {"Condition": tagged})
    assert invoke(server, allowed).status == 200
    create(server, "untagged")
    assert invoke(server, allowed, "untagged").denied()
    # A provider that is passed, a role that is passed, a role that is assumed.
    server.provider("secret-provider", Tags={"secret": "yes"})
    managed = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": PROVIDER_ARN + "secret-provider"}}
    new = {"FunctionName": "new", "Runtime": "python3.13", "Handler": "app.handler", "Role": ROLE, "MemorySize": 2048, "Code": {"ZipFile": zip_of({"app.py": ""})}}
    answer = ask(server.url, "lambda", "CreateFunction", new | {"CapacityProviderConfig": managed}, refused)
    assert answer.denied() and "lambda:PassCapacityProvider" in answer.error()[2]
    role = make_role(server, "tagged", allow("*"), trust=TRUST, Tags=[{"Key": "secret", "Value": "yes"}])
    answer = ask(server.url, "lambda", "CreateFunction", new | {"Role": role}, refused)
    assert answer.denied() and "iam:PassRole" in answer.error()[2]
    trusting = make_role(server, "tagged-too", Tags=[{"Key": "secret", "Value": "yes"}])
    assert ask(server.url, "sts", "AssumeRole", {"RoleArn": trusting, "RoleSessionName": "one"}, refused).denied()


@pytest.mark.parametrize(
    "operator, key, value, denied",
    [
        ("DateLessThan", "aws:TokenIssueTime", "2100-01-01T00:00:00Z", True),
        ("DateLessThan", "aws:TokenIssueTime", "2020-01-01T00:00:00Z", False),
        ("Bool", "aws:MultiFactorAuthPresent", "false", True),
        ("Bool", "aws:ViaAWSService", "true", False),
    ],
)
def test_what_policies_may_ask_of_a_session(server, operator, key, value, denied):
    name = f"revoked-{operator}-{value}".replace(":", "-")
    credentials = session(server, name, allow("*"), deny("*", **{operator: {key: value}}))
    assert ask(server.url, "lambda", "ListFunctions", {}, credentials).status == (403 if denied else 200)


def test_tags_that_are_taken_off_are_named_to_policies(server):
    protected = {"ForAnyValue:StringEquals": {"aws:TagKeys": ["protected"]}}
    credentials = session(server, "untagger", allow("iam:*"), deny("iam:UntagRole", **protected), deny("iam:UntagPolicy", **protected))
    iam = server.make_client("iam")
    make_role(server, "marked", Tags=[{"Key": "protected", "Value": "1"}, {"Key": "other", "Value": "1"}])
    arn = iam.create_policy(PolicyName="marked", PolicyDocument=policy(allow("*")))["Policy"]["Arn"]
    for operation, named in (("UntagRole", {"RoleName": "marked"}), ("UntagPolicy", {"PolicyArn": arn})):
        assert ask(server.url, "iam", operation, named | {"TagKeys": ["protected"]}, credentials).denied()
        assert ask(server.url, "iam", operation, named | {"TagKeys": ["other"]}, credentials).status == 200


def test_who_may_write_only_bounded_roles(server):
    iam = server.make_client("iam")
    boundary = iam.create_policy(PolicyName="boundary", PolicyDocument=policy(allow("s3:*")))["Policy"]["Arn"]
    bounded = {"StringEquals": {"iam:PermissionsBoundary": boundary}}
    credentials = session(server, "delegate", allow("iam:PutRolePolicy") | {"Condition": bounded})
    make_role(server, "inside", PermissionsBoundary=boundary)
    make_role(server, "outside")
    put = lambda role: ask(server.url, "iam", "PutRolePolicy", {"RoleName": role, "PolicyName": "p", "PolicyDocument": policy(allow("*"))}, credentials)
    assert put("inside").status == 200
    assert put("outside").denied()


def test_a_policy_put_whole_is_asked_as_its_statements_would_be(server):
    closed = deny("lambda:AddPermission", StringEquals={"lambda:Principal": "*"})
    credentials = session(server, "no-public", allow("lambda:*"), closed)
    put = lambda principal: ask(
        server.url, "lambda", "PutResourcePolicy",
        {"ResourceArn": FUNCTION, "Policy": json.dumps({"Version": "2012-10-17", "Statement": {"Sid": "s", "Effect": "Allow", "Principal": principal, "Action": "lambda:InvokeFunction", "Resource": FUNCTION}})},
        credentials,
    )  # fmt: skip
    try:
        assert put("*").denied() and put({"AWS": "*"}).denied()
        assert put({"AWS": ["123456789012", "*"]}).denied(), "each principal counts by itself"
        assert put({"AWS": ACCOUNT}).status == 200
    finally:
        server.client.delete_resource_policy(ResourceArn=FUNCTION)


@pytest.mark.parametrize("opens", [
    {"NotPrincipal": {"AWS": "123456789012"}},
    {"Principal": "*", "Condition": {"StringEquals": {"lambda:functionurlauthtype": "NONE"}}},
    {"Principal": "*", "Condition": {"StringNotEquals": {"lambda:FunctionUrlAuthType": "AWS_IAM"}}},
])  # fmt: skip
def test_a_policy_put_whole_opens_no_url_behind_a_guard(server, opens):
    guards = (deny("lambda:AddPermission", StringEquals={"lambda:FunctionUrlAuthType": "NONE"}), deny("lambda:AddPermission", StringEquals={"lambda:Principal": "*"}))
    which = guards[1:] if "NotPrincipal" in opens else guards[:1]
    name = "no-" + "-".join(opens) + str(len(str(opens)))
    credentials = session(server, name, allow("lambda:*"), *which)
    statement = {"Sid": "s", "Effect": "Allow", "Action": "lambda:InvokeFunctionUrl", "Resource": FUNCTION} | opens
    document = {"ResourceArn": FUNCTION, "Policy": json.dumps({"Version": "2012-10-17", "Statement": [statement]})}
    assert ask(server.url, "lambda", "PutResourcePolicy", document, credentials).denied()


def test_what_is_never_shared_is_not_shared_by_a_wide_policy(server):
    stranger = key_of(server, OTHER_ACCOUNT)
    wide = {"Sid": "wide", "Effect": "Allow", "Principal": {"AWS": OTHER_ACCOUNT}, "Action": "lambda:*", "Resource": FUNCTION}
    server.client.put_resource_policy(ResourceArn=FUNCTION, Policy=json.dumps({"Version": "2012-10-17", "Statement": [wide]}))
    try:
        as_stranger = lambda operation, **values: ask(server.url, "lambda", operation, {"FunctionName": FUNCTION} | values, stranger)
        assert as_stranger("GetFunctionConfiguration").status == 200
        answer = as_stranger("UpdateFunctionConfiguration", Description="taken over")
        assert (answer.status, json.loads(answer.body)) == (403, {"message": None})
        assert as_stranger("AddPermission", StatementId="x", Action="lambda:*", Principal="*").status == 403
    finally:
        server.client.delete_resource_policy(ResourceArn=FUNCTION)


def test_a_region_guard_on_a_role_leaves_its_sources_alone(server):
    guard = deny("*", StringNotEquals={"aws:RequestedRegion": "us-east-1"})
    role = make_role(server, "regional", allow("sqs:*"), guard, trust=TRUST)
    create(server, "regional", Role=role)
    made = server.client.create_event_source_mapping(FunctionName="regional", EventSourceArn=f"arn:aws:sqs:us-east-1:{ACCOUNT}:q")
    # What is switched off needs nobody's permission any more.
    server.make_client("iam").delete_role_policy(RoleName="regional", PolicyName="p")
    assert server.client.update_event_source_mapping(UUID=made["UUID"], Enabled=False)["State"] == "Disabling"
    assert fault(server.client.update_event_source_mapping, UUID=made["UUID"], Enabled=True)[2] == 400


def test_only_some_may_be_let_in_by_who_puts_a_policy_whole(server):
    only = {"StringEquals": {"lambda:Principal": ACCOUNT}}
    credentials = session(server, "lets-in", allow("lambda:PutResourcePolicy"), allow("lambda:RemovePermission"), allow("lambda:AddPermission") | {"Condition": only})
    statement = lambda principal: {"Sid": principal[:3].replace("*", "a"), "Effect": "Allow", "Principal": {"AWS": principal}, "Action": "lambda:InvokeFunction", "Resource": FUNCTION}
    put = lambda *principals: ask(server.url, "lambda", "PutResourcePolicy", {"ResourceArn": FUNCTION, "Policy": json.dumps({"Version": "2012-10-17", "Statement": [statement(one) for one in principals]})}, credentials)
    try:
        assert put(ACCOUNT, "*").denied() and put("123456789012").denied()
        assert put(ACCOUNT).status == 200
    finally:
        server.client.delete_resource_policy(ResourceArn=FUNCTION)


def test_sessions_without_authorization():
    server = Server(None, "--auth", "off")
    try:
        assert ask(server.url, "sts", "GetSessionToken", {}, Credentials("anybody", "anything")).status == 200
    finally:
        server.remove()


def test_a_mapping_moves_only_to_functions_its_changer_may_use(server):
    create(server, "mapped")
    create(server, "foreign")
    here = {"StringEquals": {"lambda:FunctionArn": LAMBDA + "function:mapped"}}
    credentials = session(server, "mapper", allow("lambda:UpdateEventSourceMapping") | {"Condition": here})
    source = f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"
    uuid = server.client.create_event_source_mapping(FunctionName="mapped", EventSourceArn=source)["UUID"]
    update = lambda **more: ask(server.url, "lambda", "UpdateEventSourceMapping", {"UUID": uuid} | more, credentials)
    assert update(BatchSize=2).status == 202
    assert update(FunctionName="foreign").denied()
    assert update(FunctionName="mapped").status == 202


def test_objects_are_read_for_who_may_read_them():
    with s3({"payroll": {"secret.zip": {"v1": zip_of({"a": "b"})}}}) as place:
        server = Server(None, "--service-endpoint", f"s3={place.url}")
        try:
            credentials = session(server, "publisher", allow("lambda:*"))
            content = {"S3Bucket": "payroll", "S3Key": "secret.zip"}
            publish = lambda **more: ask(server.url, "lambda", "PublishLayerVersion", {"LayerName": "l", "Content": content | more}, credentials)
            status, code, text = publish().error()
            assert (status, code) == (403, "AccessDeniedException")
            assert text.startswith("Your access has been denied by S3, please make sure your request credentials have permission to GetObject for payroll/secret.zip.")
            assert place.requests == [], "it is not even asked for"
            server.make_client("iam").put_role_policy(RoleName="publisher", PolicyName="p", PolicyDocument=policy(allow("lambda:*"), allow("s3:GetObject", "arn:aws:s3:::payroll/*")))
            assert publish().status == 201
            assert publish(S3Key="a/../../other/secret.zip").status == 400 and len(place.requests) == 1
        finally:
            server.remove()


def test_uploads_at_the_same_time_share_the_quota():
    noise = lambda n: zip_of({"app.py": "def handler(event, context): pass\n", "noise": bytes((n * 31 + i * i * 7919 + i // 251) % 256 for i in range(60_000))})
    packages = [noise(n) for n in range(6)]
    server = Server(None, "--quota", f"code-storage-bytes={2 * max(map(len, packages))}")
    try:
        def upload(n):
            try:
                server.client.create_function(FunctionName=f"f{n}", Runtime="python3.13", Handler="app.handler", Role=ROLE, Code={"ZipFile": packages[n]})
                return True
            except ClientError as error:
                assert error.response["Error"]["Code"] == "CodeStorageExceededException"
                return False

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(upload, range(6))) <= 2
    finally:
        server.remove()


def test_a_deleted_layer_counts_while_a_function_uses_it(server):
    usage = lambda: server.client.get_account_settings()["AccountUsage"]["TotalCodeSize"]
    before = usage()
    arn = publish_layer(server, "heavy", {"noise": bytes(i * i % 251 for i in range(5_000))})["LayerVersionArn"]
    create(server, "with-layer", Layers=[arn])
    with_both = usage()
    assert with_both > before
    server.client.delete_layer_version(LayerName="heavy", VersionNumber=1)
    assert usage() == with_both


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/", "a"], ["x" * 300]])
def test_archives_no_file_system_can_hold_are_the_callers_fault(server, names):
    package = zip_of({name: "" for name in names})
    settings = dict(FunctionName="unholdable", Runtime="python3.13", Handler="app.handler", Role=ROLE, Code={"ZipFile": package})
    code, text, status = fault(server.client.create_function, **settings)
    assert (code, status) == ("InvalidParameterValueException", 400)
    assert text == "Could not unzip uploaded file. Please check your file, then try to upload again.", "no path of this machine"


def test_a_signature_for_another_service_invokes_nothing(server):
    from botocore.auth import SigV4Auth

    from signed import REGION, send, written

    request = written(server.url, "lambda", "Invoke", {"FunctionName": "guarded", "Payload": b"{}"})
    SigV4Auth(ROOT, "s3", REGION).add_auth(request)
    status, code, text = send(request).error()
    assert (status, code) == (403, "InvalidSignatureException") and "service" in text


def test_small_operations_take_no_large_bodies(server):
    client = server.client
    code, _, status = fault(client.tag_resource, Resource=FUNCTION, Tags={"k": "x" * 7_000_000})
    assert (code, status) == ("RequestEntityTooLargeException", 413)
    code, _, status = fault(server.make_client("iam").put_role_policy, RoleName="r", PolicyName="p", PolicyDocument=" " * 2_000_000)
    assert status == 413
