"""Invocations: concurrency at the limit, throttles, timeouts, crashes, logs."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from conftest import EXAMPLES, LATEST_PUBLISHED, wait_until
from load import bounds


def many(server, name, count, make=lambda i: {"tag": i}):
    """`count` invocations at once; each outcome is ("ok", answer), ("error", answer) or ("throttled", cause)."""

    def one(i):
        try:
            error, answer = server.invoke(name, make(i))
            return ("error" if error else "ok"), answer
        except ClientError as fault:
            assert fault.response["Error"]["Code"] == "TooManyRequestsException", fault
            assert fault.response["Reason"] == "ConcurrentInvocationLimitExceeded"
            return "throttled", fault.response["ResponseMetadata"]["HTTPHeaders"]["x-ondol-throttle-cause"]

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.parametrize("runtime", EXAMPLES)
def test_as_many_at_once_as_the_environments_hold_and_no_more(server, runtime):
    handler, files, each = EXAMPLES[runtime]
    name = "limit-" + runtime.replace(".", "-")
    server.deploy(name, files, runtime=runtime, handler=handler, concurrency=each, Timeout=20)
    bounds(server, name, 3, 3)
    wait_until(lambda: len(server.ready(name)) == 3, "three environments")
    holds = 3 * each

    outcomes = many(server, name, holds)
    assert [kind for kind, _ in outcomes] == ["ok"] * holds
    assert [answer["tag"] for _, answer in outcomes] == list(range(holds)), "answers were crossed"
    assert len({answer["environment"] for _, answer in outcomes}) == 3

    # With a longer wait all slots are taken for certain while the rest come.
    outcomes = many(server, name, holds + 7, lambda i: {"tag": i, "wait_ms": 3000})
    throttled = [cause for kind, cause in outcomes if kind == "throttled"]
    answers = [answer for kind, answer in outcomes if kind == "ok"]
    assert throttled == ["concurrency"] * 7
    assert max(answer["most_at_once"] for answer in answers) == each
    assert all(answer["tag"] == i for i, (kind, answer) in enumerate(outcomes) if kind == "ok")
    assert server.version_status(name)["throttles"]["concurrency"] >= 7


def test_one_timeout_among_many_takes_nothing_from_the_others(server):
    code = "import time\ndef handler(event, context):\n    time.sleep(event['s'])\n    return event['s']\n"
    server.deploy("timeout", {"app.py": code}, concurrency=8, Timeout=2)
    bounds(server, "timeout", 1, 1)
    wait_until(lambda: len(server.ready("timeout")) == 1, "one environment")
    outcomes = many(server, "timeout", 8, lambda i: {"s": 4 if i == 3 else 0.5})
    assert [kind for kind, _ in outcomes] == ["ok"] * 3 + ["error"] + ["ok"] * 4
    assert outcomes[3][1]["errorType"] == "Sandbox.Timedout"
    assert outcomes[3][1]["errorMessage"].endswith("Error: Task timed out after 2.00 seconds")

    # The timed-out code goes on and holds its slot: seven are left, until it answers.
    environment = lambda: server.version_status("timeout")["executionEnvironments"][0]
    wait_until(lambda: environment()["heldByTimedOutCode"] == 1, "the slot to be shown as held")
    wait_until(lambda: environment()["inFlight"] == 0, "the late answer")
    assert [kind for kind, _ in many(server, "timeout", 8, lambda i: {"s": 0.5})] == ["ok"] * 8


def test_the_crash_of_one_environment_fails_only_its_own_and_it_is_replaced(server):
    code = """
import os, time
def handler(event, context):
    time.sleep(2)
    if event.get("crash"):
        os.kill(os.getppid(), 9)
    time.sleep(1)
    return os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
