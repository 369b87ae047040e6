"""Asynchronous invocations: on disk before they are acknowledged, tried again by AWS's rules, and ended once."""

import json
import subprocess
import time

import pytest
from botocore.exceptions import ClientError
from conftest import ACCOUNT, BIN, ROLE, Server, wait_until, zip_of
from stubs import stub

# Fails as often as the event says, by request id; tells what it saw in its answer.
CODE = """
import os
seen = {}
def handler(event, context):
    tries = seen[context.aws_request_id] = seen.get(context.aws_request_id, 0) + 1
    print("event", event.get("tag"), "try", tries)
    if tries <= event.get("fail", 0):
        raise ValueError(f"try {tries} of {event.get('tag')}")
    return {"tag": event.get("tag"), "tries": tries, "version": os.environ["AWS_LAMBDA_FUNCTION_VERSION"]}
"""
ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:"


class Services:
    """SQS, SNS, EventBridge and S3 as far as destinations ask them."""

    def __init__(self):
        self.messages, self.published, self.entries, self.objects = [], [], [], []
        self.broken = False

    def answer(self, request):
        if self.broken:
            return 500, "application/json", b'{"__type": "InternalFailure", "message": "not today"}'
        target = request["headers"].get("x-amz-target", "")
        if target == "AmazonSQS.GetQueueUrl":
            return self.json({"QueueUrl": "http://queue/" + json.loads(request["body"])["QueueName"]})
        if target == "AmazonSQS.SendMessage":
            self.messages.append(json.loads(request["body"]))
            return self.json({"MessageId": "1"})
        if target == "AWSEvents.PutEvents":
            self.entries += json.loads(request["body"])["Entries"]
            return self.json({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
        if request["method"] == "PUT":
            self.objects.append((request["path"], request["body"]))
            return 200, "application/xml", b""
        from urllib.parse import parse_qs

        self.published.append({name: values[0] for name, values in parse_qs(request["body"].decode()).items()})
        return 200, "application/xml", b"<PublishResponse/>"

    @staticmethod
    def json(value):
        return 200, "application/x-amz-json-1.0", json.dumps(value).encode()


@pytest.fixture(scope="module")
def services():
    place = Services()
    with stub(place.answer) as door:
        place.url = door.url
        yield place


@pytest.fixture(scope="module")
def events_server(services):
    """A server whose minutes are seconds."""
    endpoints = ",".join(f"{name}={services.url}" for name in ("sqs", "sns", "events", "s3"))
    server = Server(None, "--time-scale", "60", "--service-endpoint", endpoints)
    server.provider("cp")
    grant = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["sqs:*", "sns:*", "events:*", "s3:*", "lambda:*"], "Resource": "*"}]}
    server.make_client("iam").put_role_policy(RoleName="r", PolicyName="destinations", PolicyDocument=json.dumps(grant))
    yield server
    server.remove()


@pytest.fixture
def clean(services):
    for kept in (services.messages, services.published, services.entries, services.objects):
        kept.clear()
    services.broken = False
    return services


def on_demand(server, name, code=CODE, **settings):
    settings = {"Runtime": "python3.13", "Handler": "app.handler", "Role": ROLE, "Code": {"ZipFile": zip_of({"app.py": code})}} | settings
    return server.client.create_function(FunctionName=name, **settings)


def send(server, name, payload, **settings):
    answer = server.client.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps(payload), **settings)
    assert answer["StatusCode"] == 202 and answer["Payload"].read() == b""
    return answer["ResponseMetadata"]["RequestId"]


def queue(server, name=None):
    words = [BIN, "queue", "--json", "--port", str(server.port)] + ([name] if name else [])
    page = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return page if name is None else (next((f for f in page["functions"] if f["function"] == name), None), page["events"])


