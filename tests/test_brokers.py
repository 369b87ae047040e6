"""Message brokers as event sources: a real RabbitMQ and a real ActiveMQ, real functions."""

import base64
import json
import time

import pytest
from botocore.exceptions import ClientError
from conftest import ACCOUNT, Server, wait_until
from sources import Active, Rabbit, SECRET, TELLS, afresh, broker_mapping, explain, function, quiet, settle, told  # noqa: F401

MAY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["mq:DescribeBroker", "secretsmanager:GetSecretValue"], "Resource": "*"}]}


@pytest.fixture(scope="module")
def rabbit():
    broker = Rabbit()
    yield broker
    broker.remove()


@pytest.fixture(scope="module")
def active():
    broker = Active()
    yield broker
    broker.remove()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "broker").write_text('{"username": "guest", "password": "guest"}')
    (folder / "wrong").write_text('{"username": "guest", "password": "wrong"}')
    return folder


@pytest.fixture(scope="module")
def readers(rabbit, active, secrets, told):
    server = Server(
        None, f"--broker=hare=amqp://127.0.0.1:{rabbit.port}", f"--broker=busy=tcp://127.0.0.1:{active.port}", f"--secrets-dir={secrets}", "--broker=nobody=tcp://127.0.0.1:1"
    )
    server.make_client("iam").put_role_policy(RoleName="r", PolicyName="brokers", PolicyDocument=json.dumps(MAY))
    server.provider("cp")
    function(server, told, "reader")
    yield server
    server.remove()


@pytest.fixture
def clean(readers, told):
    return afresh(readers, told)


@pytest.fixture
def channel(rabbit):
    with rabbit.connection() as connection:
        yield connection.channel()


def data(messages):
    return [base64.b64decode(message["data"]).decode() for message in messages]


def of_rabbit(events, queue):
    return [text for event in events for text in data(event["rmqMessagesByQueue"][queue])]


def of_active(events):
    return [text for event in events for text in data(event["messages"])]


def empty(rabbit, queue):
    rows = [line.split("\t") for line in rabbit.control("-q", "list_queues", "name", "messages").splitlines()]
    return [queue, "0"] in rows


def test_rabbitmq_messages_become_events_and_are_acknowledged(readers, rabbit, channel, clean):
    import pika

    channel.queue_declare("plain")
    headers = {"text": "value1", "number": 10, "flag": True, "nested": {"a": "b"}, "list": [1, "x"]}
    properties = pika.BasicProperties(
        content_type="text/plain", delivery_mode=1, priority=34, expiration="60000", timestamp=2021, headers=headers, message_id="m-1", type="t", app_id="a"
    )
    channel.basic_publish("", "plain", "hello é".encode(), properties)
    channel.basic_publish("", "plain", b"\x00\xff")
    uuid = broker_mapping(readers, "reader", "hare", Queues=["plain"])
    (event,) = clean.wait()
    assert event["eventSource"] == "aws:rmq" and event["eventSourceArn"].endswith(":broker:hare:b-1")
    assert list(event["rmqMessagesByQueue"]) == ["plain::/"]
    first, second = event["rmqMessagesByQueue"]["plain::/"]
    assert first == {
        "basicProperties": {
            "contentType": "text/plain",
            "contentEncoding": None,
            "headers": {"flag": True, "list": [1, {"bytes": [120]}], "nested": {"a": {"bytes": [98]}}, "number": 10, "text": {"bytes": list(b"value1")}},
            "deliveryMode": 1,
            "priority": 34,
            "correlationId": None,
            "replyTo": None,
            "expiration": "60000",
            "messageId": "m-1",
            "timestamp": "Jan 1, 1970, 12:33:41 AM",
            "type": "t",
            "userId": None,
            "appId": "a",
            "clusterId": None,
            "bodySize": 8,
        },
        "redelivered": False,
        "data": base64.b64encode("hello é".encode()).decode(),
    }
    assert second["data"] == "AP8=" and second["basicProperties"]["headers"] is None
    wait_until(lambda: empty(rabbit, "plain"), "the queue to be empty")
    assert readers.client.get_event_source_mapping(UUID=uuid)["LastProcessingResult"] == "OK"


