"""Answers that come while they are written: AWS's event stream, real Node.js and Rust handlers, and what breaks on the way."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from conftest import BIN, Server, wait_until
from on_demand import create, meeting
from test_events import CODE

NODE = """
export const handler = awslambda.streamifyResponse(async (event, stream, context) => {
  for (const part of event.parts) {
    if (part.gate) await fetch(part.gate);
    else if (part.fail) throw new Error(part.fail);
    else if (part.bytes) {
      const chunk = Buffer.alloc(65536, "x");
      for (let sent = 0; sent < part.bytes; sent += chunk.length)
        if (!stream.write(chunk)) await new Promise((go) => stream.once("drain", go));
    }
    else if (part.never) await new Promise(() => setInterval(() => {}, 1000));
    else { stream.write(part); console.log("wrote", part); }
  }
  stream.end();
});
"""
STREAMER = {"bootstrap": (Path(os.environ["ONDOL_TELLER"]).with_name("streamer").read_bytes(), 0o100755)}


@pytest.fixture(scope="module")
def streams(server):
    server.deploy("node", {"index.mjs": NODE}, runtime="nodejs24.x", handler="index.handler", concurrency=8, Timeout=20)
    server.deploy("rust", STREAMER, runtime="provided.al2023", handler="bootstrap", concurrency=8)
    server.deploy("whole", {"app.py": CODE}, concurrency=2)
    create(server, "ondemand", {"index.mjs": NODE}, runtime="nodejs24.x", handler="index.handler")
    return server


def begin(server, name, payload, **settings):
    answer = server.client.invoke_with_response_stream(FunctionName=name, Payload=json.dumps(payload), **settings)
    return answer, iter(answer["EventStream"])


def read(events):
    """The bytes of a stream, and its end."""
    payload, end = b"", None
    for event in events:
        if "PayloadChunk" in event:
            payload += event["PayloadChunk"]["Payload"]
        else:
            end = event["InvokeComplete"]
    return payload, end


@pytest.mark.parametrize("name", ["node", "ondemand"])
def test_what_is_written_comes_before_the_function_is_done(streams, name):
    with meeting() as gate:
        answer, events = begin(streams, name, {"parts": ["one", {"gate": gate.at("x")}, "two"]})
        assert answer["StatusCode"] == 200 and answer["ResponseStreamContentType"] == "application/vnd.amazon.eventstream"
        assert answer["ExecutedVersion"] == ("$LATEST" if name == "ondemand" else "$LATEST.PUBLISHED")
        first = next(events)["PayloadChunk"]["Payload"]
        assert first == b"one"
        gate.wait_for(1)
        gate.open.set()
        assert read(events) == (b"two", {})


def test_rust_streams_too(streams):
    with meeting() as gate:
        address = gate.at("").removeprefix("http://").rstrip("/")
        _, events = begin(streams, "rust", {"parts": ["one", {"gate": address}, "two"]})
        seen = b""
        while not seen.endswith(b"one"):
            seen += next(events)["PayloadChunk"]["Payload"]
        # The crate puts a prelude for HTTP before what is written.
        prelude, first = seen.split(b"\0" * 8)
        assert json.loads(prelude)["statusCode"] == 200 and first == b"one"
        gate.wait_for(1)
        gate.open.set()
        assert read(events) == (b"two", {})


def test_an_error_on_the_way_is_in_the_end(streams):
    _, events = begin(streams, "node", {"parts": ["half", {"fail": "no more"}]}, LogType="Tail")
    payload, end = read(events)
    details = json.loads(end["ErrorDetails"])
    assert (payload, end["ErrorCode"]) == (b"half", "Unhandled")
    assert details["errorType"] == "Error" and details["errorMessage"] == "no more"
    import base64

    assert "platform.report" in base64.b64decode(end["LogResult"]).decode()


def test_a_function_that_answers_whole_has_one_chunk(streams):
    _, events = begin(streams, "whole", {"tag": "w"})
    payload, end = read(events)
    assert json.loads(payload)["tag"] == "w" and end == {}
    _, events = begin(streams, "whole", {"tag": "w", "fail": 9})
    payload, end = read(events)
    assert end["ErrorCode"] == "Unhandled" and json.loads(end["ErrorDetails"])["errorType"] == "ValueError"


def test_a_function_that_streams_can_be_asked_for_the_whole(streams):
    answer = streams.client.invoke(FunctionName="node", Payload=json.dumps({"parts": ["one", "two"]}))
    assert answer["Payload"].read() == b"onetwo" and "FunctionError" not in answer
    answer = streams.client.invoke(FunctionName="node", Payload=json.dumps({"parts": ["one", {"fail": "no more"}]}))
    assert answer["FunctionError"] == "Unhandled" and json.load(answer["Payload"])["errorMessage"] == "no more"


def test_time_ends_a_stream_and_keeps_what_was_written(streams):
    streams.deploy("endless", {"index.mjs": NODE}, runtime="nodejs24.x", handler="index.handler", concurrency=2, Timeout=2)
    _, events = begin(streams, "endless", {"parts": ["one", {"never": True}]})
    payload, end = read(events)
    assert payload == b"one" and end["ErrorCode"] == "Unhandled" and "Task timed out after 2.00 seconds" in end["ErrorDetails"]


def test_a_caller_that_goes_away_does_not_stop_the_function(streams):
    with meeting() as gate:
        answer, events = begin(streams, "node", {"parts": ["one", {"gate": gate.at("gone")}, {"bytes": 20_000_000}, "the-last"]})
        next(events)
        gate.wait_for(1)
        answer["EventStream"].close()
        gate.open.set()
        logs = lambda: subprocess.run([BIN, "logs", "node", "--since", "1h", "--port", str(streams.port)], capture_output=True, text=True, check=True).stdout
        wait_until(lambda: "the-last" in logs(), "the function to write on")


def test_refusals_come_before_the_stream(streams):
    for settings, code in [
        ({"FunctionName": "nobody"}, "ResourceNotFoundException"),
        ({"FunctionName": "node", "Payload": b"{"}, "InvalidRequestContentException"),
        ({"FunctionName": "node", "InvocationType": "Event"}, "ValidationException"),
    ]:
        with pytest.raises(ClientError) as refused:
            streams.client.invoke_with_response_stream(**settings)
        assert refused.value.response["Error"]["Code"] == code
    assert streams.client.invoke_with_response_stream(FunctionName="node", InvocationType="DryRun")["StatusCode"] == 204
    streams.client.put_function_concurrency(FunctionName="ondemand", ReservedConcurrentExecutions=0)
    with pytest.raises(ClientError) as refused:
        begin(streams, "ondemand", {"parts": []})
    assert refused.value.response["Error"]["Code"] == "TooManyRequestsException"
    streams.client.delete_function_concurrency(FunctionName="ondemand")


def test_a_stream_counts_against_reserved_concurrency_until_its_end(streams):
    create(streams, "counted", {"index.mjs": NODE}, runtime="nodejs24.x", handler="index.handler")
    streams.client.put_function_concurrency(FunctionName="counted", ReservedConcurrentExecutions=1)
    with meeting() as gate:
        _, events = begin(streams, "counted", {"parts": ["one", {"gate": gate.at("x")}]})
        next(events)
        with pytest.raises(ClientError) as refused:
            begin(streams, "counted", {"parts": []})
        assert refused.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
        gate.open.set()
        assert read(events) == (b"", {})
    assert read(begin(streams, "counted", {"parts": ["two"]})[1]) == (b"two", {})


def test_a_stream_counts_also_when_nobody_reads_it_any_more(streams):
    create(streams, "left", {"index.mjs": NODE}, runtime="nodejs24.x", handler="index.handler")
    streams.client.put_function_concurrency(FunctionName="left", ReservedConcurrentExecutions=1)
    with meeting() as gate:
        answer, events = begin(streams, "left", {"parts": ["one", {"gate": gate.at("x")}, "two"]})
        next(events)
        gate.wait_for(1)
        answer["EventStream"].close()
        # Its connection is gone when another on it is refused or answered; the function still runs.
        with pytest.raises(ClientError) as refused:
            begin(streams, "left", {"parts": []})
        assert refused.value.response["Error"]["Code"] == "TooManyRequestsException"
        gate.open.set()

    def free():
        try:
            return read(begin(streams, "left", {"parts": ["three"]})[1])
        except streams.client.exceptions.TooManyRequestsException:
            return None

    assert wait_until(free, "the function to be done") == (b"three", {})


def test_a_stream_has_a_largest_size():
    server = Server(None, "--quota=streamed-response-bytes=1000000")
    try:
        server.provider("cp")
        server.deploy("large", {"index.mjs": NODE}, runtime="nodejs24.x", handler="index.handler", concurrency=2)
        payload, end = read(begin(server, "large", {"parts": [{"bytes": 900_000}]})[1])
        assert len(payload) == 14 * 65536 and end == {}
        payload, end = read(begin(server, "large", {"parts": [{"bytes": 3_000_000}]})[1])
        assert len(payload) <= 1_000_000 and json.loads(end["ErrorDetails"])["errorType"] == "Function.ResponseSizeTooLarge"
    finally:
        server.remove()


def test_the_command_shows_a_stream(streams):
    ask = lambda parts: subprocess.run([BIN, "invoke", "node", "--stream", "--data", json.dumps({"parts": parts}), "--port", str(streams.port)], capture_output=True, text=True)
    done = ask(["one\n", "two\n"])
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n"), done
    done = ask(["one\n", {"fail": "no more"}])
    assert done.returncode == 1 and done.stdout == "one\n" and "no more" in done.stderr
