"""Self-managed Kafka as an event source: a broker that speaks its protocol, a client that is not ours, real functions."""

import base64
import json
import time

import pytest
from botocore.exceptions import ClientError
from conftest import ACCOUNT, Server, wait_until
from sources import Kafka, afresh, explain, function, kafka_mapping, settle, told  # noqa: F401


@pytest.fixture(scope="module")
def kafka():
    broker = Kafka()
    yield broker
    broker.remove()


@pytest.fixture(scope="module")
def readers(told):
    server = Server()
    function(server, told, "reader")
    yield server
    server.remove()


@pytest.fixture
def clean(readers, told):
    return afresh(readers, told)


def values(events):
    return [base64.b64decode(record["value"]).decode() for event in events for records in event["records"].values() for record in records]


def test_records_become_events_and_are_committed(readers, kafka, clean):
    kafka.topic("plain")
    with kafka.producer() as producer:
        producer.send("plain", key=b"k", value="hello é".encode(), headers=[("h", b"\x01\xff")], timestamp_ms=1545084650987)
        producer.send("plain", value=b"second")
    uuid = kafka_mapping(readers, "reader", kafka.servers, "plain", StartingPosition="TRIM_HORIZON")
    (event,) = clean.wait()
    assert (event["eventSource"], event["bootstrapServers"], list(event["records"])) == ("aws:SelfManagedKafka", kafka.servers, ["plain-0"])
    first, second = event["records"]["plain-0"]
    assert first == {
        "topic": "plain",
        "partition": 0,
        "offset": 0,
        "timestamp": 1545084650987,
        "timestampType": "CREATE_TIME",
        "key": base64.b64encode(b"k").decode(),
        "value": base64.b64encode("hello é".encode()).decode(),
        "headers": [{"h": [1, -1]}],
    }
    assert (second["offset"], second["key"], second["headers"]) == (1, None, [])
    wait_until(lambda: kafka.committed(uuid, "plain") == 2, "the offset to be committed")
    found = readers.client.get_event_source_mapping(UUID=uuid)
    assert found["LastProcessingResult"] == "OK" and found["SelfManagedKafkaEventSourceConfig"]["ConsumerGroupId"] == uuid


@pytest.mark.parametrize("compression", ["gzip"])
def test_what_is_packed_is_read(readers, kafka, clean, compression):
    kafka.topic(compression)
    with kafka.producer(compression_type=compression) as producer:
        for place in range(20):
            producer.send(compression, value=str(place).encode())
    kafka_mapping(readers, "reader", kafka.servers, compression, StartingPosition="TRIM_HORIZON", BatchSize=7)
    wait_until(lambda: len(values(clean.events)) == 20, "all records")
    assert values(clean.events) == [str(place) for place in range(20)]
    assert all(len(records) <= 7 for event in clean.events for records in event["records"].values())


def test_each_partition_keeps_its_order_and_what_failed_is_tried_until_it_succeeds(readers, kafka, clean):
    kafka.topic("parts", 3)
    fails = {"1-0": 2}

    def do(event):
        (records,) = event["records"].values()
        name = base64.b64decode(records[0]["value"]).decode()
        if fails.get(name):
            fails[name] -= 1
            return {"fail": "again"}

    clean.do = do
    kafka_mapping(readers, "reader", kafka.servers, "parts", StartingPosition="TRIM_HORIZON", BatchSize=1)
    with kafka.producer() as producer:
        for place in range(12):
            producer.send("parts", value=f"{place % 3}-{place // 3}".encode(), partition=place % 3)
    wait_until(lambda: len(values(clean.events)) == 14, "all records and two more tries")
    for part in "012":
        seen = [value for value in values(clean.events) if value.startswith(part)]
        assert seen == (["1-0"] * 2 if part == "1" else []) + [f"{part}-{place}" for place in range(4)]