"""
    server.deploy("crash", {"app.py": code}, concurrency=4, Timeout=10)
    bounds(server, "crash", 3, 3)
    before = set(wait_until(lambda: len(e := server.ready("crash")) == 3 and e, "three environments"))
    outcomes = many(server, "crash", 12, lambda i: {"crash": i == 0})
    assert [kind for kind, _ in outcomes].count("error") == 4, outcomes
    failed = [answer for kind, answer in outcomes if kind == "error"]
    assert all(answer["errorType"] == "Runtime.ExitError" for answer in failed), failed
    assert len({answer for kind, answer in outcomes if kind == "ok"}) == 2
    after = set(wait_until(lambda: len(e := server.ready("crash")) == 3 and e, "the replacement"))
    assert len(before & after) == 2


def test_a_handler_s_error_is_the_answer(server):
    code = "def handler(event, context):\n    raise KeyError('nothing there')\n"
    server.deploy("raises", {"app.py": code}, concurrency=2)
    error, answer = server.invoke("raises")
    assert (error, answer["errorType"]) == ("Unhandled", "KeyError")


def test_the_log_tail_holds_the_invocation_s_own_lines(server):
    handler, files, each = EXAMPLES["python3.13"]
    server.deploy("tail", files, concurrency=each)
    answer = server.client.invoke(FunctionName="tail", Payload='{"tag": "mine"}', LogType="Tail")
    request = answer["ResponseMetadata"]["RequestId"]
    lines = [json.loads(line) for line in base64.b64decode(answer["LogResult"]).decode().splitlines()]
    assert [line.get("type") for line in lines] == ["platform.start", None, "platform.report"]
    assert (lines[1]["message"], lines[1]["requestId"]) == ("working on mine", request)
    assert lines[2]["record"]["status"] == "success"
    assert answer["ExecutedVersion"] == LATEST_PUBLISHED


def test_parked_polls_leave_nodejs_threads_for_files_and_names(server):
    code = """
import { readFile } from "node:fs/promises";
import { lookup } from "node:dns/promises";
export const handler = async () => {
  const file = await readFile("/etc/hosts", "utf8");
  const { address } = await lookup("localhost");
  return [file.length > 0, address, process.env.AWS_LAMBDA_NODEJS_WORKER_COUNT];
};
"""
    server.deploy("threads", {"index.mjs": code}, runtime="nodejs24.x", handler="index.handler", concurrency=16, Timeout=10)
    outcomes = many(server, "threads", 32, lambda i: {})
    assert [kind for kind, _ in outcomes] == ["ok"] * 32, outcomes
    assert all(answer[0] and answer[1] in ("127.0.0.1", "::1") and answer[2] == "8" for _, answer in outcomes)


def test_a_function_reaches_this_server_with_its_own_credentials(server):
    # botocore is pure Python; only what the Lambda client needs goes into the package.
    import botocore, dateutil, jmespath, urllib3, six
    from pathlib import Path

    files = {}
    for module in (botocore, dateutil, jmespath, urllib3):
        top = Path(module.__file__).parent
        for path in top.rglob("*"):
            inner = path.relative_to(top.parent)
            data = "data" in inner.parts and module is botocore
            wanted = path.suffix == ".py" or (data and (len(inner.parts) == 3 or "lambda" in inner.parts))
            if path.is_file() and wanted:
                files[str(inner)] = path.read_bytes()
    files["six.py"] = Path(six.__file__).read_bytes()
    files["app.py"] = """
import botocore.session, os
def handler(event, context):
    client = botocore.session.get_session().create_client("lambda")
    names = [f["FunctionName"] for f in client.list_functions()["Functions"]]
    return [os.environ["AWS_LAMBDA_FUNCTION_NAME"] in names, os.environ["AWS_ACCESS_KEY_ID"][:4]]
"""
    allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "lambda:ListFunctions", "Resource": "*"}]}
    server.make_client("iam").put_role_policy(RoleName="r", PolicyName="list", PolicyDocument=json.dumps(allow))
    server.deploy("sdk", files, concurrency=1, Timeout=30)
    assert server.invoke("sdk") == (None, [True, "ASIA"])


def test_what_is_inside_is_separate_and_bounded(server):
    code = """