def test_rabbitmq_gives_what_failed_again_in_order(readers, rabbit, channel, clean):
    channel.queue_declare("failing")
    clean.do = lambda event: {"fail": "twice"} if len(clean.events) <= 2 else None
    broker_mapping(readers, "reader", "hare", Queues=["failing"], BatchSize=2)
    for place in range(6):
        channel.basic_publish("", "failing", str(place).encode())
    wait_until(lambda: empty(rabbit, "failing"), "the queue to be empty")
    events = [[(text, message["redelivered"]) for text, message in zip(data(batch), batch)] for batch in (e["rmqMessagesByQueue"]["failing::/"] for e in clean.events)]
    assert events[0][0] == ("0", False) and events[1][0] == ("0", True) and events[2][0] == ("0", True)
    assert [text for batch in events[2:] for text, _ in batch] == [str(place) for place in range(6)]


def test_rabbitmq_has_one_batch_at_a_time_and_activemq_five(readers, rabbit, active, channel, clean):
    channel.queue_declare("bounded")
    readers.client.update_function_configuration(FunctionName="reader", Timeout=60)
    for place in range(6):
        channel.basic_publish("", "bounded", str(place).encode())
    clean.gate.clear()
    uuid = broker_mapping(readers, "reader", "hare", Queues=["bounded"], BatchSize=1)
    wait_until(lambda: clean.running == 1, "a batch")
    assert len(quiet(clean, 0.5)) == 1
    clean.gate.set()
    wait_until(lambda: empty(rabbit, "bounded"), "the queue to be empty")
    assert clean.most == 1 and of_rabbit(clean.events, "bounded::/") == [str(place) for place in range(6)]
    readers.client.delete_event_source_mapping(UUID=uuid)
    clean.clear()
    clean.gate.clear()
    broker_mapping(readers, "reader", "busy", Queues=["bounded"], BatchSize=1)
    # All five have their place before there is anything to read, so that each gets its part.
    wait_until(lambda: "bounded" in explain(readers, "reader"), "the mapping")
    active.send("bounded", *[str(place) for place in range(30)])
    wait_until(lambda: clean.running == 5, "five at once")
    assert len(quiet(clean, 0.5)) == 5
    clean.gate.set()
    wait_until(lambda: len(clean.events) == 30, "all messages")
    assert clean.most == 5 and sorted(of_active(clean.events), key=int) == [str(place) for place in range(30)]
    readers.client.update_function_configuration(FunctionName="reader", Timeout=1)


def test_rabbitmq_virtual_hosts_filters_and_managed_instances(readers, rabbit, clean):
    rabbit.control("add_vhost", "other")
    rabbit.control("set_permissions", "-p", "other", "guest", ".*", ".*", ".*")
    readers.deploy("managed", {"app.py": TELLS}, Environment={"Variables": {"TELL": clean.url}}, Timeout=5)
    with rabbit.connection(virtual_host="other") as connection:
        channel = connection.channel()
        channel.queue_declare("filtered")
        for body in ('{"n": 1}', '{"n": 5}', "text"):
            channel.basic_publish("", "filtered", body.encode())
        criteria = {"Filters": [{"Pattern": json.dumps({"data": {"n": [{"numeric": [">", 3]}]}})}]}
        broker_mapping(readers, "managed", "hare", Queues=["filtered"], access=[{"Type": "VIRTUAL_HOST", "URI": "other"}], FilterCriteria=criteria)
        clean.wait()
        # What was filtered out is done too.
        wait_until(lambda: channel.queue_declare("filtered", passive=True).method.message_count == 0, "the queue to be empty")
    assert of_rabbit(clean.events, "filtered::other") == ['{"n": 5}'] and clean.versions == ["$LATEST.PUBLISHED"]


def test_a_rabbitmq_queue_that_is_deleted_is_told_of_and_read_again_when_it_is_back(readers, rabbit, channel, clean):
    channel.queue_declare("deleted")
    uuid = broker_mapping(readers, "reader", "hare", Queues=["deleted"])
    channel.basic_publish("", "deleted", b"before")
    clean.wait()
    channel.queue_delete("deleted")
    wait_until(lambda: "the queue is gone" in readers.client.get_event_source_mapping(UUID=uuid)["LastProcessingResult"], "the trouble")
    channel.queue_declare("deleted")
    channel.basic_publish("", "deleted", b"after")
    clean.wait(2)
    assert of_rabbit(clean.events, "deleted::/") == ["before", "after"]


