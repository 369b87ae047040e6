"""An alias with weights: on every way in, its versions get their share, and which one ran is answered and logged."""

import json
import math
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ACCOUNT, BIN, Server, wait_until, zip_of
from on_demand import create
from sources import at, collector as make_collector, mapping, moto
from test_urls import ask, url_of

WEIGHT = 0.3
COUNT = 400
# What goes through moto's queues, which are slow.
QUEUED = 200
CODE = """
import json, os, urllib.request
def handler(event, context):
    if "Records" in event:
        urllib.request.urlopen(urllib.request.Request(os.environ["TELL"], b"{}", {"function-version": context.function_version})).read()
    return context.function_version
"""
SQS = f"arn:aws:sqs:us-east-1:{ACCOUNT}:"


@pytest.fixture(scope="module")
def place():
    with moto() as url, make_collector() as told:
        server = Server(None, f"--service-endpoint=sqs={url}")
        server.provider("cp")
        server.sqs, server.told, server.ran = at(url, "sqs"), told, {"weighted": [], "managed": []}
        create(server, "weighted", {"app.py": CODE}, Environment={"Variables": {"TELL": told.url}}, Publish=True, Timeout=10)
        settings = {"Timeout": 10, "concurrency": 8, "Environment": {"Variables": {"TELL": told.url}}}
        server.create("managed", {"app.py": CODE}, **settings)
        server.client.publish_version(FunctionName="managed")
        for name in ("weighted", "managed"):
            server.client.update_function_code(FunctionName=name, ZipFile=zip_of({"app.py": CODE + "\n"}))
            server.client.get_waiter("function_updated_v2").wait(FunctionName=name)
            server.client.publish_version(FunctionName=name)
            if name == "managed":
                [server.settled(name, version) for version in "12"]
            weights = {"AdditionalVersionWeights": {"2": WEIGHT}}
            server.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1", RoutingConfig=weights)
        yield server
        server.remove()


def shares(server, name, versions):
    """Versions 1 and 2 and nothing else; the second within four standard deviations of its weight."""
    server.ran[name] += versions
    assert set(versions) <= {"1", "2"}
    expected, deviation = WEIGHT * len(versions), math.sqrt(len(versions) * WEIGHT * (1 - WEIGHT))
    return abs(versions.count("2") - expected) <= 4 * deviation


def holds(server, name, sample):
    """One sample in 16,000 is outside by chance alone; of two, one must be within."""
    assert shares(server, name, sample()) or shares(server, name, sample())


def many(call, count=COUNT):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda _: call(), range(count)))


@pytest.mark.parametrize("name", ["weighted", "managed"])
def test_synchronous_invocations(place, name):
    def call():
        answer = place.client.invoke(FunctionName=name, Qualifier="live")
        assert json.load(answer["Payload"]) == answer["ExecutedVersion"]
        return answer["ExecutedVersion"]

    holds(place, name, lambda: many(call))


@pytest.mark.parametrize("name", ["weighted", "managed"])
def test_streams(place, name):
    def call():
        answer = place.client.invoke_with_response_stream(FunctionName=name, Qualifier="live")
        chunks = b"".join(event.get("PayloadChunk", {}).get("Payload", b"") for event in answer["EventStream"])
        assert json.loads(chunks) == answer["ExecutedVersion"]
        return answer["ExecutedVersion"]

    holds(place, name, lambda: many(call))


@pytest.mark.parametrize("name", ["weighted", "managed"])
def test_asynchronous_invocations(place, name):
    queue = place.sqs.create_queue(QueueName=f"outcomes-{name}")["QueueUrl"]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "*"}]}
    place.make_client("iam").put_role_policy(RoleName="r", PolicyName="send", PolicyDocument=json.dumps(policy))
    place.client.put_function_event_invoke_config(FunctionName=name, Qualifier="live", DestinationConfig={"OnSuccess": {"Destination": SQS + f"outcomes-{name}"}})

    def sample():
        many(lambda: place.client.invoke(FunctionName=name, Qualifier="live", InvocationType="Event"), QUEUED)
        versions = []
        while len(versions) < QUEUED:
            received = place.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=20).get("Messages")
            assert received, f"{len(versions)} of {QUEUED} outcomes came"
            place.sqs.delete_message_batch(QueueUrl=queue, Entries=[{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(received)])
            for record in (json.loads(message["Body"]) for message in received):
                assert record["responseContext"]["executedVersion"] == record["responsePayload"]
                versions.append(record["responsePayload"])
        return versions

    holds(place, name, sample)


@pytest.mark.parametrize("name", ["weighted", "managed"])
def test_function_urls(place, name):
    url = url_of(place, name, qualifier="live")

    def call():
        status, _, body = ask(place, url)
        assert status == 200
        return body.decode()

    holds(place, name, lambda: many(call))


@pytest.mark.parametrize("name", ["weighted", "managed"])
def test_event_sources(place, name):
    queue = place.sqs.create_queue(QueueName=f"source-{name}")["QueueUrl"]
    mapping(place, f"{name}:live", EventSourceArn=SQS + f"source-{name}", BatchSize=1)

    def sample():
        place.told.clear()
        for start in range(0, QUEUED, 10):
            place.sqs.send_message_batch(QueueUrl=queue, Entries=[{"Id": str(n), "MessageBody": "x"} for n in range(start, start + 10)])
        wait_until(lambda: len(place.told.versions) >= QUEUED, "every message", 90)
        return list(place.told.versions)

    holds(place, name, sample)


@pytest.mark.parametrize("name", ["weighted", "managed"])
def test_what_ran_is_what_was_logged(place, name):
    command = [BIN, "logs", name, "--since", "1h", "--json", "--port", str(place.port)]

    def logged():
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return re.findall(r"Version: (\d)", lines) if name == "weighted" else re.findall(r'\\"version\\":\\"(\d)\\"', lines)

    ran = place.ran[name]
    wait_until(lambda: len(logged()) >= len(ran), "the lines")
    seen = logged()
    assert {version: seen.count(version) for version in "12"} == {version: ran.count(version) for version in "12"}
