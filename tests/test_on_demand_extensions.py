"""Extensions of Lambda (default) functions hear of every invocation, and hold their environment until they are done with it."""

import json
import re

import pytest

from conftest import Server, wait_until, zip_of
from on_demand import DOES, create, environments, meeting
from test_layers import TELEMETRY, messages, publish_layer

# Tells what it hears, and goes to the meeting with every invocation before it asks for the next event.
HEARS = """#!/usr/bin/python3.13
import json, os, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2020-01-01/extension/"
request = urllib.request.Request(api + "register", data=json.dumps({"events": ["INVOKE", "SHUTDOWN"]}).encode(), headers={"Lambda-Extension-Name": "hears"})
answer = urllib.request.urlopen(request)
me = {"Lambda-Extension-Identifier": answer.headers["Lambda-Extension-Identifier"]}
while True:
    event = json.load(urllib.request.urlopen(urllib.request.Request(api + "event/next", headers=me)))
    print("heard " + json.dumps(event), flush=True)
    if event["eventType"] == "SHUTDOWN":
        break
    if "MEET" in os.environ:
        urllib.request.urlopen(os.environ["MEET"]).read()
"""
DEADLINE = "def handler(event, context):\n    return [context.aws_request_id, context._epoch_deadline_time_in_ms]\n"


def heard(server, name):
    return [json.loads(line.removeprefix("heard ")) for line in messages(server, name) if line.startswith("heard ")]


def layer(server, name, script):
    return publish_layer(server, name, {f"extensions/{name}": (script, 0o100755)})["LayerVersionArn"]


def test_every_invocation_is_told(server):
    create(server, "told", {"app.py": DEADLINE}, Layers=[layer(server, "hears", HEARS)])
    answers = [server.invoke("told")[1] for _ in range(3)]
    wait_until(lambda: len(heard(server, "told")) >= 3, "three events")
    events = {event["requestId"]: event for event in heard(server, "told")}
    assert len(events) == len(heard(server, "told")) == 3
    for request, deadline in answers:
        event = events[request]
        assert event["eventType"] == "INVOKE" and abs(event["deadlineMs"] - deadline) < 1000
        assert event["invokedFunctionArn"].endswith(":function:told") and event["tracing"]["type"] == "X-Amzn-Trace-Id"


def test_every_invocation_has_a_trace(server):
    code = {"app.py": "import os\ndef handler(event, context):\n    return os.environ.get('_X_AMZN_TRACE_ID')\n"}
    create(server, "traced", code, Layers=[layer(server, "hears", HEARS)])
    trace = server.invoke("traced")[1]
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01](;.*)?", trace or ""), trace
    wait_until(lambda: heard(server, "traced"), "the event")
    assert heard(server, "traced")[0]["tracing"]["value"] == trace


def test_an_environment_is_free_when_its_extension_is(server):
    with meeting() as place:
        create(server, "held", Layers=[layer(server, "hears", HEARS)], Environment={"Variables": {"MEET": place.at("extension")}})
        first = server.invoke("held")[1]
        place.wait_for(1)
        second = server.invoke("held")[1]
        assert second != first, "the first one's extension still works"
        place.wait_for(2)
        assert len(environments(server, "held")) == 2
        place.open.set()
        wait_until(lambda: {server.invoke("held")[1] for _ in range(4)} <= {first, second}, "the two environments to be used again")


ENDS = {
    "spindown": ("--idle-seconds", {}),
    "timeout": (None, {"meet": True}),
    "failure": (None, {"exit": 1}),
}


@pytest.mark.parametrize("reason", ENDS)
def test_the_end_is_told_with_its_reason(reason):
    flag, event = ENDS[reason]
    server = Server(None, *((flag, "1") if flag else ()))
    try:
        with meeting() as place:
            create(server, "ending", Layers=[layer(server, "hears", HEARS)], Timeout=1)
            server.invoke("ending", event | ({"meet": place.at("late")} if "meet" in event else {}))
            wait_until(lambda: [e["shutdownReason"] for e in heard(server, "ending") if e["eventType"] == "SHUTDOWN"] == [reason], "the extension to hear of the end")
            wait_until(lambda: environments(server, "ending") == [], "the environment to be gone")
        assert server.invoke("ending")[0] is None
    finally:
        server.remove()


def test_telemetry_tells_of_each_step_of_an_invocation(server):
    create(server, "measured", Layers=[layer(server, "telemetry", TELEMETRY)], Timeout=20)
    answer = server.client.invoke(FunctionName="measured", Payload=json.dumps({"print": "by the function"}))
    request = answer["ResponseMetadata"]["RequestId"]
    of_request = lambda: [event for event in heard(server, "measured") if isinstance(event["record"], dict) and event["record"].get("requestId") == request]
    wait_until(lambda: any(event["type"] == "platform.report" for event in of_request()), "the report")
    assert [event["type"] for event in of_request()] == ["platform.start", "platform.runtimeDone", "platform.report"]
    everything = heard(server, "measured")
    assert any(event["type"] == "function" and event["record"].strip() == "by the function" for event in everything)
    started = next(event["record"] for event in everything if event["type"] == "platform.initStart")
    assert (started["initializationType"], started["functionName"]) == ("on-demand", "measured")


def test_an_extension_that_ends_fails_the_request_and_no_other(server):
    # It is done with its own start, and ends with the first invocation.
    dies = HEARS.replace('    if "MEET" in os.environ:', "    raise SystemExit(3)\n    if 0:")
    create(server, "dies", {"app.py": "import time\ndef handler(event, context):\n    time.sleep(20)\n"}, Layers=[layer(server, "dies", dies)])
    for _ in range(2):
        error, answer = server.invoke("dies")
        assert (error, answer["errorType"]) == ("Unhandled", "Extension.Crash"), answer
    server.client.update_function_configuration(FunctionName="dies", Layers=[])
    server.client.update_function_code(FunctionName="dies", ZipFile=zip_of({"app.py": DOES}))
    server.settled("dies", "$LATEST")
    assert server.invoke("dies")[0] is None
