"""Crashes, everywhere: at every named point once, and at random moments under load.

`cargo xtask crash` runs it. Each row of the matrix is one start of a server that kills itself (or its launcher) with
SIGKILL at one point of one scenario; then it is started again and must hold every acknowledged change, come up by
itself, and have left nothing of the dead one and taken nothing of a neighbour.
"""

import argparse
import atexit
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from conftest import BIN, EXAMPLES, LATEST_PUBLISHED, ROOT, TRUST, Server, zip_of
from stubs import Queue

CONVERGE_SECONDS = 60
HANDLER, FILES, _ = EXAMPLES["provided.al2023"]
# It fails while it starts.
BROKEN = {"bootstrap": ("#!/bin/sh\necho broken\nexit 1\n", 0o100755)}
# Another package with the same program.
CHANGED = FILES | {"note": "changed"}


class Crashed(Exception):
    pass


def wait(condition, what, seconds=CONVERGE_SECONDS):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"still waiting for {what}")
        time.sleep(0.005)


class World:
    """A server, what was acknowledged by it, and what has not been answered."""

    def __init__(self, folder=None, environment=None, flags=()):
        self.queue = Queue()
        flags = (*flags, f"--service-endpoint=sqs={self.queue.url}")
        if environment and folder and not Path(folder, "ondol.db").exists():
            # What a first start writes is not what a scenario is about.
            Server(folder, *flags).stop()
        self.server = Server(folder, *flags, environment=environment)
        # A check that fails leaves no server behind.
        atexit.register(lambda: self.server.process.poll() is None and self.server.process.kill())
        self.model = {}
        self.asked = None
        # Events of the function `d` that were acknowledged.
        self.accepted = 0

    # --- talking to a server that may die at any moment

    def call(self, operation, **parameters):
        try:
            return getattr(self.server.client, operation)(**parameters)
        except ClientError:
            raise
        except BotoCoreError as error:
            self.died(error)

    def died(self, error):
        try:
            self.server.process.wait(10)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no answer, but the server lives: {error}") from error
        raise Crashed from error

    def change(self, key, value, operation, **parameters):
        """One change: acknowledged it must last; not answered it may or may not be there."""
        self.asked = (key, value)
        self.call(operation, **parameters)
        self.settle_model(key, value)

    def settle_model(self, key, value):
        self.asked = None
        for known in [k for k in self.model if value is None and (k == key or k[1] == key[1] and key[0] == "function" and k[0] in ("version", "scaling"))]:
            del self.model[known]
        if value is not None:
            self.model[key] = value

    def state(self):
        """What the server says it holds, in the model's form."""
        client, found = self.server.client, {}
        for provider in client.list_capacity_providers()["CapacityProviders"]:
            if provider["State"] != "Deleting":
                found["provider", provider["CapacityProviderArn"].rsplit(":", 1)[1]] = True
        for layer in client.list_layers()["Layers"]:
            found["layer", layer["LayerName"]] = layer["LatestMatchingVersion"]["Version"]
        for role in self.server.make_client("iam").list_roles(PathPrefix="/crash/")["Roles"]:
            found["role", role["RoleName"]] = role["Description"]
        for function in client.list_functions(FunctionVersion="ALL")["Functions"]:
            name, version = function["FunctionName"], function["Version"]
            try:
                shown = client.get_function_configuration(FunctionName=name, Qualifier=version)
                if shown["State"] == "Deleting":
                    continue
                if version == "$LATEST":
                    found["function", name] = shown["CodeSha256"]
                    continue
                config = client.get_function_scaling_config(FunctionName=name, Qualifier=version)
            except client.exceptions.ResourceNotFoundException:
                # A deletion that goes on after the start finished between the list and the question.
                continue
            found["version", name, version] = shown["CodeSha256"]
            wanted = config.get("RequestedFunctionScalingConfig") or config["AppliedFunctionScalingConfig"]
            found["scaling", name, version] = (wanted["MinExecutionEnvironments"], wanted.get("MaxExecutionEnvironments"))
        return found

    def check_state(self):
        """Everything acknowledged, and nothing else; the unanswered change wholly or not at all."""
        found = self.state()
        without = dict(self.model)
        outcome = "nothing was asked"
        if self.asked:
            key, value = self.asked
            self.settle_model(key, value)
            outcome = "kept" if self.matches(found) else "not made"
            if outcome == "not made":
                self.model = without
        assert self.matches(found), f"acknowledged {self.model}, found {found}"
        return outcome

    def matches(self, found):
        # A version's default scaling comes with it.
        wanted = dict(self.model)
        for key in list(wanted):
            if key[0] == "version":
                wanted.setdefault(("scaling", *key[1:]), (3, None))
        return wanted == found

    # --- reality

    def environments(self):
        status = self.status()
        return {e["id"]: v for v in status["functionVersions"] + status["onDemand"] for e in v["executionEnvironments"]}

    def status(self):
        try:
            return self.server.status()
        except subprocess.CalledProcessError as error:
            self.died(error)

    def converged(self):
        """Every version is as its scaling config and its load ask for, or failed with a reason."""
        versions = self.status()["functionVersions"]
        for version in versions:
            if self.is_being_updated(version["function"], version["version"]):
                # What serves may be whole before anything of the new publication has started.
                return False
            ready = sum(e["state"] == "Ready" for e in version["executionEnvironments"])
            if version["state"] == "Failed" and version["reason"] and not version["executionEnvironments"]:
                continue
            if version["state"] == "Active" and version["reasonCode"] and ready:
                continue
            # Callers who found no slot while it came up may have made it want more than its minimum.
            by_load = (version["scaling"] or {}).get("wanted", 0)
            wanted = {"Active": max(version["minExecutionEnvironments"], by_load), "Deactivated": 0}.get(version["state"])
            if ready != wanted or len(version["executionEnvironments"]) != wanted:
                return False
        return {v["version"] for v in versions} >= {k[2] for k in self.model if k[0] == "version"}

    def is_being_updated(self, name, version):
        try:
            return self.call("get_function_configuration", FunctionName=name, Qualifier=version)["LastUpdateStatus"] == "InProgress"
        except self.server.client.exceptions.ResourceNotFoundException:
            return False

    def wait_converged(self):
        try:
            wait(self.converged, "the server to be as asked")
        except AssertionError as error:
            raise AssertionError(f"{error}: {json.dumps(self.status()['functionVersions'])}") from error

    def processes(self, live=()):
        """Processes in this server's groups, but for those of living environments."""
        found = []
        for listing in Path("/proc").glob("[0-9]*/cgroup"):
            try:
                groups = listing.read_text()
            except OSError:
                continue
            if f"/ondol/{self.server_id}/" in groups and not any(f"/{environment}" in groups for environment in live):
                found.append(f"process {listing.parent.name}")
        # A launcher whose server is gone.
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                mine = command.read_bytes().split(b"\0")[1:2] == [b"launcher"] and os.readlink(command.parent / "exe").startswith(BIN)
                parent = int((command.parent / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if mine and parent == 1:
                found.append(f"launcher {command.parent.name}")
        return found

    def orphans(self):
        """What is there of this server and belongs to nothing that it runs."""
        running = self.server.process.poll() is None
        live = set(self.environments()) if running else set()
        server_id = self.server_id
        found = self.processes(live)
        for folder in [*Path("/sys/fs/cgroup").glob(f"*/ondol/{server_id}/*/*/"), *Path("/sys/fs/cgroup").glob(f"ondol/{server_id}/*/*/")]:
            if folder.name not in live:
                found.append(f"group {folder}")
        folder = Path(self.server.folder)
        found += [f"run/{entry.name}" for entry in (folder / "run").iterdir() if entry.name not in live]
        found += [f"incoming/{entry.name}" for entry in (folder / "artifacts/incoming").iterdir()]
        found += [entry.name for entry in folder.glob("*.new")]
        found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
        if not running:
            found += [entry.name for entry in folder.glob("control.sock")]
            found += [f"group {group}" for group in Path("/sys/fs/cgroup").glob(f"*/ondol/{server_id}")]
        return found

    def events_ended(self):
        """Every acknowledged event is in the books, and nothing waits."""
        try:
            asked = subprocess.run([BIN, "queue", "--json", "--port", str(self.server.port)], capture_output=True, text=True, check=True)
        except subprocess.CalledProcessError as error:
            self.died(error)
        rows = {row["function"]: row for row in json.loads(asked.stdout)["functions"]}
        return all(row["queued"] == 0 for row in rows.values()) and rows.get("d", {"accepted": 0})["accepted"] >= self.accepted

    def packages_are_those_needed(self):
        # The hashes the API shows are base64, the files' names hex.
        import base64

        needed = {base64.b64decode(value).hex() for key, value in self.model.items() if key[0] in ("function", "version")}
        for (kind, name, *_), version in self.model.items():
            if kind == "layer":
                sha = self.server.client.get_layer_version(LayerName=name, VersionNumber=version)["Content"]["CodeSha256"]
                needed.add(base64.b64decode(sha).hex())
        names = lambda inner: {entry.name for entry in Path(self.server.folder, "artifacts", inner).iterdir()}
        # What serves on after an update that failed is needed too, and shown nowhere.
        if any(v["state"] == "Active" and v["reasonCode"] for v in self.status()["functionVersions"]):
            return names("zip") >= needed and names("zip") == names("unpacked")
        return names("zip") == needed == names("unpacked")

    def restart(self, environment=None):
        """Starts it again; gives the milliseconds until it is as asked."""
        self.server.process.stdout.close()
        self.server.environment = environment or {}
        started = time.monotonic()
        self.server.start()
        outcome = self.check_state()
        self.wait_converged()
        return outcome, round((time.monotonic() - started) * 1000)

    @property
    def server_id(self):
        if not hasattr(self, "_server_id"):
            self._server_id = self.status()["serverId"]
        return self._server_id


# --- scenarios: each is a list of steps, a step a function of the world


def sha(files):
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha256(zip_of(files)).digest()).decode()


def create(world, name, files):
    managed = {"CapacityProviderArn": "arn:aws:lambda:us-east-1:000000000000:capacity-provider:cp"}
    layers = ["arn:aws:lambda:us-east-1:000000000000:layer:layer:1"] if ("layer", "layer") in world.model else []
    world.change(
        ("function", name), sha(files), "create_function",
        FunctionName=name, Runtime="provided.al2023", Handler=HANDLER, Role="arn:aws:iam::000000000000:role/r", MemorySize=2048,
        Code={"ZipFile": zip_of(files)}, Layers=layers, CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": managed},
    )  # fmt: skip


def publish(world, name, version=LATEST_PUBLISHED):
    to = {"PublishTo": "LATEST_PUBLISHED"} if version == LATEST_PUBLISHED else {}
    world.change(("version", name, version), world.model["function", name], "publish_version", FunctionName=name, **to)
    world.wait_converged()


def scale(world, name, minimum, maximum, version=LATEST_PUBLISHED):
    config = {"MinExecutionEnvironments": minimum, "MaxExecutionEnvironments": maximum}
    world.change(("scaling", name, version), (minimum, maximum), "put_function_scaling_config", FunctionName=name, Qualifier=version, FunctionScalingConfig=config)
    world.wait_converged()


def scale_by_schedule(world):
    """The same by the clock, by a schedule that goes when it is done."""
    config = {"MinExecutionEnvironments": 2, "MaxExecutionEnvironments": 3}
    asked = {"FunctionName": "f", "Qualifier": LATEST_PUBLISHED, "FunctionScalingConfig": config}
    grant = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "lambda:PutFunctionScalingConfig", "Resource": "*"}]}
    try:
        iam, scheduler = world.server.make_client("iam"), world.server.make_client("scheduler")
        iam.create_role(RoleName="scaler", AssumeRolePolicyDocument=TRUST.replace("lambda", "scheduler"))
        iam.put_role_policy(RoleName="scaler", PolicyName="may", PolicyDocument=json.dumps(grant))
        world.asked = (("scaling", "f", LATEST_PUBLISHED), (2, 3))
        scheduler.create_schedule(
            Name="s", ScheduleExpression=time.strftime("at(%Y-%m-%dT%H:%M:%S)", time.gmtime()), FlexibleTimeWindow={"Mode": "OFF"}, ActionAfterCompletion="DELETE",
            Target={"Arn": "arn:aws:scheduler:::aws-sdk:lambda:putFunctionScalingConfig", "RoleArn": "arn:aws:iam::000000000000:role/scaler", "Input": json.dumps(asked)},
        )  # fmt: skip
        wait(lambda: not scheduler.list_schedules()["Schedules"], "the schedule to be done")
    except BotoCoreError as error:
        world.died(error)
    world.settle_model(*world.asked)
    world.wait_converged()