def test_where_reading_begins_and_goes_on(readers, kafka, clean):
    kafka.topic("places")
    with kafka.producer() as producer:
        producer.send("places", value=b"old").get(30)
        # This broker looks for moments among those of arrival, and says a batch of two ends after its first.
        time.sleep(0.05)
        between = time.time()
        producer.send("places", value=b"young").get(30)
    group = {"SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": "latest"}}
    latest = kafka_mapping(readers, "reader", kafka.servers, "places", StartingPosition="LATEST", **group)
    wait_until(lambda: kafka.committed("latest", "places") == 2, "the first offset")
    with kafka.producer() as producer:
        producer.send("places", value=b"new")
    clean.wait()
    assert values(clean.events) == ["new"]
    wait_until(lambda: kafka.committed("latest", "places") == 3, "the offset")
    # A group that has been there goes on where it stopped, whatever the mapping says.
    readers.client.delete_event_source_mapping(UUID=latest)
    with kafka.producer() as producer:
        producer.send("places", value=b"later")
    clean.clear()
    again = kafka_mapping(readers, "reader", kafka.servers, "places", StartingPosition="TRIM_HORIZON", **group)
    clean.wait()
    assert values(clean.events) == ["later"]
    readers.client.delete_event_source_mapping(UUID=again)
    clean.clear()
    kafka_mapping(readers, "reader", kafka.servers, "places", StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=between)
    wait_until(lambda: len(values(clean.events)) == 3, "the records since then")
    assert values(clean.events) == ["young", "new", "later"]


def test_a_long_backlog_is_read_whole(readers, kafka, clean):
    kafka.topic("long")
    with kafka.producer() as producer:
        for place in range(120):
            producer.send("long", value=f"{place:03}".encode() * 33_000)
    uuid = kafka_mapping(readers, "reader", kafka.servers, "long", StartingPosition="TRIM_HORIZON")
    wait_until(lambda: kafka.committed(uuid, "long") == 120, "the offset")
    # Batches end where a payload is full.
    assert [value[:3] for value in values(clean.events)] == [f"{place:03}" for place in range(120)] and len(clean.events) > 2


def test_two_mappings_can_t_keep_their_place_in_one_group(readers, kafka, clean):
    kafka.topic("shared")
    group = {"SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": "ours"}}
    kafka_mapping(readers, "reader", kafka.servers, "shared", StartingPosition="LATEST", **group)
    function(readers, clean, "other")
    with pytest.raises(ClientError, match="two readers would lose each other's place"):
        kafka_mapping(readers, "other", kafka.servers, "shared", StartingPosition="LATEST", **group)


def test_what_filters_don_t_want_is_committed_too(readers, kafka, clean):
    kafka.topic("filtered")
    with kafka.producer() as producer:
        for body in ('{"n": 5}', "text", '{"n": 1}'):
            producer.send("filtered", value=body.encode())
    criteria = {"Filters": [{"Pattern": json.dumps({"value": {"n": [{"numeric": [">", 3]}]}})}]}
    uuid = kafka_mapping(readers, "reader", kafka.servers, "filtered", StartingPosition="TRIM_HORIZON", FilterCriteria=criteria)
    wait_until(lambda: kafka.committed(uuid, "filtered") == 3, "the offset")
    assert values(clean.events) == ['{"n": 5}']


def test_a_killed_server_reads_on_where_nothing_was_answered(kafka, told):
    told.clear()
    kafka.topic("survives")
    server = Server()
    try:
        function(server, told, "dies", Timeout=10)
        uuid = kafka_mapping(server, "dies", kafka.servers, "survives", StartingPosition="TRIM_HORIZON", BatchSize=1)
        with kafka.producer() as producer:
            for place in range(4):
                producer.send("survives", value=str(place).encode())
        told.do = lambda event: told.gate.clear() if values([event]) == ["1"] else None
        wait_until(lambda: len(told.events) == 3 and told.running, "the third to run")
        server.kill()
        told.gate.set()
        told.do = lambda event: None
        server.start()
        wait_until(lambda: kafka.committed(uuid, "survives") == 4, "the offset")
        seen = values(told.events)
        assert list(dict.fromkeys(seen)) == ["0", "1", "2", "3"] and seen.count("0") == seen.count("3") == 1
    finally:
        server.remove()


def test_what_keeps_kafka_from_being_read_is_told(readers, kafka, clean):
    def reason(uuid):
        return readers.client.get_event_source_mapping(UUID=uuid)["StateTransitionReason"]

    missing = kafka_mapping(readers, "reader", "127.0.0.1:1", "plain", StartingPosition="LATEST")
    wait_until(lambda: "A Kafka broker can't be asked: 127.0.0.1:1" in reason(missing), "the reason")
    assert "Connection refused" in explain(readers, "reader")
    settings = {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [kafka.servers]}}, "Topics": ["other"], "StartingPosition": "LATEST"}
    access = [{"Type": "SASL_SCRAM_512_AUTH", "URI": f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:x-AbCdEf"}]
    made = readers.client.create_event_source_mapping(FunctionName="reader", SourceAccessConfigurations=access, **settings)
    settle(readers, made["UUID"], "Disabled")
    assert "doesn't act on SASL_SCRAM_512_AUTH" in reason(made["UUID"])