import os, subprocess
def attempt(what):
    try:
        what()
        return "worked"
    except OSError as error:
        return error.strerror
def handler(event, context):
    return {
        "uid": os.getuid(), "pids": sorted(int(p) for p in os.listdir("/proc") if p.isdigit())[:1],
        "task": attempt(lambda: open("/var/task/x", "w")), "root": attempt(lambda: open("/x", "w")),
        "tmp": attempt(lambda: open("/tmp/x", "w")), "data": os.path.exists(event["data"]),
        "cpu": open("/sys/fs/cgroup/cpu.max").read().split(), "host": os.uname().nodename,
        "full": attempt(lambda: open("/tmp/full", "wb").write(b"x" * (600 << 20))),
    }
"""
    server.deploy("inside", {"app.py": code}, concurrency=1, Timeout=20)
    _, seen = server.invoke("inside", {"data": server.folder})
    assert seen["uid"] == 993 and seen["data"] is False
    assert (seen["task"], seen["root"], seen["tmp"]) == ("Read-only file system", "Read-only file system", "worked")
    assert seen["cpu"] == ["100000", "100000"]
    assert seen["full"] == "No space left on device"


WORKER_ENDS = {
    "python3.13": ("app.handler", {"app.py": "import os, time\ndef handler(event, context):\n    if event.get('end'):\n        os._exit(0)\n    time.sleep(event.get('s', 0))\n    return 1\n"}),
    "nodejs24.x": ("index.handler", {"index.mjs": "export const handler = async (event) => { if (event.end) process.exit(0); await new Promise((done) => setTimeout(done, 1000 * (event.s ?? 0))); return 1; };\n"}),
}


@pytest.mark.parametrize("runtime", WORKER_ENDS)
def test_an_environment_that_lost_a_worker_is_replaced(server, runtime):
    handler, files = WORKER_ENDS[runtime]
    name = "worker-" + runtime.replace(".", "-")
    server.deploy(name, files, runtime=runtime, handler=handler, concurrency=4, Timeout=3)
    before = set(wait_until(lambda: len(e := server.ready(name)) == 3 and e, "three environments"))
    error, answer = server.invoke(name, {"end": True})
    assert error and answer["errorType"] in ("Sandbox.Timedout", "Runtime.ExitError"), answer
    after = set(wait_until(lambda: len(e := server.ready(name)) == 3 and set(e) != before and e, "the replacement"))
    assert len(before & after) == 2
    assert [kind for kind, _ in many(server, name, 12, lambda i: {"s": 0.2})] == ["ok"] * 12


def test_another_architecture_when_asked_for():
    from conftest import Server

    server = Server(None, "--any-architecture")
    try:
        server.provider("arm", InstanceRequirements={"Architectures": ["arm64"]})
        files = {"app.py": "def handler(event, context):\n    return event\n"}
        server.deploy("arm", files, provider="arm", Architectures=["arm64"], concurrency=1)
        assert server.invoke("arm", {"x": 1}) == (None, {"x": 1})
        assert any("any architecture" in note for note in server.status()["notes"])
    finally:
        server.remove()


def test_several_invoke_threads_share_what_runs():
    """Connections land on any thread, environments live on one: invocations hop, and the limit holds."""
    from conftest import Server

    server = Server(None, "--shards", "3")
    try:
        server.provider("cp")
        handler, files, each = EXAMPLES["provided.al2023"]
        for name in ("hop-a", "hop-b"):
            server.deploy(name, files, runtime="provided.al2023", handler=handler, concurrency=each, Timeout=20)
            bounds(server, name, 3, 3)
        for name in ("hop-a", "hop-b"):
            wait_until(lambda: len(server.ready(name)) == 3, "three environments")
            assert [kind for kind, _ in many(server, name, 3 * each)] == ["ok"] * 3 * each
            outcomes = many(server, name, 3 * each + 5, lambda i: {"tag": i, "wait_ms": 3000})
            assert [kind for kind, _ in outcomes].count("throttled") == 5
    finally:
        server.remove()