def provider(world):
    config = dict(VpcConfig={"SubnetIds": ["subnet-1", "subnet-2", "subnet-3"], "SecurityGroupIds": ["sg-1"]}, PermissionsConfig={"CapacityProviderOperatorRoleArn": "arn:aws:iam::000000000000:role/r"})
    world.change(("provider", "cp"), True, "create_capacity_provider", CapacityProviderName="cp", **config)


def layer(world):
    world.change(("layer", "layer"), 1, "publish_layer_version", LayerName="layer", Content={"ZipFile": zip_of({"lib/x": "x"})})


def update_code(world, name, files):
    world.change(("function", name), sha(files), "update_function_code", FunctionName=name, ZipFile=zip_of(files))


def create_role(world):
    iam = world.server.make_client("iam")
    world.asked = (("role", "maker"), "made")
    try:
        iam.create_role(RoleName="maker", Path="/crash/", Description="made", AssumeRolePolicyDocument=TRUST)
    except BotoCoreError as error:
        world.died(error)
    world.settle_model(("role", "maker"), "made")


def on_demand(world):
    """A Lambda (default) function, and the environment its invocation starts."""
    world.change(
        ("function", "d"), sha(FILES), "create_function",
        FunctionName="d", Runtime="provided.al2023", Handler=HANDLER, Role="arn:aws:iam::000000000000:role/r", Code={"ZipFile": zip_of(FILES)},
    )  # fmt: skip
    answered = world.call("invoke", FunctionName="d", Payload=json.dumps({"tag": "d", "wait_ms": 0}))
    assert "FunctionError" not in answered, answered["Payload"].read()


