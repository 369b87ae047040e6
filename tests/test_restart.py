"""Kill and start again: everything is there, environments come back, nothing of the dead server is left."""

from pathlib import Path

from conftest import LATEST_PUBLISHED, wait_until
from test_api import PYTHON


def processes_of(group):
    """Processes in the control groups of a server."""
    found = []
    for listing in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if f"/ondol/{group}/" in listing.read_text():
                found.append(listing.parent.name)
        except OSError:
            pass
    return found


def test_killed_and_started_again(own_server):
    server = own_server
    server.deploy("kept", PYTHON, concurrency=4)
    server.client.put_function_scaling_config(
        FunctionName="kept", Qualifier=LATEST_PUBLISHED, FunctionScalingConfig={"MinExecutionEnvironments": 2, "MaxExecutionEnvironments": 2}
    )
    wait_until(lambda: len(server.ready("kept")) == 2, "two environments")
    before = server.client.get_function(FunctionName="kept")["Configuration"]
    instances = sorted(i["id"] for p in server.status()["capacityProviders"] for i in p["instances"])
    group = server.status()["serverId"]
    assert processes_of(group)
    server.kill()
    wait_until(lambda: not processes_of(group), "the dead server's environments to end")

    server.start()
    assert server.client.get_function(FunctionName="kept")["Configuration"] == before
    wait_until(lambda: len(server.ready("kept")) == 2, "two environments again")
    assert sorted(i["id"] for p in server.status()["capacityProviders"] for i in p["instances"]) == instances
    assert server.invoke("kept", {"x": 1}) == (None, {"x": 1})

    server.stop()
    assert server.process.returncode == 0
    assert processes_of(group) == []
    assert not list(Path("/sys/fs/cgroup").glob(f"*/ondol/{group}"))
    assert list(Path(server.folder, "run").iterdir()) == []


def test_keys_for_other_addresses(own_server):
    import subprocess

    from conftest import BIN
    from test_api import fault

    made = subprocess.run([BIN, "keys", "create", "--data-dir", own_server.folder], capture_output=True, text=True, check=True)
    pairs = dict(line.removeprefix("export ").split("=", 1) for line in made.stdout.splitlines())
    client = own_server.make_client(key=pairs["AWS_ACCESS_KEY_ID"], secret=pairs["AWS_SECRET_ACCESS_KEY"])

    def works():
        try:
            return client.list_functions()["Functions"] == []
        except client.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "UnrecognizedClientException"

    wait_until(works, "the key to be seen")
    own_server.stop()
    own_server.flags = ("--listen", "0.0.0.0")
    own_server.start()
    assert fault(own_server.client.list_functions)[0] == "UnrecognizedClientException", "test/test is for the loopback only"


def test_runtimes_of_this_machine_and_plain_processes(tmp_path):
    """`--source host` needs no root filesystem of its own; `--containment process` is loud."""
    import subprocess

    from conftest import BIN, EXAMPLES, Server

    runtimes = str(tmp_path / "runtimes")
    subprocess.run([BIN, "runtime", "install", "--source", "host", "--runtime-dir", runtimes, "provided.al2023"], check=True)
    handler, files, each = EXAMPLES["provided.al2023"]
    for flags in ((), ("--containment", "process")):
        server = Server(None, "--runtime-dir", runtimes, *flags)
        try:
            server.provider("cp")
            server.deploy("host", files, runtime="provided.al2023", handler=handler, concurrency=each)
            error, answer = server.invoke("host", {"tag": "x", "wait_ms": 0})
            assert error is None and answer["tag"] == "x"
            loud = any("not separated" in note for note in server.status()["notes"])
            assert loud == bool(flags)
            # A runtime that is installed for other servers is not there for this one.
            server.create("py", PYTHON)
            server.publish("py")
            assert server.settled("py")["StateReasonCode"] == "InvalidRuntime"
        finally:
            server.remove()


def test_the_launcher_s_death_ends_everything_and_is_said(own_server):
    import os

    server = own_server
    server.deploy("doomed", PYTHON, concurrency=1)
    group = server.status()["serverId"]
    pid = server.process.pid
    os.kill(int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]), 9)
    assert server.process.wait(30) == 1
    assert "the launcher ended" in server.process.stdout.read()
    wait_until(lambda: not processes_of(group), "its environments to end")
    server.start()
    wait_until(lambda: len(server.ready("doomed")) == 3, "the environments of the next start")
