"""Answers in places where AWS's are known and a natural reading would give others: which error wins, what changes a
revision, what a setting reads back as."""

import json

import pytest

from authorization_reference import ACCOUNT, LAMBDA
from conftest import ROLE, Server, zip_of
from on_demand import LATEST, create
from signed import ROOT, ask
from stubs import json_service
from test_api import fault
from test_layers import publish_layer

INVALID = "InvalidParameterValueException"
FOREIGN = "arn:aws:lambda:us-east-1:111111111111:"
QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:queue"
STREAM = {"EventSourceArn": f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/s", "StartingPosition": "LATEST"}
NO_ROLE = f"arn:aws:iam::{ACCOUNT}:role/nobody"
ZIP = zip_of({"app.py": "def handler(event, context): pass\n"})


@pytest.fixture(scope="module")
def client(server):
    create(server, "f")
    server.client.publish_version(FunctionName="f")
    server.client.create_alias(FunctionName="f", Name="a", FunctionVersion="1")
    return server.client


def revision(client):
    return client.get_function_configuration(FunctionName="f")["RevisionId"]


def test_what_changes_the_revision_of_latest(client):
    before = revision(client)
    unchanged = [
        lambda: client.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=1),
        lambda: client.delete_function_concurrency(FunctionName="f"),
        lambda: client.publish_version(FunctionName="f"),
    ]
    for call in unchanged:
        call()
        assert revision(client) == before
    client.update_function_configuration(FunctionName="f", Description="other")
    changing = [
        lambda: client.publish_version(FunctionName="f"),
        lambda: client.tag_resource(Resource=LAMBDA + "function:f", Tags={"a": "b"}),
        lambda: client.untag_resource(Resource=LAMBDA + "function:f", TagKeys=["a"]),
    ]
    for call in changing:
        before = revision(client)
        call()
        assert revision(client) != before
        stale = fault(client.publish_version, FunctionName="f", RevisionId=before)
        assert (stale[0], stale[2]) == ("PreconditionFailedException", 412)


def test_becoming_active_is_a_change_of_a_version_too(client):
    client.update_function_configuration(FunctionName="f", Description="active")
    made = client.publish_version(FunctionName="f")
    assert made["State"] == "Pending"
    assert client.get_function_configuration(FunctionName="f", Qualifier=made["Version"])["RevisionId"] != made["RevisionId"]


@pytest.mark.parametrize("name", ["f:1", "f:a", LAMBDA + "function:f:1"])
def test_only_latest_is_updated(client, name):
    text = "Current operation does not support versions other than $LATEST. Please set the version to $LATEST or do not set a version in your request."
    for call, settings in ((client.update_function_code, {"ZipFile": ZIP}), (client.update_function_configuration, {"Timeout": 4})):
        assert fault(call, FunctionName=name, **settings) == (INVALID, text, 400)
    assert client.update_function_configuration(FunctionName="f:$LATEST", Timeout=4)["Timeout"] == 4


