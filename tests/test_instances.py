"""Instances under load: replaced before they are too old, and launched again when a launch fails."""

import json
import os
import subprocess
from datetime import datetime
from pathlib import Path

from conftest import BIN, wait_until
from load import WAITS, Load, bounds, serving

# Replaced after some six seconds.
SOON = ("--time-scale", "100", "--instance-max-age-seconds", "600")


def test_every_instance_is_replaced_and_no_invocation_hears_of_it(numbers):
    with serving(*SOON) as (server, watch), Load(server, "aged", {"s": 0.1}) as load:
        server.deploy("aged", WAITS, concurrency=4, Timeout=10)
        start = watch.until_ready("aged", 3)
        first = set(watch.instances[-1])
        load.start(4)
        with numbers("three instances replaced"):
            wait_until(lambda: not first & set(watch.instances[-1]), "the last of the first instances to end")
        load.goes_well(40)
        load.stop()
        assert load.failed() == []
        assert watch.fewest_ready("aged", start) >= 3
        assert watch.decided("terminated instance", "it reached its maximum age")
        assert watch.decided("draining", "its instance is being replaced, and others are ready in its place")
        assert all(number == 3 for number in watch.wanted("aged", start)), watch.wanted("aged")


def test_where_the_cap_has_no_room_beside_it_an_instance_is_drained_first(numbers):
    with serving(*SOON, CapacityProviderScalingConfig={"MaxVCpuCount": 12}) as (server, watch), Load(server, "full", {"s": 0.1}) as load:
        server.deploy("full", WAITS, concurrency=4, Timeout=10)
        # Three instances of four vCPUs, each with three environments: nothing more has room.
        bounds(server, "full", 9, 9)
        start = watch.until_ready("full", 9)
        first = set(watch.instances[-1])
        load.start(4)
        with numbers("three full instances replaced"):
            wait_until(lambda: not first & set(watch.instances[-1]), "the last of the first instances to end")
        watch.until_ready("full", 9)
        load.goes_well(40)
        load.stop()
        assert load.failed() == []
        assert watch.decided("draining", "MaxVCpuCount leaves no room for another beside it: it is drained first")
        assert all(sum(i["vCpus"] for i in instances.values()) <= 12 for instances in watch.instances)
        # One instance at a time, and the next one only when all others are ready.
        assert watch.fewest_ready("full", start) >= 6


def rounds(decisions):
    """When something was decided, one moment for all that was decided together."""
    moments = sorted(datetime.fromisoformat(at).timestamp() for at, _, _ in decisions)
    return [at for place, at in enumerate(moments) if place == 0 or at - moments[place - 1] > 0.008]


def test_a_launch_that_fails_is_tried_again_ever_later_until_there_is_room(numbers):
    with serving("--time-scale", "60", "--instances-max", "3") as (server, watch):
        server.provider("first")
        server.deploy("first", WAITS, concurrency=1, provider="first")
        server.create("waits", WAITS, concurrency=1)
        server.publish("waits")
        failed = lambda: watch.decided("terminated instance", "its launch failed: This machine is shared out to 3 instances already")
        wait_until(lambda: len(rounds(failed())) >= 6, "six attempts")
        # In each zone, and then a second, two, four and so on of the scaler's later, told by the clock of the machine.
        moments = rounds(failed())
        gaps = [(after - before) * 60 for before, after in zip(moments, moments[1:])]
        assert all(gap >= 2**place - 0.3 for place, gap in enumerate(gaps)), gaps
        look = watch.now("waits")
        assert (look.state, look.ready) == ("Pending", [])
        assert look.reason == "This machine is shared out to 3 instances already, as many as --instances-max allows."

        command = [BIN, "logs", "--capacity-provider", "cp", "--since", "1h", "--port", str(server.port)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        entries = [json.loads(line[line.index("{") :]) for line in lines]
        assert {entry["metadata"]["availabilityZones"][0] for entry in entries} == {"us-east-1a", "us-east-1b", "us-east-1c"}
        warnings = [entry["message"] for entry in entries if entry["level"] == "WARN"]
        assert len(warnings) >= 18 and all(text.startswith("Failed to launch ") and text.endswith(" - the system will retry") for text in warnings), warnings

        bounds(server, "first", 0, 0)
        with numbers("a launch once there is room"):
            watch.until("waits", lambda look: look.state == "Active", "the launch that works")
        watch.until_ready("waits", 3)
        assert server.invoke("waits")[0] is None
        assert watch.now("waits").reason is None


def test_replacement_picks_up_a_newer_image_of_the_runtime(tmp_path):
    installed = Path(os.environ.get("ONDOL_RUNTIME_DIR", "/var/lib/ondol/runtimes"), "python3.13")
    place, fresh = tmp_path / "runtimes/python3.13", tmp_path / "fresh"
    for copy in (place, fresh):
        copy.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", "--reflink=auto", installed, copy], check=True)
    (fresh / "root/etc/image").write_text("newer")
    code = {"app.py": "import os\ndef handler(event, context):\n    return open('/etc/image').read() if os.path.exists('/etc/image') else 'first'\n"}
    with serving(*SOON, "--runtime-dir", str(place.parent)) as (server, watch):
        server.deploy("imaged", code, concurrency=4)
        watch.until_ready("imaged", 3)
        assert server.invoke("imaged")[1] == "first"
        # As `ondol runtime install` does it.
        place.rename(tmp_path / "older")
        fresh.rename(place)
        with Load(server, "imaged", {}) as load:
            load.start(2)
            newer = lambda: {server.invoke("imaged")[1] for _ in range(12)} == {"newer"}
            wait_until(newer, "every environment to run on the newer image")
            load.stop()
            assert load.failed() == []