def test_rabbitmq_is_read_again_after_it_was_gone(readers, rabbit, clean):
    with rabbit.connection() as connection:
        connection.channel().queue_declare("lasting", durable=True)
    uuid = broker_mapping(readers, "reader", "hare", Queues=["lasting"])
    rabbit.stop()

    def result():
        return readers.client.get_event_source_mapping(UUID=uuid)

    wait_until(lambda: result()["LastProcessingResult"].startswith("PROBLEM: The broker at 127.0.0.1"), "the trouble")
    assert "because The broker at" in explain(readers, "reader")
    rabbit.start()
    with rabbit.connection() as connection:
        connection.channel().basic_publish("", "lasting", b"back")
    clean.wait(seconds=60)
    assert of_rabbit(clean.events, "lasting::/") == ["back"]
    wait_until(lambda: result()["StateTransitionReason"] == "USER_INITIATED", "the trouble to be over")


def test_activemq_messages_become_events_and_are_acknowledged(readers, active, clean):
    active.send("plain", "hello é😀", **{"correlation-id": "c-1", "reply-to": "/queue/answers", "type": "t", "persistent": "true", "priority": "7", "index": "1", "flag": "false"})
    active.send("plain", b"\x00\xff")
    before = time.time() * 1000 + 60_000
    uuid = broker_mapping(readers, "reader", "busy", Queues=["plain"])
    wait_until(lambda: sum(len(event["messages"]) for event in clean.events) == 2, "both messages")
    text, raw = sorted((message for event in clean.events for message in event["messages"]), key=lambda message: message["messageType"], reverse=True)
    assert clean.events[0]["eventSource"] == "aws:mq" and clean.events[0]["eventSourceArn"].endswith(":broker:busy:b-1")
    assert text.pop("messageID").startswith("ID:")
    times = [text.pop(name) for name in ("timestamp", "brokerInTime", "brokerOutTime")]
    assert all(before - 120_000 < at < before for at in times), times
    assert text == {
        "messageType": "jms/text-message",
        "deliveryMode": 2,
        "correlationID": "c-1",
        "replyTo": "queue://answers",
        "destination": {"physicalName": "plain"},
        "redelivered": False,
        "type": "t",
        "expiration": 0,
        "priority": 7,
        "data": base64.b64encode("hello é😀".encode()).decode(),
        "properties": text["properties"],
    }
    assert text["properties"].items() >= {"index": "1", "flag": "false"}.items()
    assert (raw["messageType"], raw["data"], raw["deliveryMode"], raw["replyTo"]) == ("jms/bytes-message", "AP8=", 1, "null")
    assert readers.client.get_event_source_mapping(UUID=uuid)["LastProcessingResult"] == "OK"


def test_activemq_offers_what_failed_five_times_more_and_gives_it_to_the_dead_letters(readers, active, clean):
    clean.do = lambda event: {"fail": "always"} if "poison" in of_active([event]) else None
    broker_mapping(readers, "reader", "busy", Queues=["failing"], BatchSize=1)
    active.send("failing", "poison", "good", persistent="true")
    wait_until(lambda: len(clean.events) == 7, "six tries and the good one")
    flags = [event["messages"][0]["redelivered"] for event in clean.events if of_active([event]) == ["poison"]]
    assert flags == [False] + [True] * 5
    headers, body = active.receive("ActiveMQ.DLQ")
    assert body == b"poison" and headers["original-destination"].endswith("failing")


def test_activemq_is_read_again_after_it_was_gone(readers, active, clean):
    uuid = broker_mapping(readers, "reader", "busy", Queues=["lasting"])
    active.stop()

    def result():
        return readers.client.get_event_source_mapping(UUID=uuid)

    wait_until(lambda: result()["LastProcessingResult"].startswith("PROBLEM: The broker at 127.0.0.1"), "the trouble")
    active.start()
    active.send("lasting", "back", persistent="true")
    clean.wait(seconds=60)
    assert of_active(clean.events) == ["back"]
    wait_until(lambda: result()["StateTransitionReason"] == "USER_INITIATED", "the trouble to be over")


