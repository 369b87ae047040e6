"""Ctrl-C and SIGTERM: what is in flight finishes, environments end by the protocol, nothing is left."""

import signal
import subprocess
import threading
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError
from conftest import BIN, Server, wait_until
from test_layers import TELEMETRY, publish_layer
from test_restart import processes_of

SLOW = "import time\ndef handler(event, context):\n    open('/tmp/in', 'w')\n    time.sleep(event['seconds'])\n    return 'done'\n"


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_in_flight_finishes_and_nothing_new_is_taken(own_server, asked):
    server = own_server
    server.deploy("slow", {"app.py": SLOW}, concurrency=2, Timeout=30)
    group = server.status()["serverId"]
    answers = []
    callers = [threading.Thread(target=lambda: answers.append(server.invoke("slow", {"seconds": 3}))) for _ in range(4)]
    probe = server.make_client()
    probe.list_functions()
    [caller.start() for caller in callers]
    wait_until(lambda: sum(e["inFlight"] for e in server.version_status("slow")["executionEnvironments"]) == 4, "four in flight")
    server.process.send_signal(asked)
    wait_until(lambda: refuses(probe), "new requests to be refused")
    assert answers == [], "they were refused while the others were in flight"
    [caller.join() for caller in callers]
    assert answers == [(None, "done")] * 4
    assert server.process.wait(30) == 0
    assert processes_of(group) == [] and not list(Path("/sys/fs/cgroup").glob(f"*/ondol/{group}"))
    assert list(Path(server.folder, "run").iterdir()) == [] and not Path(server.folder, "control.sock").exists()


def test_the_wait_for_what_is_in_flight_is_bounded(own_server):
    server = own_server
    server.stop()
    server.flags = ("--drain-seconds", "1")
    server.start()
    server.deploy("endless", {"app.py": SLOW}, concurrency=1, Timeout=300)
    outcome = []

    def call():
        try:
            outcome.append(server.invoke("endless", {"seconds": 200}))
        except (BotoCoreError, ClientError) as error:
            outcome.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    wait_until(lambda: any(e["inFlight"] for e in server.version_status("endless")["executionEnvironments"]), "one in flight")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert "took longer than 1 seconds" in server.process.stdout.read()
    caller.join()
    assert outcome and outcome != [(None, "done")]


def test_asked_twice_it_ends_at_once(own_server):
    server = own_server
    server.deploy("endless", {"app.py": SLOW}, concurrency=1, Timeout=300)
    group = server.status()["serverId"]
    caller = threading.Thread(target=swallow, args=(server,), daemon=True)
    caller.start()
    wait_until(lambda: any(e["inFlight"] for e in server.version_status("endless")["executionEnvironments"]), "one in flight")
    server.process.send_signal(signal.SIGINT)
    probe = server.make_client()
    wait_until(lambda: refuses(probe), "the first to be heard")
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(15) == 0
    wait_until(lambda: processes_of(group) == [], "everything to be gone")


def swallow(server):
    try:
        server.invoke("endless", {"seconds": 200})
    except (BotoCoreError, ClientError):
        pass


def refuses(client):
    try:
        client.list_functions()
    except EndpointConnectionError:
        return True
    except BotoCoreError:
        pass
    return False


def test_extensions_hear_of_the_server_s_end(own_server):
    server = own_server
    layer = publish_layer(server, "telemetry", {"extensions/telemetry": (TELEMETRY, 0o100755)})
    server.deploy("extended", {"app.py": SLOW}, concurrency=1, Layers=[layer["LayerVersionArn"]])
    server.stop()
    assert server.process.returncode == 0
    server.start()
    shown = subprocess.run([BIN, "logs", "extended", "--port", str(server.port)], capture_output=True, text=True, check=True).stdout
    assert shown.count('ended {"eventType":"SHUTDOWN","shutdownReason":"spindown"') == 3, shown


def test_a_server_that_never_served_ends_too():
    server = Server()
    server.stop()
    assert server.process.returncode == 0
    server.remove()
