"""SQS queues as event sources: moto's SQS, real functions."""

import json
import threading

import pytest
from botocore.exceptions import ClientError
from conftest import ACCOUNT, Server, wait_until
from sources import afresh, at, explain, function, in_turn, mapping, moto, quiet, settle, told  # noqa: F401

QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:"


@pytest.fixture(scope="module")
def sqs():
    with moto() as url:
        client = at(url, "sqs")
        client.url = url
        yield client


@pytest.fixture(scope="module")
def queues(sqs, told):
    server = Server(None, f"--service-endpoint=sqs={sqs.url}")
    server.provider("cp")
    function(server, told, "reader")
    yield server
    server.remove()


@pytest.fixture(scope="module")
def ordered(sqs, told):
    """A server whose queue answers one call at a time."""
    with in_turn(sqs.url) as url:
        server = Server(None, f"--service-endpoint=sqs={url}")
        function(server, told, "reader")
        yield server
        server.remove()


@pytest.fixture
def clean(queues, told):
    return afresh(queues, told)


def make(sqs, name, **attributes):
    attributes = {"VisibilityTimeout": "30"} | attributes
    return sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]


def left(sqs, url):
    """Messages that wait, and those that somebody has."""
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return int(found["ApproximateNumberOfMessages"]), int(found["ApproximateNumberOfMessagesNotVisible"])


def bodies(events):
    return [record["body"] for event in events for record in event["Records"]]