def ended(server, name, seconds=60):
    """The books of a function once nothing of it is queued."""

    def over():
        books, _ = queue(server, name)
        return books if books and books["queued"] == 0 else None

    books = wait_until(over, f"the events of {name} to end", seconds)
    assert books["accepted"] == sum(books[how] for how in ("succeeded", "delivered", "discarded", "undeliverable"))
    return books


def lines(server, name):
    out = subprocess.run([BIN, "logs", name, "--json", "--since", "1h", "--port", str(server.port)], capture_output=True, text=True, check=True).stdout
    return out


def test_an_event_runs_with_the_id_it_was_acknowledged_with(events_server, clean):
    on_demand(events_server, "once")
    request = send(events_server, "once", {"tag": "a"})
    assert ended(events_server, "once") | {"oldestAgeSeconds": None} == {
        "function": "once", "queued": 0, "running": 0, "retrying": 0, "outgoing": 0, "payloadBytes": 0, "oldestAgeSeconds": None,
        "accepted": 1, "succeeded": 1, "delivered": 0, "discarded": 0, "undeliverable": 0,
    }  # fmt: skip
    assert f"START RequestId: {request}" in lines(events_server, "once")


def test_the_acknowledgement_is_as_on_aws(events_server, clean):
    on_demand(events_server, "answer")
    answer = events_server.client.invoke(FunctionName="answer", InvocationType="Event", LogType="Tail", ClientContext="not base64!", Payload=b"{}")
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert answer["StatusCode"] == 202
    assert "x-amz-executed-version" not in headers and "x-amz-log-result" not in headers and "content-type" not in headers
    assert ended(events_server, "answer")["succeeded"] == 1