def event(world):
    """An event, whose outcome goes to another function."""
    grant = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": "*"}]}
    try:
        world.server.make_client("iam").put_role_policy(RoleName="r", PolicyName="invoke", PolicyDocument=json.dumps(grant))
    except BotoCoreError as error:
        world.died(error)
    config = {"OnSuccess": {"Destination": "arn:aws:lambda:us-east-1:000000000000:function:f"}}
    world.call("put_function_event_invoke_config", FunctionName="d", DestinationConfig=config)
    world.call("invoke", FunctionName="d", InvocationType="Event", Payload=json.dumps({"tag": "e", "wait_ms": 0}))
    world.accepted = 1
    wait(world.events_ended, "the event to end")


def batch(world):
    """A message of a queue, read for it."""
    world.queue.send(json.dumps({"tag": "q", "wait_ms": 0}))
    world.call("create_event_source_mapping", FunctionName="d", EventSourceArn="arn:aws:sqs:us-east-1:000000000000:q")

    def is_worked_off():
        if world.server.process.poll() is not None:
            raise Crashed
        return world.queue.is_empty()

    wait(is_worked_off, "the message to be worked off")


def delete_on_demand(world):
    world.change(("function", "d"), None, "delete_function", FunctionName="d")


def kill_environment(world):
    """An environment that dies by itself is replaced."""
    victim = next(e["id"] for v in world.status()["functionVersions"] for e in v["executionEnvironments"])
    kill_group(world, victim, last=True)
    wait(lambda: victim not in world.environments(), "the environment to be replaced")
    world.wait_converged()


