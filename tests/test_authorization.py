"""Who may do what: every operation against every reason to be refused, and the one reason not to be.

The table of what is asked comes from COMPATIBILITY.md; which action and resource each operation needs is in
authorization_reference.py, from AWS's reference.
"""

import json

import pytest

from authorization_reference import ALSO, IAM, LAMBDA, OPEN, TYPES, action, denial, resource
from authorization_world import (
    CREATES, LAYER, OTHER_ACCOUNT, TRUST_ROOT, World, allow, deny, forms, policy, values_for,
)
from conftest import ACCOUNT, PROVIDER_ARN, ROLE
from recorder import SERVICES
from service_model import promised
from sessions import session
from signed import MATCHES_NOT, ROOT, Credentials, Signature, ask, stamp

OTHER_ROOT = f"arn:aws:iam::{OTHER_ACCOUNT}:root"
PRESENT = sorted(row for row in promised() if row[0] in SERVICES)
ROWS = [(service, operation, form) for service, operation in PRESENT for form in forms(service, operation)]
GUARDED = [row for row in ROWS if row[1] not in OPEN]


every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row))
every_guarded_row = pytest.mark.parametrize("row", GUARDED, ids=lambda row: "-".join(row))


@pytest.fixture(scope="module")
def world():
    made = World()
    yield made
    made.server.remove()


def test_the_reference_is_of_these_operations():
    assert set(TYPES) == set(PRESENT)


def filled(world, row):
    """(service, operation, input) of a row."""
    service, operation, form = row
    return service, operation, values_for(world, service, operation, form)


def about(request):
    """(action, resource) of a request."""
    return action(*request[:2]), resource(*request)


def refused(world, request, error, **how):
    """Asks, expects exactly this error, and that nothing changed."""
    before = world.state()
    answer = world.ask(request, **how)
    assert answer.error() == error
    assert world.state() == before, "a refused request changed something"


def access_denied(request, text):
    return 403, in_xml(request[0], "AccessDeniedException", "AccessDenied"), text


def in_xml(service, rest_json, query):
    return rest_json if service in ("lambda", "scheduler") else query


# Who asks?


@every_row
def test_without_credentials(world, row):
    request = filled(world, row)
    code = in_xml(row[0], "MissingAuthenticationTokenException", "MissingAuthenticationToken")
    text = in_xml(row[0], "Missing Authentication Token", "Request is missing Authentication Token")
    refused(world, request, (403, code, text))


@every_row
def test_with_an_unknown_key(world, row):
    code = in_xml(row[0], "UnrecognizedClientException", "InvalidClientTokenId")
    error = (403, code, "The security token included in the request is invalid.")
    refused(world, filled(world, row), error, credentials=Credentials("AKIANOBODYKNOWSTHIS1", "test"))


@every_row
def test_with_another_secret(world, row):
    code = in_xml(row[0], "InvalidSignatureException", "SignatureDoesNotMatch")
    refused(world, filled(world, row), (403, code, MATCHES_NOT), credentials=Credentials("test", "tested"))


@every_row
def test_with_a_signature_of_an_hour_ago(world, row):
    request = filled(world, row)
    before = world.state()
    status, code, text = world.ask(request, signature=Signature(ROOT, row[0], minutes=-60)).error()
    assert (status, code) == (403, in_xml(row[0], "InvalidSignatureException", "SignatureDoesNotMatch"))
    assert text.startswith(f"Signature expired: {stamp(-60)[:11]}") and " is now earlier than " in text
    assert world.state() == before


@every_row
def test_with_an_expired_session(world, row):
    code = in_xml(row[0], "ExpiredTokenException", "ExpiredToken")
    error = (403, code, "The security token included in the request is expired")
    refused(world, filled(world, row), error, credentials=session(world.server.folder, ACCOUNT, -1))


def test_a_session_made_here_passes_until_it_expires(world):
    """Without this, what expired might be refused for its form."""
    answer = ask(world.url, "sts", "GetCallerIdentity", {}, session(world.server.folder, ACCOUNT, 60))
    assert (answer.status, answer.text("Arn")) == (200, f"arn:aws:iam::{ACCOUNT}:root")


# May they?


