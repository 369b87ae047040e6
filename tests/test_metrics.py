"""`/_ondol/metrics`: AWS's metrics and the server's own, in the text format that Prometheus reads."""

import json
import re
import stat
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import LATEST_PUBLISHED, Server, wait_until
from test_api import PYTHON

SLEEPS = {"app.py": "import time\ndef handler(event, context):\n    time.sleep(event.get('seconds', 0))\n    if event.get('fail'):\n        raise ValueError()\n    return 1\n"}
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?|NaN|[+-]Inf)")


def parse(text):
    """Every sample by its name and labels; strict about the format."""
    assert text.endswith("\n")
    types, seen, samples, current = {}, set(), {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, current, help_text = line.split(" ", 3)
            assert current not in seen and help_text, line
            seen.add(current)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current and kind in ("gauge", "counter") and (kind == "counter") == name.endswith("_total"), line
            types[name] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            name, labels = found.group(1), tuple(sorted((m.group(1), m.group(2)) for m in re.finditer(LABEL, found.group(2) or "")))
            assert name == current and name in types and (name, labels) not in samples, line
            assert types[name] == "gauge" or float(found.group(found.lastindex)) >= 0
            samples[name, labels] = float(found.group(found.lastindex))
    return samples


def token(server):
    return Path(server.folder, "metrics-token").read_text().strip()


def scrape(server, authorization=None):
    request = urllib.request.Request(f"{server.url}/_ondol/metrics", headers={"Authorization": authorization or f"Bearer {token(server)}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return parse(answer.read().decode())


def labels(**names):
    return tuple(sorted(names.items()))


@pytest.fixture(scope="module")
def place():
    server = Server(None, "--drain-seconds", "1")
    server.provider("cp")
    yield server
    server.remove()


def test_what_was_invoked_throttled_and_allocated_is_told_under_aws_s_names(place):
    place.create("counted", SLEEPS, concurrency=1, Timeout=60)
    place.publish("counted")
    assert place.settled("counted")["State"] == "Active"
    place.client.put_function_scaling_config(
        FunctionName="counted", Qualifier=LATEST_PUBLISHED, FunctionScalingConfig={"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 1}
    )
    wait_until(lambda: len(place.version_status("counted")["executionEnvironments"]) == 1, "one execution environment")
    place.invoke("counted"), place.invoke("counted"), place.invoke("counted", {"fail": True})

    def asleep():
        try:
            place.make_client().invoke(FunctionName="counted", Payload=json.dumps({"seconds": 45}))
        except Exception:
            pass

    # The status may be a moment behind: what it shows next is the one that sleeps, and no earlier one.
    wait_until(lambda: not place.version_status("counted")["executionEnvironments"][0]["inFlight"], "the invocations before to be over")
    threading.Thread(target=asleep, daemon=True).start()
    wait_until(lambda: place.version_status("counted")["executionEnvironments"][0]["inFlight"], "an invocation in flight")
    with pytest.raises(place.client.exceptions.TooManyRequestsException):
        place.client.invoke(FunctionName="counted", Payload=b"{}")
    function = labels(function_name="counted", resource=f"counted:{LATEST_PUBLISHED}")
    version = labels(capacity_provider_name="cp", function_name="counted", resource=f"counted:{LATEST_PUBLISHED}")
    found = wait_until(lambda: (s := scrape(place)).get(("lambda_throttles_total", function)) == 1 and s, "the throttle")
    expected = {"lambda_invocations_total": 3, "lambda_errors_total": 1, "lambda_concurrency_throttles_total": 1, "lambda_cpu_throttles_total": 0,
                "lambda_memory_throttles_total": 0, "lambda_disk_throttles_total": 0, "lambda_concurrent_executions": 1}  # fmt: skip
    assert {name: found[name, function] for name in expected} == expected
    assert found["lambda_duration_seconds_total", function] > 0
    expected = {"lambda_execution_environment_concurrency": 1, "lambda_execution_environment_concurrency_limit": 1, "lambda_execution_environment_count": 1,
                "ondol_execution_environments_wanted": 1, "ondol_execution_environments_running": 1, "ondol_execution_environments_ready": 1}  # fmt: skip
    assert {name: found[name, version] for name in expected} == expected
    assert 0 <= found["lambda_execution_environment_memory_utilization_percent", version] <= 100
    assert ("lambda_execution_environment_cpu_utilization_percent", version) in found
    of_provider = {name: value for (name, names), value in found.items() if dict(names).get("capacity_provider_name") == "cp" and "instance_type" in dict(names)}
    assert of_provider["lambda_vcpu_allocated"] == 1 and of_provider["lambda_memory_allocated_bytes"] == 2 << 30
    assert of_provider["lambda_vcpu_available"] > 1 and {"lambda_cpu_utilization_percent", "lambda_memory_utilization_percent", "lambda_memory_available_bytes"} <= set(of_provider)
    vcpus = found["ondol_capacity_provider_vcpus_used", labels(capacity_provider_name="cp")]
    assert vcpus >= 4 and found["ondol_capacity_provider_vcpus_max", labels(capacity_provider_name="cp")] == 400
    assert sum(value for (name, _), value in found.items() if name == "ondol_instances") >= 1
    for name in ("ondol_planner_journal_lines_lost_total", "ondol_log_lines_lost_total", "ondol_usage_events_lost_total", "ondol_store_in_trouble"):
        assert found[name, ()] == 0
    assert found["ondol_machine_cpus", ()] >= 1 and found["ondol_machine_memory_available_bytes", ()] < found["ondol_machine_memory_bytes", ()]


def test_events_are_counted(place):
    place.deploy("events", PYTHON)
    place.client.invoke(FunctionName="events", InvocationType="Event", Payload=b"{}")
    ended = ("ondol_events_ended_total", labels(function_name="events", ending="succeeded"))
    found = wait_until(lambda: (s := scrape(place)).get(ended) == 1 and s, "the event's end")
    assert found["lambda_async_events_received_total", labels(function_name="events", resource="events")] == 1
    assert found["ondol_events_queued", labels(function_name="events")] == 0


def test_only_the_root_user_and_the_token_open_it_and_the_token_opens_nothing_else(place):
    assert stat.S_IMODE(Path(place.folder, "metrics-token").stat().st_mode) == 0o600
    for authorization in ("Bearer ", "Bearer wrong", f"Bearer {token(place)}0", "Basic dGVzdDp0ZXN0", token(place)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            scrape(place, authorization)
        assert refused.value.code == 403, authorization
    with pytest.raises(urllib.error.HTTPError) as unsigned:
        urllib.request.urlopen(f"{place.url}/_ondol/metrics")
    assert unsigned.value.code == 403
    for page in ("status", "logs?function=f", "explain?function=f"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{place.url}/_ondol/{page}", headers={"Authorization": f"Bearer {token(place)}"}))
        assert refused.value.code == 403, page


def test_the_token_is_kept(own_server):
    first = token(own_server)
    own_server.stop()
    own_server.start()
    assert token(own_server) == first and scrape(own_server)
