"""Events under kills: none that was acknowledged is lost, and the books balance.

`cargo xtask crash-async` runs it. A sender has events acknowledged while the server, its launcher and its execution
environments are killed; every execution tells a collector outside before it answers. At the end each acknowledged
event has run, what failed for good was delivered, and every event is in the books exactly once.
"""

import argparse
import collections
import json
import os
import random
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from conftest import Server, wait_until
from crash import kill_group

TELLER = {"bootstrap": (Path(os.environ["ONDOL_TELLER"]).read_bytes(), 0o100755)}
SENDER = os.environ["ONDOL_EVENTS_BENCH"]
# What runs, with what has just ended and is being written: what a kill may let happen twice.
IN_FLIGHT_MAX = 2 * 8 + 64


class Collector:
    """Hears of every execution; answers with how often it was."""

    def __init__(self):
        self.ran, self.failed = collections.Counter(), collections.Counter()
        self.lock = threading.Lock()
        collector = self

        class Line(socketserver.StreamRequestHandler):
            def handle(self):
                try:
                    while line := self.rfile.readline().decode().split():
                        kind, request = line
                        with collector.lock:
                            counter = collector.ran if kind == "ran" else collector.failed
                            counter[request] += 1
                            times = counter[request]
                        self.wfile.write(b"%d\n" % times)
                except ConnectionError:
                    # Its environment was killed.
                    pass

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Line)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = "127.0.0.1:%d" % self.server.server_address[1]


class Sender:
    """Has events acknowledged, whatever becomes of the server."""

    def __init__(self, url_file, events, rate):
        words = [SENDER, "told", f"@{url_file}", "f", "32", str(events), str(rate)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.acknowledged = {}
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            request, fail = line.split()
            self.acknowledged[request] = int(fail)


def deploy(server, collector):
    variables = {"Variables": {"TELL": collector.address}}
    for name, concurrency in (("f", 8), ("g", 4)):
        server.create(name, TELLER, runtime="provided.al2023", handler="bootstrap", concurrency=concurrency, Environment=variables)
        server.publish(name)
        server.settled(name)
        server.client.put_function_scaling_config(FunctionName=name, Qualifier="$LATEST.PUBLISHED", FunctionScalingConfig={"MinExecutionEnvironments": 2 if name == "f" else 1, "MaxExecutionEnvironments": 4})
    grant = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": "*"}]}
    server.make_client("iam").put_role_policy(RoleName="r", PolicyName="invoke", PolicyDocument=json.dumps(grant))
    config = {"OnFailure": {"Destination": "arn:aws:lambda:us-east-1:000000000000:function:g"}}
    server.client.put_function_event_invoke_config(FunctionName="f", DestinationConfig=config)


def books(server):
    page = json.loads(subprocess.run([server.binary, "queue", "--json", "--port", str(server.port)], capture_output=True, text=True, check=True).stdout)
    return {row["function"]: row for row in page["functions"]}


def kill(server, chance, url_file):
    """Kills somebody; gives who it was and the seconds until the server answered again."""
    victim = chance.choice(["server", "launcher", "server and launcher", "init", "runtime"])
    environments = []
    if victim in ("init", "runtime"):
        environments = [e["id"] for v in server.status()["functionVersions"] for e in v["executionEnvironments"]]
        victim = victim if environments else "server"
    if environments:
        kill_group(None, chance.choice(environments), last=victim == "runtime")
        return victim, None
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for target in ([pid] if "server" in victim else []) + ([int(children[0])] if "launcher" in victim else []):
        os.kill(target, signal.SIGKILL)
    server.process.wait(20)
    server.process.stdout.close()
    started = time.monotonic()
    server.start()
    url_file.write_text(server.url)
    return victim, time.monotonic() - started


def run(kills, events, seed):
    chance = random.Random(seed)
    collector = Collector()
    server = Server(None, "--time-scale", "60")
    server.provider("cp")
    deploy(server, collector)
    url_file = Path(tempfile.mkdtemp(prefix="ondol-crash-async-")) / "url"
    url_file.write_text(server.url)
    # So that the kills fall among the events.
    sender = Sender(url_file, events, events / (kills * 0.7))
    victims, recoveries, started = collections.Counter(), [], time.monotonic()
    for _ in range(kills):
        time.sleep(chance.uniform(0, 0.6))
        try:
            victim, recovery = kill(server, chance, url_file)
        except subprocess.CalledProcessError:
            # It was still about to end from the kill before.
            victim, recovery = kill(server, random.Random(0), url_file)
        victims[victim] += 1
        recoveries += [recovery] if recovery else []
    # Every restart holds the sender up.
    sender.thread.join(300 + kills)
    assert sender.process.wait(10) == 0, "the sender failed"
    assert len(sender.acknowledged) == events, len(sender.acknowledged)
    sent = time.monotonic() - started

    def over():
        now = books(server)
        return now if all(row["queued"] == 0 for row in now.values()) else None

    ended = wait_until(over, "every event to end", 600)
    for row in ended.values():
        assert row["accepted"] == row["succeeded"] + row["delivered"] + row["discarded"] + row["undeliverable"], row
    lost = [request for request in sender.acknowledged if request not in collector.ran]
    assert not lost, f"{len(lost)} of {events} acknowledged events never ran: {lost[:5]}"
    f, g = ended["f"], ended["g"]
    assert f["discarded"] == f["undeliverable"] == 0 and g["accepted"] == f["delivered"], ended
    assert g["succeeded"] + g["discarded"] == g["accepted"] and g["delivered"] == g["undeliverable"] == 0, ended
    hopeless = {request for request, fail in sender.acknowledged.items() if fail > 3}
    untold = hopeless - set(collector.failed)
    # An environment that dies three times over with the same outcome in it ends that outcome too.
    assert len(untold) <= g["discarded"], f"{len(untold)} failures were never told of"
    # What was sent and never acknowledged may have been stored all the same.
    assert f["accepted"] >= events and f["accepted"] - events <= 32 * (kills + 1), f
    expected = lambda fail: min(fail, 2) + 1
    twice = sum(max(0, times - expected(sender.acknowledged.get(request, 0))) for request, times in collector.ran.items())
    assert twice <= kills * IN_FLIGHT_MAX, f"{twice} executions too many"
    most = max(times for times in collector.ran.values())
    server.stop()
    server.remove()
    recoveries.sort()
    shown = ", ".join(f"{name} {count}" for name, count in sorted(victims.items()))
    print(f"{kills} kills ({shown}; seed {seed}), {events} events acknowledged in {sent:.0f} s: 0 lost, {f['accepted'] - events} stored without their answer, {twice} executed again, at most {most} times")
    print(f"books: f {f['accepted']} accepted = {f['succeeded']} succeeded + {f['delivered']} delivered; g {g['accepted']} = {g['succeeded']} + {g['discarded']} discarded; start again median {recoveries[len(recoveries) // 2] * 1000:.0f} ms, max {recoveries[-1] * 1000:.0f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", file=sys.stderr)
    run(arguments.kills, arguments.events, arguments.seed)