@every_guarded_row
def test_another_account(world, row):
    request = filled(world, row)
    kind = "trust" if row[1] == "AssumeRole" else "resource"
    error = access_denied(request, denial(OTHER_ROOT, *about(request), kind))
    refused(world, request, error, credentials=world.other)


@every_guarded_row
def test_a_session_that_nothing_allows_anything(world, row):
    request = filled(world, row)
    error = access_denied(request, denial(world.nobody_arn, *about(request), "identity"))
    refused(world, request, error, credentials=world.nobody)


@every_guarded_row
def test_a_denial_beside_an_allowance_of_everything(world, row):
    request = filled(world, row)
    what, on = about(request)
    credentials, arn = world.session("denied", allow("*"), deny(what, on))
    refused(world, request, access_denied(request, denial(arn, what, on, "explicit")), credentials=credentials)


@every_guarded_row
def test_an_allowance_of_everything_but_this(world, row):
    """Only if action and resource are exactly those of the reference, neither statement allows it."""
    request = filled(world, row)
    what, on = about(request)
    but_this = {"Effect": "Allow", "Action": what, "NotResource": on if on != "*" else "arn:*"}
    but_that = {"Effect": "Allow", "NotAction": what, "Resource": "*"}
    statements = [but_that] if on == "*" else [but_that, but_this]
    credentials, arn = world.session("but", *statements)
    refused(world, request, access_denied(request, denial(arn, what, on, "identity")), credentials=credentials)


@pytest.mark.parametrize("operation", sorted(OPEN))
def test_what_needs_no_permission_cannot_be_denied(world, operation):
    credentials, _ = world.session("open", deny("*"))
    answer = ask(world.url, "sts", operation, {}, credentials)
    if operation == "GetSessionToken":
        assert answer.error() == (403, "AccessDenied", "Cannot call GetSessionToken with session credentials")
        assert ask(world.url, "sts", operation, {}, world.other).status == 200
    else:
        assert answer.status == 200


# One thing has many names.