def kill_group(world, environment, last):
    """Kills the runtime (the last process of the environment's group) or its init (the first)."""
    found = []
    for listing in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if f"/{environment}" in listing.read_text():
                found.append(int(listing.parent.name))
        except OSError:
            pass
    if found:
        try:
            os.kill(max(found) if last else min(found), signal.SIGKILL)
        except ProcessLookupError:
            pass


def delete_function(world, name):
    world.change(("function", name), None, "delete_function", FunctionName=name)
    wait(lambda: name not in {f["FunctionName"] for f in world.call("list_functions")["Functions"]}, "the function to be gone")


def delete_provider(world):
    world.change(("provider", "cp"), None, "delete_capacity_provider", CapacityProviderName="cp")
    wait(lambda: not world.call("list_capacity_providers")["CapacityProviders"], "the provider to be gone")


def delete_layer(world):
    world.change(("layer", "layer"), None, "delete_layer_version", LayerName="layer", VersionNumber=1)


LIFE = [
    ("create a capacity provider", provider),
    ("publish a layer", layer),
    ("create a role", create_role),
    ("create a function", lambda w: create(w, "f", FILES)),
    ("publish", lambda w: publish(w, "f")),
    ("scale", lambda w: scale(w, "f", 2, 4)),
    ("scale by a schedule", scale_by_schedule),
    ("update the code", lambda w: update_code(w, "f", CHANGED)),
    ("publish again: roll over", lambda w: publish(w, "f")),
    ("publish a numbered version", lambda w: publish(w, "f", "1")),
    ("an environment dies: replace", kill_environment),
    ("a Lambda (default) function", on_demand),
    ("an event to it", event),
    ("a queue that it reads", batch),
    ("delete it", delete_on_demand),
    ("deactivate", lambda w: scale(w, "f", 0, 0)),
    ("reactivate", lambda w: scale(w, "f", 1, 2)),
    ("delete the function", lambda w: delete_function(w, "f")),
    ("delete the layer", delete_layer),
    ("delete the capacity provider", delete_provider),
]
FAILING = [
    ("create a capacity provider", provider),
    ("create a function that fails", lambda w: create(w, "f", BROKEN)),
    ("publish it: Failed", lambda w: publish(w, "f")),
    ("mend it", lambda w: update_code(w, "f", FILES)),
    ("publish: Active", lambda w: publish(w, "f")),
    ("break it", lambda w: update_code(w, "f", BROKEN)),
    ("publish: the update fails, the version before serves", lambda w: publish(w, "f")),
]


