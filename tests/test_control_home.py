"""Whose account and region this is, and what lies elsewhere: names in ARNs, and event sources asked at their own service."""

import json
import subprocess

import boto3
import pytest
from botocore.config import Config

from conftest import BIN, Server
from on_demand import create
from stubs import json_service
from test_api import fault
from test_layers import publish_layer

ACCOUNT, REGION = "123456789012", "eu-north-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"


class Elsewhere(Server):
    """A server of another account and region."""

    def make_client(self, service="lambda", key="test", secret="test", **settings):
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=60, **settings),
        )


def arns(value):
    """Every ARN anywhere in an answer."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [arn for item in value for arn in arns(item)]
    if isinstance(value, str) and value.startswith("{"):
        return arns(json.loads(value))
    return [value] if isinstance(value, str) and value.startswith("arn:") else []


def test_every_arn_names_the_account_and_the_region():
    server = Elsewhere(None, "--account-id", ACCOUNT, "--region", REGION)
    try:
        client = server.client
        answers = [create(server, "f", {"app.py": "import os\ndef handler(event, context):\n    return [context.invoked_function_arn, os.environ['AWS_REGION']]\n"}, Role=ROLE)]
        answers.append(client.publish_version(FunctionName="f"))
        answers.append(client.create_alias(FunctionName="f", Name="live", FunctionVersion="1"))
        answers.append(client.add_permission(FunctionName="f", Qualifier="live", StatementId="s", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com"))
        answers.append(client.get_policy(FunctionName="f", Qualifier="live"))
        answers.append(client.create_function_url_config(FunctionName="f", AuthType="NONE"))
        answers.append(client.put_function_event_invoke_config(FunctionName="f", MaximumRetryAttempts=1))
        answers.append(client.put_provisioned_concurrency_config(FunctionName="f", Qualifier="1", ProvisionedConcurrentExecutions=1))
        answers.append(client.list_provisioned_concurrency_configs(FunctionName="f"))
        answers.append(client.create_event_source_mapping(FunctionName="f", EventSourceArn=f"arn:aws:sqs:{REGION}:{ACCOUNT}:q"))
        answers.append(client.create_code_signing_config(AllowedPublishers={"SigningProfileVersionArns": [f"arn:aws:signer:{REGION}:{ACCOUNT}:/signing-profiles/p/0123456789"]}))
        answers.append(publish_layer(server, "l", {"f": "1"}))
        answers.append(client.list_layers())
        answers.append(client.list_functions(FunctionVersion="ALL"))
        answers.append(
            client.create_capacity_provider(
                CapacityProviderName="cp",
                VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
                PermissionsConfig={"CapacityProviderOperatorRoleArn": ROLE},
            )
        )
        found = [arns(answer) for answer in answers]
        assert sum(map(bool, found)) >= len(answers) - 2, "else nothing is tested"
        # A runtime's ARN has no account; a role's has no region.
        for arn in (arn for some in found for arn in some if ":runtime:" not in arn):
            parts = arn.split(":")
            assert parts[4] == ACCOUNT and parts[3] in (REGION, "" if parts[2] == "iam" else REGION), arn
        assert server.invoke("f:live") == (None, [f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f:live", REGION])
        assert server.make_client("sts").get_caller_identity()["Account"] == ACCOUNT
        status = server.status()
        assert (status["accountId"], status["region"]) == (ACCOUNT, REGION)
        assert fault(client.get_function, FunctionName="arn:aws:lambda:us-east-1:000000000000:function:f")[2] in (400, 403, 404)

        # Both are kept with the data, and never changed under it.
        server.stop()
        server.flags = ()
        server.start()
        assert server.invoke("f:live")[1][0] == f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f:live"
        server.stop()
        for flags in (("--account-id", "000000000000"), ("--region", "us-east-1"), ("--account-id", ACCOUNT, "--region", "eu-west-1")):
            refused = subprocess.run([BIN, "up", "--port", "0", "--data-dir", server.folder, *flags], capture_output=True, text=True, timeout=60)
            assert refused.returncode == 1 and ACCOUNT in refused.stderr and REGION in refused.stderr, refused
        server.flags = ("--account-id", ACCOUNT, "--region", REGION)
        server.start()
        assert server.invoke("f")[0] is None
    finally:
        server.remove()


@pytest.mark.parametrize(
    "flags, named",
    [
        (("--account-id", "12345"), "12345"),
        (("--account-id", "12345678901x"), "12345678901x"),
        (("--region", "nowhere at all"), "nowhere at all"),
        (("--quota", "nonsense=1"), "nonsense"),
        (("--quota", "concurrent-executions=-1"), "-1"),
        (("--quota", "concurrent-executions"), "concurrent-executions"),
        (("--service-endpoint", "s3"), "s3"),
        (("--service-endpoint", "s3=https://127.0.0.1:1"), "https://127.0.0.1:1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_written(flags, named, tmp_path):
    folder = tmp_path / "data"
    refused = subprocess.run([BIN, "up", "--port", "0", "--data-dir", str(folder), *flags], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and named in refused.stderr, refused
    assert not folder.exists() or not any(folder.iterdir())


HERE = "arn:aws:{}:us-east-1:000000000000:"
SOURCES = {
    "sqs": (HERE.format("sqs") + "{}", {}, "AmazonSQS.GetQueueUrl"),
    "kinesis": (HERE.format("kinesis") + "stream/{}", {"StartingPosition": "LATEST"}, "Kinesis_20131202.DescribeStreamSummary"),
    "dynamodb": (HERE.format("dynamodb") + "table/{}/stream/2025-01-01T00:00:00.000", {"StartingPosition": "LATEST"}, "DynamoDBStreams_20120810.DescribeStream"),
}


@pytest.mark.parametrize("service", SOURCES)
def test_an_event_source_must_be_there(service):
    arn, settings, target = SOURCES[service]

    def known(_, given):
        return {"QueueUrl": "http://q"} if any("there" in str(value) and "not-there" not in str(value) for value in given.values()) else None

    with json_service(known) as place:
        server = Server(None, "--service-endpoint", f"{service}={place.url}")
        try:
            create(server, "f")
            make = lambda name: server.client.create_event_source_mapping(FunctionName="f", EventSourceArn=arn.format(name), Enabled=False, **settings)
            assert make("there")["EventSourceArn"] == arn.format("there")
            asked = place.requests[0]
            assert asked["headers"]["x-amz-target"] == target and f"/us-east-1/{service}/aws4_request" in asked["headers"]["authorization"]
            code, text, status = fault(make, "not-there")
            assert status in (400, 404) and ("not exist" in text or "not found" in text), (code, text)
            assert len(server.client.list_event_source_mappings()["EventSourceMappings"]) == 1
            # Who is not to be asked is not asked.
            before = len(place.requests)
            assert fault(server.client.create_event_source_mapping, FunctionName="nobody", EventSourceArn=arn.format("there"), **settings)[2] in (400, 404)
            assert len(place.requests) == before
        finally:
            server.remove()


def test_a_queue_that_is_not_there_is_said_in_the_service_s_words():
    with json_service(lambda *_: None) as place:
        server = Server(None, "--service-endpoint", f"sqs={place.url}")
        try:
            create(server, "f")
            text = "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: The specified queue does not exist."
            asked = dict(FunctionName="f", EventSourceArn=HERE.format("sqs") + "q")
            assert fault(server.client.create_event_source_mapping, **asked) == ("InvalidParameterValueException", text, 400)
        finally:
            server.remove()


def test_without_an_endpoint_a_source_is_taken_at_its_word(server):
    create(server, "sourced")
    made = server.client.create_event_source_mapping(FunctionName="sourced", EventSourceArn=HERE.format("sqs") + "unasked", Enabled=False)
    assert server.client.get_event_source_mapping(UUID=made["UUID"])["State"] == "Disabled"
    again = fault(server.client.create_event_source_mapping, FunctionName="sourced", EventSourceArn=HERE.format("sqs") + "unasked")
    assert again[::2] == ("ResourceConflictException", 409)