NAMES = ["f", "function:f", f"{ACCOUNT}:f", f"{ACCOUNT}:function:f", f"us-east-1:{ACCOUNT}:function:f"] + [
    f"arn:{partition}:lambda:us-east-1:{ACCOUNT}:function:f" for partition in ("aws", "aws-cn", "aws-us-gov")
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("qualifier", ["", "live"])
def test_a_denial_holds_for_every_name_of_a_function(world, name, qualifier):
    on = LAMBDA + "function:f" + (qualifier and ":" + qualifier)
    credentials, arn = world.session("names", allow("*"), deny("lambda:GetFunction", on))
    forms = [{"FunctionName": name + (qualifier and ":" + qualifier)}, {"FunctionName": name, **({"Qualifier": qualifier} if qualifier else {})}]
    for values in forms:
        expected = denial(arn, "lambda:GetFunction", on, "explicit")
        refused(world, ("lambda", "GetFunction", values), (403, "AccessDeniedException", expected), credentials=credentials)


OF_ANY_RESOURCE = ["GetResourcePolicy", "PutResourcePolicy", "DeleteResourcePolicy", "ListTags", "TagResource", "UntagResource"]


@pytest.mark.parametrize("operation", OF_ANY_RESOURCE)
def test_a_denial_holds_in_every_partition(world, operation):
    """What is found by an ARN of another partition was denied by its own; not to find it is right as well."""
    _, _, values = request = filled(world, ("lambda", operation, "plain"))
    credentials, _ = world.session("partition", allow("*"), deny(*about(request)))
    member = "Resource" if "Resource" in values else "ResourceArn"
    before = world.state()
    answer = world.ask(("lambda", operation, values | {member: values[member].replace("arn:aws:", "arn:aws-cn:")}), credentials)
    assert world.state() == before
    assert answer.status in (403, 404), answer.body


# What follows changes the world.


@every_guarded_row
def test_an_allowance_of_exactly_this(world, row):
    request = filled(world, row)
    what, on = about(request)
    # The role is handed on, and schedules go with their group.
    others = {"iam:PassRole": [ROLE, IAM + "role/scaler"], "scheduler:DeleteSchedule": on.replace(":schedule-group/", ":schedule/") + "/*"}
    more = [allow(action, others.get(action, on)) for action in ALSO.get(row[1], ())]
    if row[1] == "PutFunctionCodeSigningConfig":
        # It is about two resources.
        more.append(allow(what, request[2]["CodeSigningConfigArn"]))
    credentials, _ = world.session("exact", allow(what, on), *more)
    answer = world.ask(request, credentials)
    assert not answer.denied(), answer.error()


@pytest.fixture(scope="module")
def fresh(world):
    """What the tests before have left alone: {member: value}."""
    client = world.client
    world.default_function("fresh", Tags={"team": "a"})
    client.create_function_url_config(FunctionName="fresh", AuthType="AWS_IAM")
    world.iam.create_role(RoleName="fresh", AssumeRolePolicyDocument=TRUST_ROOT, Tags=[{"Key": "team", "Value": "a"}])
    source = f"arn:aws:sqs:us-east-1:{ACCOUNT}:fresh"
    config = client.create_code_signing_config(AllowedPublishers=CREATES["CreateCodeSigningConfig"]["AllowedPublishers"], Tags={"team": "a"})
    world.server.provider("fresh", Tags={"team": "a"})
    client.publish_layer_version(LayerName="fresh", Content={"ZipFile": LAYER})
    return {
        "FunctionName": "fresh",
        "Resource": FRESH,
        "ResourceArn": FRESH,
        "UUID": client.create_event_source_mapping(FunctionName="fresh", EventSourceArn=source, Enabled=False, Tags={"team": "a"})["UUID"],
        "CodeSigningConfigArn": config["CodeSigningConfig"]["CodeSigningConfigArn"],
        "CapacityProviderName": "fresh",
        "RoleName": "fresh",
    }


def on_fresh(world, fresh, service, operation, more):
    """An input on resources that are there, or of a name that is not."""
    values = values_for(world, service, operation)
    values |= {name: value for name, value in fresh.items() if name in values}
    if operation in ("CreateFunction", "CreateCapacityProvider", "CreateRole", "CreatePolicy"):
        values[operation.removeprefix("Create") + "Name"] = f"new-{next(world.numbers)}"
    return values | more


MANAGED = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": PROVIDER_ARN + "cp"}}
FRESH = LAMBDA + "function:fresh"
FRESH_LAYER = LAMBDA + "layer:fresh:1"
# (operation, members beside those of the table, what it needs besides its own action, on what if not the same)
FURTHER = [
    ("CreateFunction", {}, "iam:PassRole", ROLE),
    ("CreateFunction", {"CapacityProviderConfig": MANAGED, "MemorySize": 2048}, "lambda:PassCapacityProvider", PROVIDER_ARN + "cp"),
    ("CreateFunction", {"Layers": [FRESH_LAYER]}, "lambda:GetLayerVersion", FRESH_LAYER),
    ("CreateFunction", {"Tags": {"a": "1"}}, "lambda:TagResource", None),
    ("UpdateFunctionConfiguration", {"Role": ROLE}, "iam:PassRole", ROLE),
    ("UpdateFunctionConfiguration", {"FunctionName": "m", "CapacityProviderConfig": MANAGED}, "lambda:PassCapacityProvider", PROVIDER_ARN + "cp"),
    ("UpdateFunctionConfiguration", {"Layers": [FRESH_LAYER]}, "lambda:GetLayerVersion", FRESH_LAYER),
    ("CreateCapacityProvider", {}, "iam:PassRole", ROLE),
    ("CreateCapacityProvider", {"Tags": {"a": "1"}}, "lambda:TagResource", None),
    ("PutFunctionCodeSigningConfig", {}, "lambda:PutFunctionCodeSigningConfig", "CodeSigningConfigArn"),
    ("PutResourcePolicy", {}, "lambda:AddPermission", None),
    ("PutResourcePolicy", {}, "lambda:RemovePermission", None),
    ("GetResourcePolicy", {}, "lambda:GetPolicy", None),
    ("DeleteResourcePolicy", {}, "lambda:RemovePermission", None),
    ("CreateRole", {"Tags": [{"Key": "a", "Value": "1"}]}, "iam:TagRole", None),
    ("CreatePolicy", {"Tags": [{"Key": "a", "Value": "1"}]}, "iam:TagPolicy", None),
]


# Passing a role and passing a capacity provider are asked for; the rest is not yet.
FURTHER = [pytest.param(*row, id=f"{row[0]}-{row[2]}") for row in FURTHER]


@pytest.mark.parametrize("operation, more, missing, on", FURTHER)
def test_what_an_operation_needs_besides(world, fresh, operation, more, missing, on):
    """Everything is allowed but this one action on this one resource, and that is what the refusal says."""
    service = "iam" if missing in ("iam:TagRole", "iam:TagPolicy") else "lambda"
    request = (service, operation, on_fresh(world, fresh, service, operation, more))
    on = resource(*request) if on is None else request[2].get(on, on)
    credentials, arn = world.session("besides", {"Effect": "Allow", "NotAction": missing, "Resource": "*"}, {"Effect": "Allow", "Action": missing, "NotResource": on})
    refused(world, request, access_denied(request, denial(arn, missing, on, "identity")), credentials=credentials)


@pytest.mark.parametrize("condition, passes", [("lambda.amazonaws.com", True), ("ec2.amazonaws.com", False)])
def test_a_role_may_be_passed_to_some_services_only(world, condition, passes):
    to = {"Condition": {"StringEquals": {"iam:PassedToService": condition}}}
    credentials, arn = world.session("pass", allow("lambda:*"), allow("iam:PassRole", ROLE, **to))
    request = ("lambda", "UpdateFunctionConfiguration", {"FunctionName": "m", "Role": ROLE})
    if passes:
        assert world.ask(request, credentials).status == 200
    else:
        refused(world, request, access_denied(request, denial(arn, "iam:PassRole", ROLE, "identity")), credentials=credentials)


def test_tags_are_shown_to_whom_they_may_be_shown(world):
    world.default_function("tagged", Tags={"team": "a"})
    arn = LAMBDA + "function:tagged"
    credentials, _ = world.session("tags", allow("lambda:GetFunction", arn), allow("lambda:ListTags", arn))
    get = lambda credentials: json.loads(ask(world.url, "lambda", "GetFunction", {"FunctionName": "tagged"}, credentials).body)
    assert get(credentials)["Tags"] == {"team": "a"}
    credentials, _ = world.session("tags", allow("lambda:GetFunction", arn))
    answer = get(credentials)
    assert "Tags" not in answer and answer["TagsError"]["ErrorCode"] == "AccessDeniedException"


# What a resource's own policy allows.

# AWS lets accounts share these; each function gets a policy for one of them.
SHARED = """
    CreateAlias DeleteAlias DeleteFunction DeleteFunctionConcurrency DeleteFunctionEventInvokeConfig
    DeleteProvisionedConcurrencyConfig GetAlias GetFunction GetFunctionConcurrency GetFunctionConfiguration
    GetFunctionEventInvokeConfig GetPolicy GetProvisionedConcurrencyConfig Invoke ListAliases
    ListFunctionEventInvokeConfigs ListProvisionedConcurrencyConfigs ListTags ListVersionsByFunction PublishVersion
    PutFunctionConcurrency PutFunctionEventInvokeConfig PutProvisionedConcurrencyConfig TagResource UntagResource
    UpdateAlias UpdateFunctionCode UpdateFunctionEventInvokeConfig""".split()


BY_ARN = {"ListTags", "TagResource", "UntagResource"}


@pytest.mark.parametrize("operation", SHARED)
def test_the_policy_of_a_function_alone(world, operation):
    name = f"shared-{next(world.numbers)}"
    world.default_function(name)
    world.client.publish_version(FunctionName=name)
    world.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    on = LAMBDA + "function:" + name
    values = values_for(world, "lambda", operation)
    for member in ("FunctionName", "Resource"):
        if member in values:
            values[member] = on
    request = ("lambda", operation, values)
    what, on = about(request)
    # What hangs on an alias is shared by the alias's own policy.
    where = {"Qualifier": values["Qualifier"]} if "Qualifier" in values else {}
    credentials, arn = world.session("guest")
    role = arn.replace(":sts:", ":iam:").replace("assumed-role", "role").rsplit("/", 1)[0]
    refused(world, request, access_denied(request, denial(arn, what, on, "identity")), credentials=credentials)
    refused(world, request, access_denied(request, denial(OTHER_ROOT, what, on, "resource")), credentials=world.other)
    for statement, principal in (("role", role), ("account", OTHER_ACCOUNT)):
        world.client.add_permission(FunctionName=name, StatementId=statement, Action=what, Principal=principal, **where)
    # What deletes the function leaves nothing for the second to ask.
    for who in (credentials, world.other)[: 1 if operation == "DeleteFunction" else 2]:
        answer = world.ask(request, who)
        assert not answer.denied(), answer.error()


def test_a_function_s_policy_for_its_own_account_needs_the_role_s_as_well(world):
    world.default_function("own")
    world.client.add_permission(FunctionName="own", StatementId="own", Action="lambda:GetFunction", Principal=ACCOUNT)
    request = ("lambda", "GetFunction", {"FunctionName": "own"})
    refused(world, request, access_denied(request, denial(world.nobody_arn, *about(request), "identity")), credentials=world.nobody)


def test_a_function_s_policy_denies_whoever_it_names(world):
    world.default_function("denies")
    arn = LAMBDA + "function:denies"
    credentials, who = world.session("named", allow("*"))
    role = f"{IAM}role/{who.split('/')[1]}"
    text = policy({"Sid": "s", "Effect": "Deny", "Principal": {"AWS": role}, "Action": "lambda:GetFunction", "Resource": arn})
    world.client.put_resource_policy(ResourceArn=arn, Policy=text)
    request = ("lambda", "GetFunction", {"FunctionName": "denies"})
    sentence = denial(who, *about(request), "explicit").replace("an identity", "a resource")
    refused(world, request, access_denied(request, sentence), credentials=credentials)
    assert world.ask(("lambda", "GetFunctionConfiguration", {"FunctionName": "denies"}), credentials).status == 200
    assert world.ask(request, ROOT).status == 200


def test_the_policy_of_an_alias_is_not_that_of_its_function(world):
    world.default_function("aliased")
    world.client.publish_version(FunctionName="aliased")
    world.client.create_alias(FunctionName="aliased", Name="live", FunctionVersion="1")
    world.client.add_permission(FunctionName="aliased", Qualifier="live", StatementId="s", Action="lambda:GetFunction", Principal=OTHER_ACCOUNT)
    arn = LAMBDA + "function:aliased"
    assert world.ask(("lambda", "GetFunction", {"FunctionName": arn + ":live"}), world.other).status == 200
    for request in (("lambda", "GetFunction", {"FunctionName": arn}), ("lambda", "GetFunction", {"FunctionName": arn, "Qualifier": "1"})):
        refused(world, request, access_denied(request, denial(OTHER_ROOT, *about(request), "resource")), credentials=world.other)


@pytest.mark.parametrize("operation", ["GetLayerVersion", "GetLayerVersionByArn"])
@pytest.mark.parametrize("principal", [OTHER_ACCOUNT, "*"])
def test_the_policy_of_a_layer_version_alone(world, operation, principal):
    name = f"shared-{next(world.numbers)}"
    world.client.publish_layer_version(LayerName=name, Content={"ZipFile": LAYER})
    layer = LAMBDA + "layer:" + name
    values = {"Arn": layer + ":1"} if operation.endswith("Arn") else {"LayerName": layer, "VersionNumber": 1}
    request = ("lambda", operation, values)
    refused(world, request, access_denied(request, denial(OTHER_ROOT, *about(request), "resource")), credentials=world.other)
    world.client.add_layer_version_permission(LayerName=name, VersionNumber=1, StatementId="s", Action="lambda:GetLayerVersion", Principal=principal)
    assert world.ask(request, world.other).status == 200
    other = ("lambda", "GetLayerVersionPolicy", {"LayerName": layer, "VersionNumber": 1})
    refused(world, other, access_denied(other, denial(OTHER_ROOT, *about(other), "resource")), credentials=world.other)


# What policies may ask besides.

IAM_S = ("AttachRolePolicy", "GetRole", "TagRole")
CONDITIONS = [
    ("AddPermission", "lambda:Principal", "sns.amazonaws.com", {}),
    ("AddPermission", "lambda:FunctionUrlAuthType", "AWS_IAM", {"Action": "lambda:InvokeFunctionUrl", "Principal": OTHER_ACCOUNT, "FunctionUrlAuthType": "AWS_IAM"}),
    ("CreateFunction", "lambda:Layer", FRESH_LAYER, {"Layers": [FRESH_LAYER]}),
    ("CreateFunction", "aws:RequestTag/team", "a", {"Tags": {"team": "a"}}),
    ("CreateFunction", "aws:TagKeys", "team", {"Tags": {"team": "a"}}),
    ("CreateCapacityProvider", "lambda:SubnetIds", "subnet-1", {}),
    ("CreateCapacityProvider", "lambda:SecurityGroupIds", "sg-1", {}),
    ("CreateCapacityProvider", "aws:RequestTag/team", "a", {"Tags": {"team": "a"}}),
    ("CreateEventSourceMapping", "lambda:FunctionArn", LAMBDA + "function:fresh", {}),
    ("CreateEventSourceMapping", "aws:RequestTag/team", "a", {"Tags": {"team": "a"}}),
    ("GetEventSourceMapping", "lambda:FunctionArn", LAMBDA + "function:fresh", {}),
    ("UpdateEventSourceMapping", "lambda:FunctionArn", LAMBDA + "function:fresh", {}),
    ("GetEventSourceMapping", "aws:ResourceTag/team", "a", {}),
    ("CreateFunctionUrlConfig", "lambda:FunctionUrlAuthType", "NONE", {}),
    ("CreateFunctionUrlConfig", "lambda:FunctionArn", LAMBDA + "function:fresh", {}),
    ("GetFunctionUrlConfig", "lambda:FunctionUrlAuthType", "AWS_IAM", {}),
    ("GetFunction", "aws:ResourceTag/team", "a", {}),
    ("ListTags", "aws:ResourceTag/team", "a", {}),
    ("TagResource", "aws:RequestTag/a", "1", {}),
    ("TagResource", "aws:TagKeys", "a", {}),
    ("UntagResource", "aws:TagKeys", "team", {}),
    ("GetCapacityProvider", "aws:ResourceTag/team", "a", {}),
    ("GetCodeSigningConfig", "aws:ResourceTag/team", "a", {}),
    ("PutFunctionCodeSigningConfig", "lambda:CodeSigningConfigArn", "CodeSigningConfigArn", {}),
    ("GetRole", "aws:ResourceTag/team", "a", {}),
    ("TagRole", "aws:RequestTag/a", "1", {}),
    ("AttachRolePolicy", "iam:PolicyARN", "PolicyArn", {}),
]


def without_a_value(operation, key):
    """Keys that no request has a value for yet. IAM's own operations have theirs."""
    if operation in IAM_S or key == "lambda:FunctionArn" and operation.startswith("Create"):
        return False
    return key.startswith("aws:") or key in ("lambda:SubnetIds", "lambda:SecurityGroupIds", "lambda:FunctionArn") or operation == "GetFunctionUrlConfig"


CONDITIONS = [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in CONDITIONS]


@pytest.mark.parametrize("operation, key, value, more", CONDITIONS)
def test_what_policies_may_ask_of_a_request(world, fresh, operation, key, value, more):
    """Allowed on the condition's account alone; with another value it is the condition that refuses."""
    service = "iam" if operation in IAM_S else "lambda"
    request = (service, operation, on_fresh(world, fresh, service, operation, more))
    value = request[2].get(value, value)
    what, on = about(request)
    besides = {"Effect": "Allow", "NotAction": what, "Resource": "*"}

    def holds(value):
        test = "ForAllValues:StringEquals" if key in ("aws:TagKeys", "lambda:SubnetIds", "lambda:SecurityGroupIds") else "StringEquals"
        present = {"Null": {key: "false"}}
        credentials, arn = world.session("condition", besides, allow(what, "*", Condition={test: {key: value}} | present))
        return credentials, arn

    credentials, arn = holds("not-" + value)
    refused(world, request, access_denied(request, denial(arn, what, on, "identity")), credentials=credentials)
    answer = world.ask(request, holds(value)[0])
    assert not answer.denied(), answer.error()