def packages_let_go(world):
    wait(world.packages_are_those_needed, "unneeded packages to go", 90)


LETTING_GO = [
    ("create a capacity provider", provider),
    ("create a function", lambda w: create(w, "f", FILES)),
    ("delete the function", lambda w: delete_function(w, "f")),
    ("its package goes", packages_let_go),
]
SCENARIOS = {"life": LIFE, "failing": FAILING, "letting go": LETTING_GO, "migration": []}


def play(world, steps, reached):
    for name, step in steps:
        reached[0] = name
        step(world)


def old_folder():
    import shutil

    folder = tempfile.mkdtemp(prefix="ondol-crash-")
    shutil.copytree(ROOT / "tests/data-folders/schema-1", folder, dirs_exist_ok=True)
    return folder


def trace(scenario):
    """Every point a scenario reaches, in order."""
    with tempfile.NamedTemporaryFile() as file:
        environment = {"ONDOL_CRASH_TRACE": file.name}
        world = World(old_folder() if scenario == "migration" else tempfile.mkdtemp(prefix="ondol-crash-"), environment)
        play(world, SCENARIOS[scenario], [""])
        world.server.remove()
        return list(dict.fromkeys(Path(file.name).read_text().split()))


def crash_at(point, scenario):
    environment = {"ONDOL_CRASH_AT": point}
    if scenario == "migration":
        return crash_in_migration(environment)
    folder = tempfile.mkdtemp(prefix="ondol-crash-")
    try:
        world = World(folder, environment)
    except AssertionError as error:
        assert "did not start" in str(error), error
        started = time.monotonic()
        world = World(folder)
        millis = round((time.monotonic() - started) * 1000)
        assert not world.orphans(), world.orphans()
        world.server.remove()
        return "the first start", "nothing was asked", millis
    world.server_id
    reached = ["start"]
    try:
        play(world, SCENARIOS[scenario], reached)
        # What is only reached at the end of everything.
        world.server.process.send_signal(signal.SIGTERM)
        world.server.process.wait(30)
        reached[0] = "stop"
    except Crashed:
        pass
    # The point killed whom it was to kill; a server without its launcher ends by itself.
    wanted = 1 if point.startswith("launcher.") else -signal.SIGKILL
    assert world.server.process.returncode == wanted, (point, world.server.process.returncode)
    # Processes end with the dead, not with the next start's sweep.
    wait(lambda: not world.processes(), f"the dead server's processes to end: {world.processes()}", 10)
    outcome, millis = world.restart()
    wait(world.events_ended, "every acknowledged event to end")
    if ("function", "d") in world.model and world.server.client.list_event_source_mappings()["EventSourceMappings"]:
        wait(world.queue.is_empty, "every message to be worked off")
    wait(lambda: not world.orphans(), f"nothing to be left: {world.orphans()}")
    wait(world.packages_are_those_needed, "the packages to be those needed")
    if ("function", "f") in world.model:
        delete_function(world, "f")
    world.server.stop()
    assert world.server.process.returncode == 0 and not world.orphans(), world.orphans()
    world.server.remove()
    return reached[0], outcome, millis


