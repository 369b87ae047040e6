"""`ondol explain scale|throttle|pending`: what was seen, what was decided, why, and what would change it."""

import json
import re
import subprocess
import threading

import pytest
from conftest import BIN, LATEST_PUBLISHED, Server, wait_until, zip_of
from test_api import PYTHON
from test_commands import BAD_IMPORT, ondol

SLEEPS = {"app.py": "import time\ndef handler(event, context):\n    time.sleep(event.get('seconds', 0))\n    return 1\n"}


@pytest.fixture(scope="module")
def place():
    """A server whose functions may still be asleep when it ends."""
    server = Server(None, "--drain-seconds", "1")
    server.provider("cp")
    yield server
    server.remove()


def explained(server, question, name):
    return json.loads(ondol("explain", question, name, "--json", "--port", str(server.port)).stdout)


def shown(server, *arguments):
    return ondol("explain", *arguments, "--port", str(server.port)).stdout


def deploy(server, name, minimum=None, maximum=None, **settings):
    """Active, and with as many execution environments as its scaling config asks for."""
    server.create(name, SLEEPS, Timeout=60, **settings)
    server.publish(name)
    assert server.settled(name)["State"] == "Active"
    if minimum:
        scaling = {"MinExecutionEnvironments": minimum} | ({"MaxExecutionEnvironments": maximum} if maximum else {})
        server.client.put_function_scaling_config(FunctionName=name, Qualifier=LATEST_PUBLISHED, FunctionScalingConfig=scaling)
        wait_until(lambda: len(server.version_status(name)["executionEnvironments"]) == minimum, f"{minimum} execution environments")


def hold(server, name, count, seconds=45):
    """Invocations that keep their slots; the server is stopped before they are over."""
    ask = lambda: server.make_client().invoke(FunctionName=name, Payload=json.dumps({"seconds": seconds}))  # noqa: E731

    def quietly():
        try:
            ask()
        except Exception:
            pass

    for _ in range(count):
        threading.Thread(target=quietly, daemon=True).start()
    busy = lambda: sum(e["inFlight"] for e in server.version_status(name)["executionEnvironments"])  # noqa: E731
    wait_until(lambda: busy() == count, f"{count} invocations in flight")


def throttle(server, name):
    with pytest.raises(server.client.exceptions.TooManyRequestsException):
        server.client.invoke(FunctionName=name, Payload=b"{}")


def test_throttles_at_the_maximum_name_it_and_what_to_change(place):
    deploy(place, "full", 1, 1, concurrency=2)
    quiet = explained(place, "throttle", "full")["versions"][0]
    assert quiet["counts"]["throttled"] == 0 and quiet["counts"]["throttles"] == {"concurrency": 0, "cpu": 0, "memory": 0, "disk": 0} and quiet["changes"] == []
    assert "none of its invocations was throttled since the server started at 20" in shown(place, "throttle", "full")
    hold(place, "full", 2)
    throttle(place, "full"), throttle(place, "full")
    version = lambda: explained(place, "throttle", f"full:{LATEST_PUBLISHED}")["versions"][0]  # noqa: E731
    found = wait_until(lambda: (v := version()) and v["counts"]["throttled"] == 2 and v["lastSeen"] and v, "the throttles")
    assert found["counts"]["throttles"]["concurrency"] == 2 and found["counts"]["firstAt"] <= found["counts"]["lastAt"]
    assert (found["capacity"]["ready"], found["capacity"]["slots"], found["capacity"]["inFlight"]) == (1, 2, 2)
    assert found["lastSeen"]["decided"] == "Max" and found["lastSeen"]["scaling"]["wanted"] == 1
    assert [reason["code"] for reason in found["whyNoMore"]] == ["MaxExecutionEnvironments"], found["whyNoMore"]
    assert any("a higher MaxExecutionEnvironments (now 1) with PutFunctionScalingConfig" in change for change in found["changes"])
    assert any("PerExecutionEnvironmentMaxConcurrency (now 2)" in change for change in found["changes"])
    text = shown(place, "throttle", "full")
    assert re.search(r"full:\$LATEST.PUBLISHED: 2 invocations were throttled since .* 2 by concurrency; the first at ", text), text
    assert "capacity now: 1 execution environments ready with 2 slots, 2 in flight" in text and "→ Allow more" in text, text


def test_scale_tells_what_is_wanted_how_that_came_and_what_would_change_it(place):
    deploy(place, "grows", 1, concurrency=4)
    first = explained(place, "scale", "grows")["versions"][0]
    assert (first["scaling"]["wanted"], first["scaling"]["minExecutionEnvironments"], first["scaling"]["maxExecutionEnvironments"]) == (1, 1, None)
    assert [(move["from"], move["to"]) for move in first["moves"]] == [(3, 1), (None, 3)] and "scaling config was changed" in first["moves"][0]["why"]
    assert first["capacityProvider"]["vCpus"] + first["capacityProvider"]["vCpusLeft"] == first["capacityProvider"]["maxVCpuCount"] == 400
    hold(place, "grows", 4)
    grown = lambda: (v := explained(place, "scale", "grows")["versions"][0]) and v["scaling"]["ready"] >= 3 and v  # noqa: E731
    found = wait_until(grown, "more execution environments")
    moves = found["moves"]
    assert moves[0]["to"] == found["scaling"]["wanted"] and moves[-2]["to"] == 1 and "of its slots are held (target 50 %)" in moves[0]["why"]
    assert found["seen"]["slotsTargetPercent"] == 50 and found["decided"] in ("Steady", "Waiting", "OutBySlots")
    assert any(decision["what"].startswith("started execution environment") for decision in found["decisions"])
    assert all(f"of grows:{LATEST_PUBLISHED}" in d["what"] for d in found["decisions"] if d["what"].startswith("started"))
    assert {i["state"] for i in found["capacityProvider"]["instances"]} == {"Running"}
    text = shown(place, "scale", "grows")
    assert re.search(r"grows:\$LATEST.PUBLISHED is Active: \d+ execution environments wanted, \d+ running, \d+ ready; Min 1, no Max, 4 slots each", text), text
    assert "how that came to be, newest first:" in text and "→ Keep more running at all times" in text and "TargetValue (now 50 %, ScalingMode Auto)" in text