def test_messages_become_events_and_are_deleted(queues, sqs, clean):
    url = make(sqs, "plain")
    mapping(queues, "reader", EventSourceArn=QUEUE + "plain")
    attributes = {
        "Author": {"DataType": "String", "StringValue": "John Grisham"},
        "Weeks": {"DataType": "Number", "StringValue": "6"},
        "Raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    sent = sqs.send_message(QueueUrl=url, MessageBody='{"a": "é😀"}', MessageAttributes=attributes)
    (event,) = clean.wait()
    (record,) = event["Records"]
    assert set(record["attributes"]) >= {"ApproximateReceiveCount", "SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"}
    assert all(isinstance(value, str) for value in record.pop("attributes").values())
    assert record.pop("receiptHandle")
    assert record == {
        "messageId": sent["MessageId"],
        "body": '{"a": "é😀"}',
        "messageAttributes": {
            "Author": {"stringValue": "John Grisham", "stringListValues": [], "binaryListValues": [], "dataType": "String"},
            "Weeks": {"stringValue": "6", "stringListValues": [], "binaryListValues": [], "dataType": "Number"},
            "Raw": {"binaryValue": "AP8=", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
        },
        "md5OfMessageAttributes": sent["MD5OfMessageAttributes"],
        "md5OfBody": sent["MD5OfMessageBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": QUEUE + "plain",
        "awsRegion": "us-east-1",
    }
    wait_until(lambda: left(sqs, url) == (0, 0), "the message to be deleted")


def test_a_failing_batch_comes_again_and_ends_in_the_queues_dead_letters(queues, sqs, clean):
    dead = make(sqs, "dead")
    policy = json.dumps({"deadLetterTargetArn": QUEUE + "dead", "maxReceiveCount": "2"})
    url = make(sqs, "failing", VisibilityTimeout="1", RedrivePolicy=policy)
    clean.do = lambda event: {"fail": "not this"}
    uuid = mapping(queues, "reader", EventSourceArn=QUEUE + "failing")
    sqs.send_message(QueueUrl=url, MessageBody="x")
    first, second = (event["Records"][0] for event in clean.wait(2, 15))
    assert first["messageId"] == second["messageId"] and first["receiptHandle"] != second["receiptHandle"]
    assert [record["attributes"]["ApproximateReceiveCount"] for record in (first, second)] == ["1", "2"]
    wait_until(lambda: left(sqs, dead)[0] == 1, "the dead letter")
    assert len(clean.events) == 2
    assert "LastProcessingResult" not in queues.client.get_event_source_mapping(UUID=uuid)
    text = explain(queues, "reader")
    assert "failing is Enabled" in text and "2 batches of 2 records, 2 failed" in text and "Function call failed" in text, text


def test_of_a_batch_only_what_failed_comes_again(queues, sqs, clean):
    url = make(sqs, "partial", VisibilityTimeout="1")
    for place in range(4):
        sqs.send_message(QueueUrl=url, MessageBody=str(place))

    def do(event):
        first = len(clean.events) == 1
        return {"answer": {"batchItemFailures": [{"itemIdentifier": r["messageId"]} for r in event["Records"] if first and int(r["body"]) > 1]}}

    clean.do = do
    mapping(queues, "reader", EventSourceArn=QUEUE + "partial", FunctionResponseTypes=["ReportBatchItemFailures"])
    wait_until(lambda: left(sqs, url) == (0, 0), "the queue to be empty")
    seen = bodies(clean.events)
    assert sorted(seen[:4]) == ["0", "1", "2", "3"] and sorted(seen[4:]) == ["2", "3"]


def test_an_answer_that_can_t_be_understood_fails_the_whole_batch(queues, sqs, clean):
    url = make(sqs, "confused", VisibilityTimeout="1")
    clean.do = lambda event: {"answer": {"batchItemFailures": [{"itemIdentifier": "stranger"}]} if len(clean.events) == 1 else {}}
    mapping(queues, "reader", EventSourceArn=QUEUE + "confused", FunctionResponseTypes=["ReportBatchItemFailures"])
    sqs.send_message(QueueUrl=url, MessageBody="x")
    clean.wait(2)
    wait_until(lambda: left(sqs, url) == (0, 0), "the queue to be empty")


def test_what_filters_don_t_want_is_deleted(queues, sqs, clean):
    url = make(sqs, "filtered")
    pattern = json.dumps({"body": {"kind": ["order"], "total": [{"numeric": [">", 10]}]}})
    other = json.dumps({"body": [{"prefix": "plain "}]})
    for body in ('{"kind": "order", "total": 5}', '{"kind": "order", "total": 50}', "plain text", "other text", '{"kind": "x"}'):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    uuid = mapping(queues, "reader", EventSourceArn=QUEUE + "filtered", FilterCriteria={"Filters": [{"Pattern": pattern}, {"Pattern": other}]})
    wait_until(lambda: left(sqs, url) == (0, 0), "the queue to be empty")
    assert sorted(bodies(clean.events)) == ["plain text", '{"kind": "order", "total": 50}']
    # Without filters everything comes again.
    queues.client.update_event_source_mapping(UUID=uuid, FilterCriteria={"Filters": []})
    settle(queues, uuid)
    sqs.send_message(QueueUrl=url, MessageBody="other text")
    wait_until(lambda: bodies(clean.events)[-1] == "other text", "the message")


def test_a_window_gathers_what_comes_within_it(queues, sqs, clean):
    url = make(sqs, "window")
    for place in range(12):
        sqs.send_message(QueueUrl=url, MessageBody=str(place))
    # One batch at a time gathers everything; two pollers would share it.
    settings = {"BatchSize": 100, "MaximumBatchingWindowInSeconds": 2, "ScalingConfig": {"MaximumConcurrency": 2}}
    mapping(queues, "reader", EventSourceArn=QUEUE + "window", **settings)
    wait_until(lambda: len(bodies(clean.events)) == 12, "all messages")
    assert len(clean.events) <= 2 and max(len(event["Records"]) for event in clean.events) > 5
    clean.clear()
    for place in range(3):
        sqs.send_message(QueueUrl=url, MessageBody=str(place))
    wait_until(lambda: len(bodies(clean.events)) == 3, "all messages")


def test_a_window_of_a_second_gathers_more_than_one_call_gives(queues, sqs, clean):
    url = make(sqs, "second")
    for place in range(0, 40, 10):
        sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": str(n)} for n in range(place, place + 10)])
    mapping(queues, "reader", EventSourceArn=QUEUE + "second", BatchSize=40, MaximumBatchingWindowInSeconds=1, ScalingConfig={"MaximumConcurrency": 2})
    wait_until(lambda: len(bodies(clean.events)) == 40, "all messages")
    assert max(len(event["Records"]) for event in clean.events) > 10


def test_what_waits_for_its_window_does_not_come_back_meanwhile(queues, sqs, clean):
    url = make(sqs, "hidden", VisibilityTimeout="1")
    mapping(queues, "reader", EventSourceArn=QUEUE + "hidden", BatchSize=100, MaximumBatchingWindowInSeconds=3)
    sqs.send_message(QueueUrl=url, MessageBody="x")
    clean.wait()
    wait_until(lambda: left(sqs, url) == (0, 0), "the queue to be empty")
    assert len(clean.events) == 1 and clean.events[0]["Records"][0]["attributes"]["ApproximateReceiveCount"] == "1"


def test_a_mapping_that_is_deleted_works_off_what_it_has(queues, sqs, clean):
    url = make(sqs, "deleted")
    queues.client.update_function_configuration(FunctionName="reader", Timeout=30)
    clean.gate.clear()
    uuid = mapping(queues, "reader", EventSourceArn=QUEUE + "deleted")
    sqs.send_message(QueueUrl=url, MessageBody="x")
    wait_until(lambda: clean.running == 1, "the function to run")
    queues.client.delete_event_source_mapping(UUID=uuid)
    clean.gate.set()
    wait_until(lambda: left(sqs, url) == (0, 0), "the message to be deleted")
    assert len(clean.events) == 1
    queues.client.update_function_configuration(FunctionName="reader", Timeout=1)


def test_no_batch_is_larger_than_asked(queues, sqs, clean):
    url = make(sqs, "small")
    for place in range(9):
        sqs.send_message(QueueUrl=url, MessageBody=str(place))
    mapping(queues, "reader", EventSourceArn=QUEUE + "small", BatchSize=2)
    wait_until(lambda: left(sqs, url) == (0, 0), "the queue to be empty")
    assert all(len(event["Records"]) <= 2 for event in clean.events) and sorted(bodies(clean.events)) == [str(place) for place in range(9)]


def test_maximum_concurrency_holds(queues, sqs, clean):
    url = make(sqs, "bounded")
    queues.client.update_function_configuration(FunctionName="reader", Timeout=30)
    clean.gate.clear()
    for place in range(12):
        sqs.send_message(QueueUrl=url, MessageBody=str(place))
    mapping(queues, "reader", EventSourceArn=QUEUE + "bounded", BatchSize=1, ScalingConfig={"MaximumConcurrency": 3})
    wait_until(lambda: clean.running == 3, "three at once")
    assert len(quiet(clean, 0.5)) == 3
    clean.gate.set()
    wait_until(lambda: left(sqs, url) == (0, 0), "the queue to be empty")
    assert clean.most == 3 and len(clean.events) == 12
    queues.client.update_function_configuration(FunctionName="reader", Timeout=1)


def test_a_fifo_queue_keeps_the_order_of_each_group(ordered, sqs, clean):
    url = make(sqs, "ordered.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    mapping(ordered, "reader", EventSourceArn=QUEUE + "ordered.fifo", BatchSize=1)
    for place in range(12):
        sqs.send_message(QueueUrl=url, MessageBody=f"{place % 3}-{place}", MessageGroupId=f"g{place % 3}")
    wait_until(lambda: left(sqs, url) == (0, 0) and len(clean.events) >= 12, "the queue to be empty")
    for group in "012":
        places = [int(body.split("-")[1]) for body in bodies(clean.events) if body.startswith(group)]
        assert places == sorted(places) and len(places) == 4
    attributes = clean.events[0]["Records"][0]["attributes"]
    assert attributes["MessageGroupId"].startswith("g") and attributes["MessageDeduplicationId"]


def test_no_group_of_a_fifo_queue_goes_on_before_what_failed(ordered, sqs, clean):
    url = make(sqs, "stuck.fifo", FifoQueue="true", ContentBasedDeduplication="true", VisibilityTimeout="1")
    failed = threading.Event()

    def do(event):
        if event["Records"][0]["body"] == "a" and not failed.is_set():
            failed.set()
            return {"fail": "once"}

    clean.do = do
    for body in "abc":
        sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId="g")
    mapping(ordered, "reader", EventSourceArn=QUEUE + "stuck.fifo", BatchSize=1)
    wait_until(lambda: left(sqs, url) == (0, 0) and len(clean.events) >= 4, "the queue to be empty")
    assert bodies(clean.events) == ["a", "a", "b", "c"]


def test_a_throttled_batch_is_offered_again_without_a_new_receive(queues, sqs, clean):
    url = make(sqs, "throttled")
    queues.client.put_function_concurrency(FunctionName="reader", ReservedConcurrentExecutions=0)
    mapping(queues, "reader", EventSourceArn=QUEUE + "throttled")
    sqs.send_message(QueueUrl=url, MessageBody="x")
    wait_until(lambda: "0 records filtered" in explain(queues, "reader") and " 0 times throttled" not in explain(queues, "reader"), "a throttle")
    assert clean.events == []
    queues.client.delete_function_concurrency(FunctionName="reader")
    (event,) = clean.wait()
    assert event["Records"][0]["attributes"]["ApproximateReceiveCount"] == "1"
    wait_until(lambda: left(sqs, url) == (0, 0), "the queue to be empty")


def test_a_mapping_is_switched_off_and_on_and_deleted(queues, sqs, clean):
    url = make(sqs, "switched")
    made = queues.client.create_event_source_mapping(FunctionName="reader", EventSourceArn=QUEUE + "switched", Enabled=False)
    assert made["State"] == "Disabled"
    uuid = made["UUID"]
    sqs.send_message(QueueUrl=url, MessageBody="1")
    assert queues.client.update_event_source_mapping(UUID=uuid, Enabled=True)["State"] == "Enabling"
    settle(queues, uuid)
    clean.wait()
    wait_until(lambda: left(sqs, url) == (0, 0), "the queue to be empty")
    assert queues.client.update_event_source_mapping(UUID=uuid, Enabled=False)["State"] == "Disabling"
    settle(queues, uuid, "Disabled")
    sqs.send_message(QueueUrl=url, MessageBody="2")
    assert len(quiet(clean)) == 1 and left(sqs, url) == (1, 0)
    assert queues.client.update_event_source_mapping(UUID=uuid, BatchSize=5)["State"] == "Updating"
    assert queues.client.delete_event_source_mapping(UUID=uuid)["State"] == "Deleting"
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        queues.client.get_event_source_mapping(UUID=uuid)


def test_a_queue_that_is_gone_is_told_of_and_read_again_when_it_is_back(queues, sqs, clean):
    url = make(sqs, "gone")
    uuid = mapping(queues, "reader", EventSourceArn=QUEUE + "gone")
    sqs.delete_queue(QueueUrl=url)
    sqs_refused = lambda: queues.client.get_event_source_mapping(UUID=uuid)["StateTransitionReason"]  # noqa: E731
    wait_until(lambda: "SQS refused" in sqs_refused(), "the reason")
    assert "because SQS refused AmazonSQS." in explain(queues, "reader")
    assert any(f"mapping {uuid} can't be read: SQS refused" in note for note in queues.status()["notes"])
    sqs.send_message(QueueUrl=make(sqs, "gone"), MessageBody="back")
    clean.wait(seconds=90)
    wait_until(lambda: sqs_refused() == "USER_INITIATED", "the reason to go")


def test_managed_instances_and_aliases_are_invoked(queues, sqs, clean):
    url = make(sqs, "managed")
    code = {"app.py": __import__("sources").TELLS}
    queues.deploy("managed", code, Environment={"Variables": {"TELL": clean.url}}, MemorySize=2048, Timeout=5)
    mapping(queues, "managed", EventSourceArn=QUEUE + "managed")
    sqs.send_message(QueueUrl=url, MessageBody="m")
    clean.wait()
    assert clean.versions == ["$LATEST.PUBLISHED"]
    clean.clear()
    version = queues.client.publish_version(FunctionName="reader")["Version"]
    queues.client.create_alias(FunctionName="reader", Name="live", FunctionVersion=version)
    url = make(sqs, "aliased")
    mapping(queues, "reader:live", EventSourceArn=QUEUE + "aliased")
    sqs.send_message(QueueUrl=url, MessageBody="a")
    clean.wait()
    assert clean.versions == [version]
    queues.client.put_provisioned_concurrency_config(FunctionName="reader", Qualifier="live", ProvisionedConcurrentExecutions=1)
    assert "warning" not in explain(queues, "reader")
    make(sqs, "unready")
    mapping(queues, "reader", EventSourceArn=QUEUE + "unready")
    assert "warning: It invokes $LATEST, but provisioned concurrency is on live" in explain(queues, "reader")


def test_a_server_that_dies_loses_nothing(sqs, told):
    told.clear()
    url = make(sqs, "survives", VisibilityTimeout="2")
    server = Server(None, f"--service-endpoint=sqs={sqs.url}")
    try:
        function(server, told, "dies", Timeout=2)
        mapping(server, "dies", EventSourceArn=QUEUE + "survives", BatchSize=1)
        told.gate.clear()
        for place in range(5):
            sqs.send_message(QueueUrl=url, MessageBody=str(place))
        wait_until(lambda: told.running, "the function to run")
        server.kill()
        server.start()
        told.gate.set()
        wait_until(lambda: left(sqs, url) == (0, 0), "the queue to be empty")
        assert set(bodies(told.events)) == {"0", "1", "2", "3", "4"}
    finally:
        server.remove()


def test_without_an_endpoint_a_mapping_says_what_it_lacks(own_server, told):
    function(own_server, told, "alone")
    made = own_server.client.create_event_source_mapping(FunctionName="alone", EventSourceArn=QUEUE + "nowhere")
    settle(own_server, made["UUID"], "Disabled")
    found = own_server.client.get_event_source_mapping(UUID=made["UUID"])
    assert "--service-endpoint sqs=URL" in found["StateTransitionReason"]