def crash_in_migration(environment):
    folder = old_folder()
    try:
        World(folder, environment).server.stop()
        raise AssertionError("it did not crash")
    except AssertionError as error:
        assert "did not start" in str(error), error
    started = time.monotonic()
    world = World(folder)
    wait(lambda: len(world.server.ready("kept")) == 3 and len(world.server.ready("kept", "1")) == 1, "the old folder's functions")
    millis = round((time.monotonic() - started) * 1000)
    world.server.remove()
    return "start with a data folder of schema 1", "every document is there", millis


class Neighbour:
    """A server beside, which must not notice anything."""

    def __init__(self):
        self.world = World()
        provider(self.world)
        create(self.world, "f", FILES)
        publish(self.world, "f")
        self.before = set(self.world.environments())

    def check(self):
        assert set(self.world.environments()) == self.before, "a neighbour's environments were touched"
        assert self.world.server.invoke("f", {"tag": "n", "wait_ms": 0})[0] is None
        self.world.server.remove()


# --- random kills under load


def random_kills(cycles, seed):
    chance = random.Random(seed)
    world = World()
    provider(world)
    create(world, "f", FILES)
    publish(world, "f")
    acknowledged, asked = {}, {}
    stop = threading.Event()
    counts = {"changes": 0, "invokes": 0, "throttled or cut": 0}

    def changes(number):
        """One writer for each function, so that its last acknowledged change is known."""
        name, value = f"w{number}", 0
        while not stop.is_set():
            client = world.server.client
            value += 1
            asked[name] = value
            try:
                if name not in acknowledged:
                    managed = {"CapacityProviderArn": "arn:aws:lambda:us-east-1:000000000000:capacity-provider:cp"}
                    client.create_function(FunctionName=name, Runtime="provided.al2023", Handler=HANDLER, Role="arn:aws:iam::000000000000:role/r", MemorySize=2048, Description=str(value),
                                           Code={"ZipFile": zip_of({"bootstrap": "x"})}, CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": managed})  # fmt: skip
                else:
                    client.update_function_configuration(FunctionName=name, Description=str(value))
                acknowledged[name] = value
                counts["changes"] += 1
            except ClientError as error:
                if error.response["Error"]["Code"] == "ResourceConflictException":
                    acknowledged.setdefault(name, value - 1)
            except BotoCoreError:
                time.sleep(0.01)

    def invokes():
        while not stop.is_set():
            try:
                world.server.invoke("f", {"tag": "x", "wait_ms": 5})
                counts["invokes"] += 1
            except (ClientError, BotoCoreError):
                counts["throttled or cut"] += 1
                time.sleep(0.01)

    threads = [threading.Thread(target=changes, args=(n,), daemon=True) for n in range(4)] + [threading.Thread(target=invokes, daemon=True) for _ in range(4)]
    [thread.start() for thread in threads]
    kills, recovery = {}, []
    for cycle in range(cycles):
        time.sleep(chance.uniform(0, 0.4))
        victim = chance.choice(["server", "launcher", "server and launcher", "init", "runtime"])
        pid = world.server.process.pid
        environments = list(world.environments())
        if victim in ("init", "runtime") and not environments:
            victim = "server"
        kills[victim] = kills.get(victim, 0) + 1
        if victim in ("init", "runtime"):
            kill_group(world, chance.choice(environments), last=victim == "runtime")
        else:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for target in ([pid] if "server" in victim else []) + ([int(children[0])] if "launcher" in victim else []):
                os.kill(target, signal.SIGKILL)
            world.server.process.wait(20)
            world.server.process.stdout.close()
            started = time.monotonic()
            world.server.start()
            for name, value in list(acknowledged.items()):
                shown = int(world.server.client.get_function_configuration(FunctionName=name)["Description"])
                assert shown >= value, f"cycle {cycle}: {name} was acknowledged {value}, found {shown}"
            wait(lambda: len(world.server.ready("f")) >= 3, "the environments")
            recovery.append((time.monotonic() - started) * 1000)
    stop.set()
    [thread.join(10) for thread in threads]
    for name, value in acknowledged.items():
        shown = int(world.server.client.get_function_configuration(FunctionName=name)["Description"])
        assert value <= shown <= asked[name], (name, value, shown, asked[name])
    assert counts["changes"] > cycles and counts["invokes"] > cycles, f"there was no load: {counts}"
    wait(lambda: world.converged() and not world.orphans(), f"no orphans: {world.orphans()}")
    world.server.stop()
    left = world.orphans()
    assert not left, left
    world.server.remove()
    recovery.sort()
    return {
        "cycles": cycles,
        "seed": seed,
        "kills": kills,
        "acknowledged changes": counts["changes"],
        "acknowledged changes lost": 0,
        "orphans": len(left),
        "invokes": counts["invokes"],
        "invokes throttled or cut": counts["throttled or cut"],
        "recovery ms (median, max)": [round(recovery[len(recovery) // 2]), round(recovery[-1])] if recovery else [],
    }


def lives(count):
    """Memory and descriptors over many lives of environments."""
    world = World()
    provider(world)
    create(world, "f", FILES)
    publish(world, "f")
    each = 30
    samples = []

    def sample(done):
        pid = world.server.process.pid
        launcher = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        memory = lambda p: next(int(line.split()[1]) for line in Path(f"/proc/{p}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
        descriptors = lambda p: len(list(Path(f"/proc/{p}/fd").iterdir()))
        samples.append({"lives": done, "server KiB": memory(pid), "launcher KiB": memory(launcher), "server fds": descriptors(pid), "launcher fds": descriptors(launcher)})
        print(json.dumps(samples[-1]), flush=True)

    done = 0
    while done < count:
        scale(world, "f", each, each)
        done += each
        scale(world, "f", 0, 0)
        if done % (each * max(1, count // each // 10)) == 0:
            sample(done)
    assert not world.orphans(), world.orphans()
    first, last = samples[len(samples) // 4], samples[-1]
    # Flat: what is left after each life is nothing. A leak of one descriptor or 1 KiB a life would show.
    for name in ("server fds", "launcher fds"):
        assert last[name] <= first[name] + 4, samples
    for name in ("server KiB", "launcher KiB"):
        assert last[name] - first[name] <= max(4096, (last["lives"] - first["lives"]) // 2), samples
    world.server.remove()
    return samples


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--kills", type=int, default=200)
    arguments.add_argument("--lives", type=int, default=0)
    arguments.add_argument("--seed", type=int, default=int(time.time()))
    arguments.add_argument("--only", help="one point")
    arguments.add_argument("--no-matrix", action="store_true")
    arguments.add_argument("--write", help="the page to write")
    given = arguments.parse_args()
    rows = []
    if not given.no_matrix:
        neighbour = Neighbour()
        seen = set()
        for scenario in SCENARIOS:
            for point in trace(scenario):
                if point in seen or (given.only and point != given.only):
                    continue
                seen.add(point)
                step, outcome, millis = crash_at(point, scenario)
                killed = "launcher" if point.startswith("launcher.") else "server"
                rows.append((point, killed, step, outcome, millis))
                print(f"{point:42} {killed:9} {step:48} {outcome:24} {millis} ms", flush=True)
        neighbour.check()
        if not given.only:
            # A point nobody reaches is a point nobody tests.
            listed = subprocess.run(["grep", "-rhoE", r'reach\("[a-z-]+\.[a-z-]+"\)', ROOT / "crates", "--include=*.rs"], capture_output=True, text=True, check=True).stdout
            missed = {line.split('"')[1] for line in listed.splitlines()} - seen
            assert not missed, f"no scenario reaches {missed}"
    print(f"seed {given.seed}", flush=True)
    kills = random_kills(given.kills, given.seed) if given.kills else None
    print(json.dumps(kills), flush=True)
    samples = lives(given.lives) if given.lives else []
    if given.write:
        write(given.write, rows, kills, samples)


def write(path, rows, kills, samples):
    lines = Path(path).read_text().split("<!-- measured -->")[0].rstrip().splitlines()
    lines += ["", "<!-- measured -->", "", "### At every point", "", f"{len(rows)} points; a debug build, {os.cpu_count()} CPUs.", "", "| point | killed | while | the unanswered change | as asked again after |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| `{point}` | {killed} | {step} | {outcome} | {millis} ms |" for point, killed, step, outcome, millis in rows]
    if kills:
        lines += ["", "### At random, under load", "", "| | |", "| --- | --- |"] + [f"| {name} | {json.dumps(value) if isinstance(value, (dict, list)) else value} |" for name, value in kills.items()]
    if samples:
        lines += ["", "### Over many lives of execution environments", "", "| " + " | ".join(samples[0]) + " |", "|" + " --- |" * len(samples[0])]
        lines += ["| " + " | ".join(str(value) for value in sample.values()) + " |" for sample in samples]
    Path(path).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    assert BIN
    sys.exit(main())
