"""The command line: doctor, explain, JSON everywhere, exit codes, completions, the word to the service manager."""

import json
import os
import re
import socket
import subprocess

import pytest
from conftest import BIN, LATEST_PUBLISHED, Server, wait_until
from test_api import PYTHON

BAD_IMPORT = {"app.py": "import does_not_exist\ndef handler(event, context):\n    return 1\n"}


def ondol(*arguments, code=0, **environment):
    done = subprocess.run([BIN, *arguments], capture_output=True, text=True, timeout=60, env=os.environ | environment)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return done


def test_doctor_names_every_prerequisite_and_how_to_mend_what_is_missing(server, tmp_path):
    address = ("--port", str(server.port), "--data-dir", server.folder)
    found = {f["name"]: f for f in json.loads(ondol("doctor", "--json", *address).stdout)["findings"]}
    wanted = {"root", "kernel", "control groups", "namespaces", "overlay file system", "runtimes", "a contained process", "open files",
              "processes", "memory", "swap", "data folder", "disk", "clock", "port", "processor", "same-page merging"}  # fmt: skip
    assert set(found) == wanted
    assert found["a contained process"]["verdict"] == "good" and "answers" in found["port"]["found"]
    assert all(finding["verdict"] == "good" or finding["mend"] for finding in found.values())
    text = ondol("doctor", *address).stdout
    assert "✓ control groups: version" in text and "\x1b" not in text
    # What is missing is said with its command, and the exit code says that something is.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = ondol("doctor", "--port", str(taken.getsockname()[1]), "--runtime-dir", str(tmp_path), "--data-dir", str(tmp_path), code=1)
    assert "✗ runtimes: none\n    → ondol runtime install" in done.stdout and "✗ port: " in done.stdout, done.stdout
    assert "things this server needs are missing" in done.stderr
    nobody = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", BIN, "doctor", "--port", "0"], capture_output=True, text=True)
    assert nobody.returncode == 1 and "✗ root: not root" in nobody.stdout and "→ sudo ondol up" in nobody.stdout


def test_explain_leads_down_to_the_runtime_s_own_error(server):
    server.create("explained", BAD_IMPORT)
    port = ("--port", str(server.port))
    assert "has no published version" in ondol("explain", "explained", *port).stdout
    server.publish("explained")
    assert server.settled("explained")["State"] == "Failed"
    text = ondol("explain", "explained", *port).stdout
    assert re.search(r"explained:\$LATEST.PUBLISHED is Failed: 0 of 3 execution environments ready", text), text
    assert "because FunctionError.RuntimeInitError: Runtime.ImportModuleError" in text and "No module named 'does_not_exist'" in text
    assert "→ The function's own code failed while it was loaded" in text
    assert "the last start that failed: " in text and "explained[$LATEST.PUBLISHED]" in text, text
    page = json.loads(ondol("explain", f"explained:{LATEST_PUBLISHED}", "--json", *port).stdout)
    failure = page["versions"][0]["lastFailure"]
    assert page["versions"][0]["healthy"] is False and failure["errorType"] == "Runtime.ImportModuleError", page
    assert any("does_not_exist" in line for line in failure["lines"]), failure
    assert "There is no function explaine.\n  Did you mean explained?" in ondol("explain", "explaine", *port).stdout
    server.client.delete_function(FunctionName="explained")


def test_explain_says_what_a_pending_version_waits_for(own_server):
    server = own_server
    server.provider("small", CapacityProviderScalingConfig={"MaxVCpuCount": 2})
    server.create("waits", PYTHON, provider="small", MemorySize=32768)
    server.publish("waits")
    port = ("--port", str(server.port))
    explained = lambda: ondol("explain", "waits", *port).stdout
    # Until it has been decided about there is no other reason than that it is being created.
    text = wait_until(lambda: "vcpucount" in (text := explained()).lower() and text, "the reason")
    assert "because " in text and "→ " in text, text
    server.deploy("fine", PYTHON)
    text = ondol("explain", "fine", *port).stdout
    assert text == f"fine:{LATEST_PUBLISHED} is Active: 3 of 3 execution environments ready, 0 starting\n"


def test_every_command_speaks_json_and_its_exit_code_tells(server, tmp_path):
    port, folder = ("--port", str(server.port)), ("--data-dir", str(tmp_path))
    for command in (["env", *port], ["status", *port], ["doctor", *port], ["keys", "create", *folder], ["keys", "list", *folder], ["runtime", "list"], ["completions", "bash"]):
        json.loads(ondol(*command, "--json").stdout)
    key = json.loads(ondol("keys", "list", "--json", *folder).stdout)[0]
    assert json.loads(ondol("keys", "delete", key, "--json", *folder).stdout) == {"deleted": key}
    assert json.loads(ondol("runtime", "install", "provided.al2023", "--json").stdout)[0]["name"] == "provided.al2023"
    missing = ondol("keys", "delete", "none", "--json", *folder, code=1)
    assert "there is no access key none" in json.loads(missing.stderr)["error"]
    nobody = ondol("status", "--port", "1", code=3)
    assert nobody.stderr == "error: no server answers at 127.0.0.1:1; start one with `ondol up`\n"
    assert ondol("logs", code=2).stderr.startswith("error: the following required arguments")
    assert "did you mean" in ondol("stats", code=2).stderr or "similar" in ondol("stats", code=2).stderr
    assert "Exit codes: 0 done; 1 failed; 2 the command line is wrong; 3 no server answers." in ondol("--help").stdout
    for shell in ("bash", "zsh", "fish"):
        assert "runtime" in ondol("completions", shell).stdout


def test_the_announcement_can_be_json(tmp_path):
    process = subprocess.Popen([BIN, "up", "--json", "--port", "0", "--data-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        told = json.loads(process.stdout.readline())
        assert told["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:") and told["AWS_ACCESS_KEY_ID"] == "test"
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_the_service_manager_hears_when_it_is_ready_and_when_it_stops(tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(30)
        server = Server(environment={"NOTIFY_SOCKET": path})
        assert manager.recv(100) == b"READY=1"
        server.stop()
        assert manager.recv(100) == b"STOPPING=1"
        server.remove()


@pytest.mark.parametrize("query", ["", "function=a&group=b", "function=a&request=x", "function=a&since=yesterday", "function=a&cursor=nonsense"])
def test_pages_refuse_what_they_cannot_read(server, query):
    import botocore.auth
    import botocore.awsrequest
    import botocore.credentials
    import urllib.request

    request = botocore.awsrequest.AWSRequest("GET", f"{server.url}/_ondol/logs?{query}")
    botocore.auth.SigV4Auth(botocore.credentials.Credentials("test", "test"), "lambda", "us-east-1").add_auth(request)
    prepared = urllib.request.Request(request.url, headers=dict(request.headers))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(prepared)
    assert refused.value.code == 400 and json.load(refused.value)["Type"]
    with pytest.raises(urllib.error.HTTPError) as unsigned:
        urllib.request.urlopen(f"{server.url}/_ondol/logs?function=a")
    assert unsigned.value.code == 403