def test_a_killed_server_leaves_messages_to_the_brokers(rabbit, active, secrets, told):
    told.clear()
    flags = [f"--broker=hare=amqp://127.0.0.1:{rabbit.port}", f"--broker=busy=tcp://127.0.0.1:{active.port}", f"--secrets-dir={secrets}"]
    server = Server(None, *flags)
    try:
        server.make_client("iam").put_role_policy(RoleName="r", PolicyName="brokers", PolicyDocument=json.dumps(MAY))
        function(server, told, "dies", Timeout=10)
        with rabbit.connection() as connection:
            channel = connection.channel()
            channel.queue_declare("survives")
            broker_mapping(server, "dies", "hare", Queues=["survives"], BatchSize=1)
            broker_mapping(server, "dies", "busy", Queues=["survives"], BatchSize=1)
            told.gate.clear()
            for place in range(3):
                channel.basic_publish("", "survives", f"hare {place}".encode())
            active.send("survives", *[f"busy {place}" for place in range(3)], persistent="true")
        wait_until(lambda: told.running >= 2, "functions to run")
        server.kill()
        server.start()
        told.gate.set()

        def seen():
            hare = of_rabbit([event for event in told.events if "rmqMessagesByQueue" in event], "survives::/")
            busy = of_active([event for event in told.events if "messages" in event])
            return {*hare, *busy} == {f"{broker} {place}" for broker in ("hare", "busy") for place in range(3)}

        wait_until(seen, "every message", 90)
        wait_until(lambda: empty(rabbit, "survives"), "the queue to be empty")
    finally:
        server.remove()


@pytest.mark.parametrize(
    ("broker", "queue", "secret", "says"),
    [
        ("hare", "plain", "wrong", "The broker at 127.0.0.1"),
        ("hare", "no-such-queue", "broker", "The broker at 127.0.0.1"),
        ("busy", "plain", "wrong", "User name [guest] or password is invalid."),
        ("busy", "plain", "missing", "EVENT_SOURCE_AUTHN_ERROR: The secret"),
        ("nobody", "plain", "broker", "Connection refused"),
    ],
)
def test_what_keeps_a_broker_from_being_read_is_told(readers, clean, broker, queue, secret, says):
    access = [{"Type": "BASIC_AUTH", "URI": SECRET.replace("broker-", f"{secret}-")}]
    arn = f"arn:aws:mq:us-east-1:{ACCOUNT}:broker:{broker}:b-1"
    uuid = readers.client.create_event_source_mapping(FunctionName="reader", EventSourceArn=arn, Queues=[queue], SourceAccessConfigurations=access)["UUID"]
    reason = wait_until(lambda: (r := readers.client.get_event_source_mapping(UUID=uuid)["StateTransitionReason"]) != "USER_INITIATED" and r, "the reason", 30)
    assert says in reason and "guest guest" not in reason, reason
    assert readers.client.get_event_source_mapping(UUID=uuid)["LastProcessingResult"] == f"PROBLEM: {reason}"


def test_a_broker_mapping_is_checked_when_it_is_made(readers, clean):
    arn = f"arn:aws:mq:us-east-1:{ACCOUNT}:broker:unknown:b-1"
    access = [{"Type": "BASIC_AUTH", "URI": SECRET}]
    with pytest.raises(ClientError, match="exactly one queue"):
        readers.client.create_event_source_mapping(FunctionName="reader", EventSourceArn=arn, SourceAccessConfigurations=access)
    with pytest.raises(ClientError, match="BASIC_AUTH"):
        readers.client.create_event_source_mapping(FunctionName="reader", EventSourceArn=arn, Queues=["q"])
    with pytest.raises(ClientError, match="functionResponseTypes"):
        partial = {"FunctionResponseTypes": ["ReportBatchItemFailures"]}
        readers.client.create_event_source_mapping(FunctionName="reader", EventSourceArn=arn, Queues=["q"], SourceAccessConfigurations=access, **partial)
    made = readers.client.create_event_source_mapping(FunctionName="reader", EventSourceArn=arn, Queues=["q"], SourceAccessConfigurations=access)
    settle(readers, made["UUID"], "Disabled")
    assert "--broker unknown=amqp://" in readers.client.get_event_source_mapping(UUID=made["UUID"])["StateTransitionReason"]