def test_errors_are_retried_twice_and_then_the_record_goes_out(events_server, clean):
    on_demand(events_server, "fails", DeadLetterConfig={"TargetArn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:dead"})
    target = f"arn:aws:sqs:us-east-1:{ACCOUNT}:failed"
    events_server.client.put_function_event_invoke_config(FunctionName="fails", DestinationConfig={"OnFailure": {"Destination": target}})
    started = time.monotonic()
    request = send(events_server, "fails", {"tag": "b", "fail": 3})
    books = ended(events_server, "fails")
    # One and two minutes, sixty times as fast.
    assert time.monotonic() - started >= 3
    assert (books["delivered"], books["succeeded"]) == (1, 0)
    record, letter = sorted(clean.messages, key=lambda message: message["QueueUrl"], reverse=True)
    assert letter["MessageBody"] == '{"tag": "b", "fail": 3}'
    attributes = {name: (value["DataType"], value["StringValue"]) for name, value in letter["MessageAttributes"].items()}
    assert attributes == {"RequestID": ("String", request), "ErrorCode": ("Number", "200"), "ErrorMessage": ("String", "try 3 of b")}
    body = json.loads(record["MessageBody"])
    assert record["MessageBody"].startswith('{"version":"1.0","timestamp":"') and '"requestPayload":{"tag": "b", "fail": 3},' in record["MessageBody"]
    assert body["requestContext"] == {"requestId": request, "functionArn": ARN + "fails:$LATEST", "condition": "RetriesExhausted", "approximateInvokeCount": 3}
    assert body["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    assert body["responsePayload"]["errorMessage"] == "try 3 of b"


def test_an_error_that_passes_is_a_success(events_server, clean):
    on_demand(events_server, "passes")
    arn = f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/bus"
    events_server.client.put_function_event_invoke_config(FunctionName="passes", DestinationConfig={"OnSuccess": {"Destination": arn}})
    send(events_server, "passes", {"tag": "c", "fail": 1})
    assert ended(events_server, "passes")["succeeded"] == 1
    (entry,) = clean.entries
    assert (entry["Source"], entry["DetailType"]) == ("lambda", "Lambda Function Invocation Result - Success")
    assert entry["Resources"] == [arn, ARN + "passes:$LATEST"] and entry["EventBusName"] == arn
    detail = json.loads(entry["Detail"])
    assert detail["responsePayload"] == {"tag": "c", "tries": 2, "version": "$LATEST"}
    assert detail["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}


def test_nothing_is_an_empty_object_for_a_dead_letter_too(events_server, clean):
    code = "def handler(event, context):\n    raise ValueError(str(event))\n"
    on_demand(events_server, "nothing", code=code, DeadLetterConfig={"TargetArn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:dead"})
    events_server.client.put_function_event_invoke_config(FunctionName="nothing", MaximumRetryAttempts=0)
    events_server.client.invoke(FunctionName="nothing", InvocationType="Event")
    assert ended(events_server, "nothing")["delivered"] == 1
    (letter,) = clean.messages
    assert letter["MessageBody"] == "{}" and letter["MessageAttributes"]["ErrorMessage"]["StringValue"] == "{}"


def test_failures_go_to_buckets_and_dead_letters_to_topics(events_server, clean):
    on_demand(events_server, "bucket", DeadLetterConfig={"TargetArn": f"arn:aws:sns:us-east-1:{ACCOUNT}:dead"})
    config = {"OnFailure": {"Destination": "arn:aws:s3:::kept"}}
    events_server.client.put_function_event_invoke_config(FunctionName="bucket", MaximumRetryAttempts=0, DestinationConfig=config)
    request = send(events_server, "bucket", {"tag": "d", "fail": 9})
    assert ended(events_server, "bucket")["delivered"] == 1
    ((path, body),) = clean.objects
    record = json.loads(body)
    day, clock = record["timestamp"][:10], record["timestamp"][11:19].replace(":", ".")
    assert path == f"/kept/aws/lambda/async/bucket/{day.replace('-', '/')}/{day}T{clock}-{request}"
    (letter,) = clean.published
    assert (letter["Action"], letter["Message"]) == ("Publish", '{"tag": "d", "fail": 9}')
    assert letter["MessageAttributes.entry.1.Name"] == "RequestID" and letter["MessageAttributes.entry.1.Value.StringValue"] == request


def test_a_destination_that_takes_nothing_keeps_its_outcome_and_nobody_elses(events_server, clean):
    on_demand(events_server, "stuck")
    on_demand(events_server, "free")
    for name in ("stuck", "free"):
        config = {"OnSuccess": {"Destination": f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"}} if name == "stuck" else {}
        events_server.client.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=0, DestinationConfig=config)
    clean.broken = True
    send(events_server, "stuck", {"tag": "e"})
    kept = wait_until(lambda: [event for event in queue(events_server, "stuck")[1] if event["why"]], "a failed delivery")
    assert "sqs refused (500 InternalFailure): not today" in kept[0]["why"]
    send(events_server, "free", {"tag": "f"})
    assert ended(events_server, "free")["succeeded"] == 1
    clean.broken = False
    assert ended(events_server, "stuck")["succeeded"] == 1
    assert len(clean.messages) == 1


def test_outcomes_go_to_functions_and_loops_end(events_server, clean):
    on_demand(events_server, "ping")
    on_demand(events_server, "pong")
    for name, other in (("ping", "pong"), ("pong", "ping")):
        events_server.client.put_function_event_invoke_config(FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": ARN + other}})
    send(events_server, "ping", {"tag": "g"})
    # The queue of one is empty while the other runs, so nothing but the cut says that the chain is over.
    wait_until(lambda: any(f["discarded"] for f in queue(events_server)["functions"] if f["function"] == "ping"), "the chain to be cut")
    ping, pong = ended(events_server, "ping"), ended(events_server, "pong")
    assert (ping["succeeded"], ping["discarded"]) == (16, 1) and (pong["succeeded"], pong["discarded"]) == (16, 0)


def test_each_qualifier_has_its_own_settings_and_version(events_server, clean):
    client = events_server.client
    on_demand(events_server, "alias", Publish=True)
    client.create_alias(FunctionName="alias", Name="live", FunctionVersion="1")
    config = {"OnSuccess": {"Destination": f"arn:aws:sqs:us-east-1:{ACCOUNT}:ok"}}
    client.put_function_event_invoke_config(FunctionName="alias", Qualifier="live", DestinationConfig=config)
    send(events_server, "alias", {"tag": "h"})
    send(events_server, "alias", {"tag": "i"}, Qualifier="live")
    assert ended(events_server, "alias")["succeeded"] == 2
    (message,) = clean.messages
    record = json.loads(message["MessageBody"])
    assert record["requestContext"]["functionArn"] == ARN + "alias:live"
    assert record["responseContext"]["executedVersion"] == "1" and record["responsePayload"]["version"] == "1"


def test_managed_instances_take_events_as_fast_as_they_can_and_no_faster(events_server, clean):
    events_server.deploy("lmi", {"app.py": CODE}, concurrency=4)
    for number in range(200):
        send(events_server, "lmi", {"tag": number})
    books = ended(events_server, "lmi")
    assert books["succeeded"] == 200
    # What it can't take is found out a few times, not for every event.
    throttles = sum(events_server.version_status("lmi")["throttles"].values())
    assert throttles < 60, throttles


def test_reserved_concurrency_of_zero_ends_an_event_at_once(events_server, clean):
    on_demand(events_server, "closed", DeadLetterConfig={"TargetArn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:dead"})
    events_server.client.put_function_concurrency(FunctionName="closed", ReservedConcurrentExecutions=0)
    config = {"OnFailure": {"Destination": f"arn:aws:sqs:us-east-1:{ACCOUNT}:failed"}}
    events_server.client.put_function_event_invoke_config(FunctionName="closed", DestinationConfig=config)
    request = send(events_server, "closed", {"tag": "j"})
    assert ended(events_server, "closed")["delivered"] == 1
    record, letter = sorted(clean.messages, key=lambda message: message["QueueUrl"], reverse=True)
    body = json.loads(record["MessageBody"])
    assert body["requestContext"]["condition"] == "ZeroReservedConcurrency" and body["requestContext"]["approximateInvokeCount"] == 0
    assert "responseContext" not in body and "responsePayload" not in body
    assert set(letter["MessageAttributes"]) == {"RequestID", "ErrorMessage"} and letter["MessageAttributes"]["RequestID"]["StringValue"] == request


def test_an_event_nobody_takes_ends_when_it_is_too_old(events_server, clean):
    on_demand(events_server, "old", code="import time\ndef handler(event, context):\n    time.sleep(event['wait'])\n", Timeout=30)
    client = events_server.client
    client.put_function_concurrency(FunctionName="old", ReservedConcurrentExecutions=1)
    config = {"OnFailure": {"Destination": f"arn:aws:sqs:us-east-1:{ACCOUNT}:failed"}}
    client.put_function_event_invoke_config(FunctionName="old", MaximumEventAgeInSeconds=120, DestinationConfig=config)
    send(events_server, "old", {"wait": 4})
    wait_until(lambda: queue(events_server, "old")[0]["running"] == 1, "the first to run")
    wait_until(lambda: [v for v in events_server.status()["onDemand"] if v["function"] == "old" and any(e["inFlight"] for e in v["executionEnvironments"])], "it to be in flight")
    late = send(events_server, "old", {"wait": 0})
    books = ended(events_server, "old")
    assert (books["succeeded"], books["delivered"]) == (1, 1)
    (message,) = clean.messages
    record = json.loads(message["MessageBody"])
    assert record["requestContext"] == {"requestId": late, "functionArn": ARN + "old:$LATEST", "condition": "EventAgeExceeded", "approximateInvokeCount": 0}
    assert record["responseContext"] == {"statusCode": 429} and "responsePayload" not in record


def test_what_the_role_may_not_do_is_not_done(events_server, clean):
    iam = events_server.make_client("iam")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    role = iam.create_role(RoleName="none", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    on_demand(events_server, "forbidden", Role=ROLE)
    config = {"OnSuccess": {"Destination": f"arn:aws:sqs:us-east-1:{ACCOUNT}:ok"}}
    events_server.client.put_function_event_invoke_config(FunctionName="forbidden", DestinationConfig=config)
    events_server.client.update_function_configuration(FunctionName="forbidden", Role=role)
    send(events_server, "forbidden", {"tag": "k"})
    kept = wait_until(lambda: [event for event in queue(events_server, "forbidden")[1] if event["why"]], "a refused delivery")
    assert f"{role} isn't allowed sqs:SendMessage" in kept[0]["why"] and clean.messages == []
    # Another function's outcomes reach the same queue all the same.
    on_demand(events_server, "allowed")
    events_server.client.put_function_event_invoke_config(FunctionName="allowed", DestinationConfig=config)
    send(events_server, "allowed", {"tag": "l"})
    assert ended(events_server, "allowed")["succeeded"] == 1 and len(clean.messages) == 1
    events_server.client.update_function_configuration(FunctionName="forbidden", Role=ROLE)
    assert ended(events_server, "forbidden")["succeeded"] == 1
    # What the role may not do is not asked for in the first place.
    events_server.client.update_function_configuration(FunctionName="forbidden", Role=role)
    bucket = {"OnFailure": {"Destination": "arn:aws:s3:::kept"}}
    for asked, call in ((config, "SendMessage on arn:aws:sqs"), (bucket, "PutObject on arn:aws:s3:::kept")):
        with pytest.raises(ClientError, match=f"InvalidParameterValueException.*execution role {role} does not have permissions to call {call}"):
            events_server.client.put_function_event_invoke_config(FunctionName="forbidden", DestinationConfig=asked)
    only = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::kept/aws/lambda/async/forbidden/*"}]}
    iam.put_role_policy(RoleName="none", PolicyName="bucket", PolicyDocument=json.dumps(only))
    events_server.client.put_function_event_invoke_config(FunctionName="forbidden", DestinationConfig=bucket)


@pytest.mark.parametrize("size, limit", [(1048576, None), (1048577, 1048576)])
def test_an_event_may_have_a_mebibyte(events_server, clean, size, limit):
    if not limit:
        on_demand(events_server, "large")
    payload = json.dumps({"tag": "x" * (size - len(json.dumps({"tag": ""})))})
    assert len(payload) == size
    if not limit:
        events_server.client.invoke(FunctionName="large", InvocationType="Event", Payload=payload)
        assert ended(events_server, "large")["succeeded"] == 1
        return
    with pytest.raises(ClientError) as refused:
        events_server.client.invoke(FunctionName="large", InvocationType="Event", Payload=payload)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert refused.value.response["Error"] == {"Code": "RequestEntityTooLargeException", "Message": f"{size} byte payload is too large for the Event invocation type (limit {limit} bytes)"}


def test_the_old_operation_takes_less(events_server, clean):
    on_demand(events_server, "oldest")
    assert events_server.client.invoke_async(FunctionName="oldest", InvokeArgs=b'{"tag": 1}')["Status"] == 202
    with pytest.raises(ClientError) as refused:
        events_server.client.invoke_async(FunctionName="oldest", InvokeArgs=b'"' + b"x" * 262151 + b'"')
    assert refused.value.response["Error"]["Message"] == "262153 byte payload is too large for the Event invocation type (limit 262144 bytes)"
    assert ended(events_server, "oldest")["accepted"] == 1


def test_what_cannot_run_is_refused_and_not_queued(events_server, clean):
    on_demand(events_server, "refuses")
    client = events_server.client
    for settings, code in [
        ({"FunctionName": "nobody"}, "ResourceNotFoundException"),
        ({"FunctionName": "refuses", "Qualifier": "7"}, "ResourceNotFoundException"),
        ({"FunctionName": "refuses", "Payload": b"{"}, "InvalidRequestContentException"),
    ]:
        with pytest.raises(ClientError) as refused:
            client.invoke(InvocationType="Event", **settings)
        assert refused.value.response["Error"]["Code"] == code
    assert queue(events_server, "refuses")[0] is None


def test_a_full_queue_refuses_and_says_so():
    server = Server(None, "--quota", "queued-events=2")
    try:
        on_demand(server, "full", code="import time\ndef handler(event, context):\n    time.sleep(60)\n", Timeout=60)
        for number in range(2):
            send(server, "full", {"tag": number})
        with pytest.raises(ClientError) as refused:
            send(server, "full", {"tag": 3})
        assert refused.value.response["Error"]["Code"] == "TooManyRequestsException" and "ondol queue" in refused.value.response["Error"]["Message"]
    finally:
        server.kill()
        server.remove()


def test_events_outlive_the_server(clean):
    server = Server()
    try:
        on_demand(server, "lives", code="import time\ndef handler(event, context):\n    time.sleep(event['wait'])\n", Timeout=60)
        server.client.put_function_concurrency(FunctionName="lives", ReservedConcurrentExecutions=1)
        for wait in (30, 0, 0):
            send(server, "lives", {"wait": wait})
        wait_until(lambda: queue(server, "lives")[0]["running"] >= 1, "an attempt")
        server.kill()
        server.client = None
        server.start()
        books, events = queue(server, "lives")
        assert (books["accepted"], books["queued"], len(events)) == (3, 3, 3)
        text = subprocess.run([BIN, "queue", "lives", "--port", str(server.port)], capture_output=True, text=True, check=True).stdout
        assert text.startswith("lives: 3 queued, the oldest for ")
    finally:
        server.kill()
        server.remove()


def test_a_stop_waits_for_what_runs_and_settles_it():
    server = Server()
    try:
        on_demand(server, "stops", code="import time\ndef handler(event, context):\n    time.sleep(1)\n", Timeout=10)
        send(server, "stops", {})
        wait_until(lambda: [v for v in server.status()["onDemand"] if v["function"] == "stops" and any(e["inFlight"] for e in v["executionEnvironments"])], "it to run")
        server.stop()
        server.start()
        books, _ = queue(server, "stops")
        assert (books["accepted"], books["succeeded"], books["queued"]) == (1, 1, 0)
    finally:
        server.remove()


def test_a_stop_that_does_not_wait_costs_no_attempt():
    server = Server(None, "--drain-seconds", "1")
    try:
        on_demand(server, "long", code="import time\ndef handler(event, context):\n    time.sleep(30)\n", Timeout=60)
        server.client.put_function_event_invoke_config(FunctionName="long", MaximumRetryAttempts=0)
        send(server, "long", {})
        wait_until(lambda: [v for v in server.status()["onDemand"] if v["function"] == "long" and any(e["inFlight"] for e in v["executionEnvironments"])], "it to run")
        server.stop()
        server.start()
        books, events = queue(server, "long")
        assert (books["accepted"], books["queued"], books["discarded"]) == (1, 1, 0) and events[0]["errors"] == 0
    finally:
        server.kill()
        server.remove()


def test_a_trace_header_has_a_largest_size(events_server, clean):
    on_demand(events_server, "traced")
    client = events_server.make_client()
    client.meta.events.register("before-sign.lambda.Invoke", lambda request, **_: request.headers.add_header("X-Amzn-Trace-Id", "Root=1-" + "a" * 50_000))
    client.invoke(FunctionName="traced", InvocationType="Event", Payload=b'{"tag": "t"}')
    assert ended(events_server, "traced")["succeeded"] == 1
    assert "aaaaaaaaaa" not in lines(events_server, "traced")