def test_the_cap_of_the_capacity_provider_is_named(place):
    place.provider("tiny", CapacityProviderScalingConfig={"MaxVCpuCount": 24})
    deploy(place, "capped", concurrency=1, provider="tiny", MemorySize=8192)
    hold(place, "capped", 3)
    throttle(place, "capped")
    codes = lambda: [r["code"] for r in explained(place, "throttle", "capped")["versions"][0]["whyNoMore"]]  # noqa: E731
    wait_until(lambda: "CapacityProviderScalingLimitExceeded" in codes(), "the cap as the reason")
    found = explained(place, "throttle", "capped")["versions"][0]
    assert any("a higher MaxVCpuCount (now 24) of capacity provider tiny with UpdateCapacityProvider" in change for change in found["changes"])
    scale = explained(place, "scale", "capped")["versions"][0]
    assert scale["blocked"]["code"] == "CapacityProviderScalingLimitExceeded" and scale["capacityProvider"]["vCpusLeft"] == 0
    assert "no more come: CapacityProviderScalingLimitExceeded" in shown(place, "scale", "capped")
    status = ondol("status", "--port", str(place.port)).stdout
    assert "and can't have them: MinimumExecutionEnvironments" in status and re.search(r"wants \d+, 3 run: ", status), status


def test_an_instance_that_is_being_replaced_says_so():
    # Each instance lives ten seconds of the wall's clock, so that one of them is always about to be replaced.
    server = Server(None, "--instance-max-age-seconds", "600", "--time-scale", "60")
    try:
        server.provider("cp")
        server.deploy("renewed", PYTHON)
        said = lambda: "old, being replaced" in (text := shown(server, "scale", "renewed")) and text  # noqa: E731
        assert "an instance is replaced before it is 10 min old" in wait_until(said, "an instance that is being replaced")
        replaced = lambda: any("it reached its maximum age" in d["why"] for d in server.status()["decisions"])  # noqa: E731
        wait_until(replaced, "the end of an old instance")
    finally:
        server.remove()


def test_pending_leads_to_the_runtime_s_own_error(place):
    place.create("broken", BAD_IMPORT)
    place.publish("broken")
    assert place.settled("broken")["State"] == "Failed"
    text = shown(place, "pending", "broken")
    assert text == shown(place, "broken") and "because FunctionError.RuntimeInitError" in text and "does_not_exist" in text
    page = explained(place, "pending", "broken")
    assert page["question"] == "pending" and page["versions"][0]["because"][0]["code"] == "FunctionError.RuntimeInitError"
    assert "is Failed: it is not scaled before it is Active" in shown(place, "scale", "broken")


def test_a_version_that_crashes_says_when_it_is_started_again(place):
    # It comes up once and never again: what it has left serves on, and what it lost is tried ever more slowly.
    place.create("crashes", {"app.py": "import os\ndef handler(event, context):\n    os._exit(1) if event.get('die') else None\n    return 1\n"})
    place.publish("crashes")
    assert place.settled("crashes")["State"] == "Active"
    place.client.invoke(FunctionName="crashes", Payload=b'{"die": true}')
    page = lambda: explained(place, "scale", "crashes")["versions"][0]["startFailures"]  # noqa: E731
    failed = wait_until(page, "a failed start")
    assert failed["count"] >= 1 and failed["nextAt"] > "20" and failed["reason"]


def test_lambda_default_functions_get_an_answer_too(place):
    place.client.create_function(FunctionName="plain", Runtime="python3.13", Handler="app.handler", Role=f"arn:aws:iam::000000000000:role/r",
                                 Code={"ZipFile": zip_of(PYTHON)}, MemorySize=128)  # fmt: skip
    wait_until(lambda: place.client.get_function_configuration(FunctionName="plain")["State"] == "Active", "plain")
    place.invoke("plain")
    assert "each invocation has an execution environment for itself" in shown(place, "scale", "plain")
    place.client.put_function_concurrency(FunctionName="plain", ReservedConcurrentExecutions=0)
    throttle(place, "plain")
    counted = lambda: explained(place, "throttle", "plain")["onDemandPool"]["counts"]["throttled"] == 1  # noqa: E731
    wait_until(counted, "the throttle")
    text = shown(place, "throttle", "plain")
    assert "1 by concurrency" in text and "its reserved concurrency lets 0 run at the same time" in text and "PutFunctionConcurrency" in text
    assert shown(place, "pending", "plain") == "plain is a Lambda (default) function: it runs on demand, and is Active.\n"


@pytest.mark.parametrize("question", ["scale", "throttle", "pending"])
def test_unknown_names_and_wrong_command_lines(place, question):
    if not place.version_status("known"):
        place.deploy("known", PYTHON)
    assert shown(place, question, "know") == "There is no function know.\n  Did you mean known?\n"
    assert "there is no function know" in ondol("explain", question, "know", "--json", "--port", str(place.port), code=1).stderr
    assert shown(place, question, "known:7") == f"known has no such published version; it has {LATEST_PUBLISHED}.\n"
    assert "required" in ondol("explain", question, code=2).stderr
    ondol("explain", question, "known", "--port", "1", code=3)
    help_text = subprocess.run([BIN, "explain", "--help"], capture_output=True, text=True, check=True).stdout
    assert question in help_text