def test_what_is_not_there_wins_over_what_is_wrong(client):
    for settings in ({"Role": NO_ROLE}, {"Layers": [LAMBDA + "layer:none:1"]}, {"SnapStart": {"ApplyOn": "PublishedVersions"}}):
        assert fault(client.update_function_configuration, FunctionName="nobody", **settings)[2] == 404
        stale = "00000000-0000-4000-8000-000000000000"
        assert fault(client.update_function_configuration, FunctionName="f", RevisionId=stale, **settings)[2] == 412
    # What is wrong wins over a name that is taken.
    new = {"FunctionName": "f", "Role": ROLE, "Handler": "app.handler", "Code": {"ZipFile": ZIP}}
    assert fault(client.create_function, **new, Runtime="python3.99")[0] == INVALID
    assert fault(client.create_function, **new, Runtime="python3.13", Layers=[LAMBDA + "layer:none:1"])[0] == INVALID
    assert fault(client.create_function, **new, Runtime="python3.13")[2] == 409
    # Whatever the weights of an alias that is there.
    weights = {"AdditionalVersionWeights": {"1": 0.1}}
    assert fault(client.create_alias, FunctionName="f", Name="a", FunctionVersion="1", RoutingConfig=weights)[2] == 409
    # A statement's id, then its principal; the function before both.
    add = {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": NO_ROLE}
    assert fault(client.add_permission, FunctionName="f", Qualifier="noalias", **add)[2] == 404
    client.add_permission(FunctionName="f", StatementId="s", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com")
    assert fault(client.add_permission, FunctionName="f", **add)[2] == 409


def test_which_name_an_error_has(client):
    not_there, gone = "The resource you requested does not exist.", "Function does not exist"
    text = lambda call, **settings: fault(call, **settings)[1]
    assert text(client.update_function_url_config, FunctionName="nobody", AuthType="NONE") == gone
    assert text(client.update_function_url_config, FunctionName="f", Qualifier="noalias", AuthType="NONE") == gone
    assert text(client.update_function_url_config, FunctionName="f", AuthType="NONE") == not_there
    for qualifier in ("noalias", "99"):
        assert text(client.get_policy, FunctionName="f", Qualifier=qualifier) == not_there
    assert text(client.remove_permission, FunctionName="nobody", Qualifier="1", StatementId="s") == f"No policy found for: {LAMBDA}function:nobody"
    for qualifier in ("1", "alias"):
        assert text(client.delete_function, FunctionName="nobody", Qualifier=qualifier) == f"Function not found: {LAMBDA}function:nobody"
    provisioned = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
    assert text(client.put_provisioned_concurrency_config, FunctionName="nobody", Qualifier=LATEST, ProvisionedConcurrentExecutions=1) == provisioned
    via_url = {"StatementId": "u", "Action": "lambda:InvokeFunctionUrl", "Principal": "*", "InvokedViaFunctionUrl": True}
    assert fault(client.add_permission, FunctionName="f", **via_url)[0] == INVALID
    snap = {"SnapStart": {"ApplyOn": "PublishedVersions"}}
    assert text(client.update_function_configuration, FunctionName="f", Runtime="nodejs24.x", **snap) == "nodejs24.x is not supported for SnapStart enabled functions."


def test_nothing_of_another_account_is_told(client):
    denial = lambda action, arn: f"User: arn:aws:iam::{ACCOUNT}:root is not authorized to perform: lambda:{action} on resource: {arn} because no resource-based policy allows the lambda:{action} action"
    denied = lambda text: ("AccessDeniedException", text, 403)
    layer = FOREIGN + "layer:l:1"
    assert fault(client.update_function_configuration, FunctionName="f", Layers=[layer]) == denied(denial("GetLayerVersion", layer))
    assert fault(client.list_layer_versions, LayerName=FOREIGN + "layer:l") == denied(denial("ListLayerVersions", FOREIGN + "layer:l"))
    function = FOREIGN + "function:f"
    assert fault(client.get_function, FunctionName=function) == denied(denial("GetFunction", function))
    # What cannot be shared at all is refused without a word.
    for call, settings in (
        (client.update_function_configuration, {"Timeout": 3}),
        (client.remove_permission, {"StatementId": "s"}),
        (client.get_function_url_config, {}),
    ):
        assert fault(call, FunctionName=function, **settings) == denied(None)


def test_an_empty_network_reads_back(server, client):
    empty = {"SubnetIds": [], "SecurityGroupIds": []}
    shown = empty | {"VpcId": "", "Ipv6AllowedForDualStack": False}
    create(server, "networked", VpcConfig=empty)
    read = lambda name: client.get_function_configuration(FunctionName=name).get("VpcConfig")
    assert (read("networked"), read("f")) == (shown, None)
    client.update_function_configuration(FunctionName="f", VpcConfig=empty)
    assert read("f") == shown
    assert client.update_function_configuration(FunctionName="f", Description="kept")["VpcConfig"] == shown


def test_settings_that_are_given_whole(server, client):
    create(server, "logged", LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG"})
    update = lambda **config: client.update_function_configuration(FunctionName="logged", LoggingConfig=config)["LoggingConfig"]["ApplicationLogLevel"]
    assert update(SystemLogLevel="WARN") == "DEBUG"
    assert update(LogFormat="JSON") == "INFO"
    at = {"FunctionName": "f"}
    client.put_function_event_invoke_config(**at, DestinationConfig={"OnSuccess": {"Destination": QUEUE}, "OnFailure": {"Destination": QUEUE}})
    changed = client.update_function_event_invoke_config(**at, DestinationConfig={"OnFailure": {"Destination": QUEUE}})
    assert changed["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {"Destination": QUEUE}}
    assert "Environment" not in create(server, "no-variables", Environment={})


def test_dead_letters_go_where_the_role_may_write(server, client):
    iam = server.make_client("iam")
    trust = iam.get_role(RoleName="r")["Role"]["AssumeRolePolicyDocument"]
    role = iam.create_role(RoleName="writes-nothing", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    client.update_function_configuration(FunctionName="f", Role=role)
    for arn, what in ((QUEUE, "SendMessage on SQS"), (f"arn:aws:sns:us-east-1:{ACCOUNT}:topic", "Publish on SNS")):
        set_ = dict(FunctionName="f", DeadLetterConfig={"TargetArn": arn})
        assert fault(client.update_function_configuration, **set_) == (INVALID, f"The provided execution role does not have permissions to call {what}", 400)
        assert client.update_function_configuration(**set_, Role=ROLE)["DeadLetterConfig"] == {"TargetArn": arn}
        client.update_function_configuration(FunctionName="f", Role=role, DeadLetterConfig={"TargetArn": ""})
    client.update_function_configuration(FunctionName="f", Role=ROLE)
    assert fault(client.update_function_configuration, FunctionName="f", DeadLetterConfig={"TargetArn": "arn:aws:s3:::bucket"})[0] == INVALID


def test_sources_are_what_the_role_may_read(server, client):
    iam = server.make_client("iam")
    trust = iam.get_role(RoleName="r")["Role"]["AssumeRolePolicyDocument"]
    role = iam.create_role(RoleName="reads-nothing", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    create(server, "reader", Role=role)
    make = lambda **source: fault(client.create_event_source_mapping, FunctionName="reader", **source)
    assert make(EventSourceArn=QUEUE) == (INVALID, "The function execution role does not have permissions to call ReceiveMessage on SQS", 400)
    code, text, _ = make(**STREAM)
    assert code == INVALID and text == f"Cannot access stream {STREAM['EventSourceArn']}. Please ensure the role can perform the GetRecords, GetShardIterator, DescribeStream, ListShards, and ListStreams Actions on your stream in IAM."


def test_a_queue_of_another_account_is_asked_of_the_role_alone(client):
    made = client.create_event_source_mapping(FunctionName="f", EventSourceArn="arn:aws:sqs:us-east-1:111111111111:theirs")
    client.delete_event_source_mapping(UUID=made["UUID"])


def test_pollers_are_provisioned_or_bounded_after_an_update_too(client):
    uuid = client.create_event_source_mapping(FunctionName="f", EventSourceArn=QUEUE, ScalingConfig={"MaximumConcurrency": 2})["UUID"]
    provisioned = {"MinimumPollers": 2}
    assert fault(client.update_event_source_mapping, UUID=uuid, ProvisionedPollerConfig=provisioned)[0] == INVALID
    changed = client.update_event_source_mapping(UUID=uuid, ScalingConfig={}, ProvisionedPollerConfig=provisioned)
    assert changed["ProvisionedPollerConfig"] == provisioned and "ScalingConfig" not in changed
    client.delete_event_source_mapping(UUID=uuid)


FIFO = QUEUE + ".fifo"
KAFKA = {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a:1", "b:1"]}}, "SourceAccessConfigurations": [{"Type": "VPC_SUBNET", "URI": "subnet:s"}], "Topics": ["topic"]}


@pytest.mark.parametrize(
    "settings, text",
    [
        (STREAM | {"DestinationConfig": {"OnSuccess": {"Destination": QUEUE}}}, "Unsupported DestinationConfig parameter for given event source mapping type."),
        (STREAM | {"MaximumRecordAgeInSeconds": 59}, "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)"),
        (STREAM | {"ProvisionedPollerConfig": {"MinimumPollers": 1}}, "Unsupported 'provisionedPollerConfig' parameter for given event source mapping type."),
        ({"EventSourceArn": FIFO, "BatchSize": 11}, "Maximum batch size must be between 1 and 10 inclusive"),
        ({"EventSourceArn": QUEUE.replace("us-east-1", "us-east-2")}, None),
        ({"EventSourceArn": QUEUE, "FilterCriteria": {"Filters": [{"Pattern": '{"a":[1]}'}] * 6}}, None),
        ({"EventSourceArn": QUEUE, "ScalingConfig": {"MaximumConcurrency": 2}, "ProvisionedPollerConfig": {"MinimumPollers": 2}}, None),
        ({"EventSourceArn": QUEUE, "ProvisionedPollerConfig": {"MinimumPollers": 10, "MaximumPollers": 5}}, None),
        ({"EventSourceArn": QUEUE, "Topics": ["topic"]}, "Unsupported 'topics' parameter for given event source mapping type."),
    ],
)
def test_what_an_event_source_mapping_cannot_have(client, settings, text):
    for function in ("f", "nobody"):
        code, said, status = fault(client.create_event_source_mapping, FunctionName=function, **settings)
        assert (code, status) == (INVALID, 400) and said == (text or said) and said != "Function does not exist"


def test_a_cluster_in_common_is_the_same_source(client):
    uuid = client.create_event_source_mapping(FunctionName="f", **KAFKA)["UUID"]
    try:
        again = KAFKA | {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["b:1", "c:1"]}}}
        code, text, status = fault(client.create_event_source_mapping, FunctionName="f", **again)
        assert status == 409 and f'event source ("b:1,c:1"), function ("{LAMBDA}function:f"), topics ("topic") already exists. Please update or delete the existing mapping with UUID {uuid}' in text
        client.delete_event_source_mapping(UUID=client.create_event_source_mapping(FunctionName="f", **again | {"Topics": ["other"]})["UUID"])
    finally:
        client.delete_event_source_mapping(UUID=uuid)


def test_settings_that_say_nothing_are_none(client):
    made = client.create_event_source_mapping(FunctionName="f", EventSourceArn=QUEUE, FilterCriteria={"Filters": []}, ScalingConfig={})
    assert not {"FilterCriteria", "ScalingConfig"} & set(made)
    client.delete_event_source_mapping(UUID=made["UUID"])


def test_a_queue_must_hide_messages_for_as_long_as_the_function_may_take():
    def known(operation, _):
        return {"QueueUrl": "http://q"} if operation == "GetQueueUrl" else {"Attributes": {"VisibilityTimeout": "30"}}

    with json_service(known) as place:
        server = Server(None, "--service-endpoint", f"sqs={place.url}")
        try:
            create(server, "long", Timeout=60)
            create(server, "short", Timeout=30)
            refused = (INVALID, "Queue visibility timeout: 30 seconds is less than Function timeout: 60 seconds", 400)
            assert fault(server.client.create_event_source_mapping, FunctionName="long", EventSourceArn=QUEUE) == refused
            uuid = server.client.create_event_source_mapping(FunctionName="short", EventSourceArn=QUEUE)["UUID"]
            assert fault(server.client.update_event_source_mapping, UUID=uuid, FunctionName="long") == refused
        finally:
            server.remove()


def test_types_are_said_in_the_parser_s_words(server, client):
    from botocore.auth import SigV4Auth

    from signed import REGION, send, written

    def sent(body):
        request = written(server.url, "lambda", "UpdateFunctionConfiguration", {"FunctionName": "f"})
        request.data = json.dumps(body).encode()
        SigV4Auth(ROOT, "lambda", REGION).add_auth(request)
        answer = send(request)
        return answer.status, json.loads(answer.body)

    assert sent({"Timeout": "60"}) == (400, {"Message": "STRING_VALUE can not be converted to an Integer"})
    assert sent({"Description": 7}) == (400, {"Message": "NUMBER_VALUE can not be converted to a String"})
    assert sent({"Description": ["x"]}) == (400, {"Message": "Start of list found where not expected"})
    assert sent({"Unknown": ["x"]})[0] == 200


@pytest.mark.parametrize(
    "operation, values, code, text",
    [
        ("AttachRolePolicy", {"RoleName": "r", "PolicyArn": "this is no arn at all"}, "InvalidInput", "ARN this is no arn at all is not valid."),
        ("GetRole", {"RoleName": "a b"}, "ValidationError", "The specified value for roleName is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-"),
        ("TagRole", {"RoleName": "r", "Tags": [{"Key": "aws:x", "Value": "y"}]}, "InvalidInput", None),
        ("PutRolePolicy", {"RoleName": "r", "PolicyName": "p", "PolicyDocument": json.dumps({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "everything", "Resource": "*"}})}, "MalformedPolicyDocument", "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."),
        ("PutRolePolicy", {"RoleName": "r", "PolicyName": "p", "PolicyDocument": json.dumps({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:us-east-1::b"}})}, "MalformedPolicyDocument", "Resource arn:aws:s3:us-east-1::b can not contain region information."),
    ],
)
def test_iam_in_its_own_words(server, operation, values, code, text):
    status, said_code, said = ask(server.url, "iam", operation, values, ROOT).error()
    assert (status, said_code) == (400, code) and said == (text or said)


def test_layers_are_looked_at_one_after_the_other(server, client):
    there = publish_layer(server, "turns", {"a": "b"})["LayerVersionArn"]
    missing = there.rsplit(":", 1)[0] + ":99"
    assert fault(client.update_function_configuration, FunctionName="f", Layers=[there, missing])[1] == f"Layer version {missing} does not exist."
    add = {"LayerName": "turns", "VersionNumber": 1, "StatementId": "s", "Action": "lambda:GetLayerVersion", "Principal": "*"}
    client.add_layer_version_permission(**add)
    assert fault(client.add_layer_version_permission, **add, RevisionId="00000000-0000-4000-8000-000000000000")[2] == 409
