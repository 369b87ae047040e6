"""Bad input: each a precise error, nothing half-created."""

import stat
import subprocess

import pytest

from conftest import BIN, Server, zip_of
from test_api import PYTHON, fault

UNZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."


@pytest.mark.parametrize(
    "files",
    [
        {"../evil.py": "x"},
        {"/etc/evil.py": "x"},
        {"link": ("../../etc", stat.S_IFLNK | 0o777)},
        {"device": ("", stat.S_IFBLK | 0o600)},
    ],
    ids=["out of its folder", "absolute", "link out of its folder", "device"],
)
def test_hostile_archives(server, files):
    assert fault(server.create, "hostile", files)[:2] == ("InvalidParameterValueException", UNZIP)
    assert fault(server.client.get_function, FunctionName="hostile")[0] == "ResourceNotFoundException"


def test_a_bomb(server):
    code, text, _ = fault(server.create, "bomb", {"zeros": b"\0" * 270_000_000})
    assert (code, text) == ("InvalidParameterValueException", "Unzipped size must be smaller than 262144000 bytes")


@pytest.mark.parametrize(
    "files, handler, code, says",
    [
        (PYTHON, "app.missing", "FunctionError.RuntimeInitError", "Runtime.HandlerNotFound"),
        (PYTHON, "nothing.handler", "FunctionError.RuntimeInitError", "Runtime.ImportModuleError"),
        ({"app.py": "import sys\nsys.exit(3)\n"}, "app.handler", "FunctionError.RuntimeInitError", "exit"),
        ({"app.py": "raise ValueError('at import')\n"}, "app.handler", "FunctionError.RuntimeInitError", "at import"),
    ],
    ids=["no such handler", "no such module", "exits at import", "raises at import"],
)
def test_code_that_does_not_start(server, files, handler, code, says):
    name = "broken-" + str(abs(hash((handler, str(files)))))[:12]
    server.create(name, files, handler=handler, concurrency=2)
    server.publish(name)
    found = server.settled(name)
    assert (found["State"], found["StateReasonCode"]) == ("Failed", code), found
    assert says in found["StateReason"], found["StateReason"]
    assert fault(server.client.invoke, FunctionName=name)[1].endswith("currently in the following state: Failed")
    server.client.delete_function(FunctionName=name)


def test_a_package_without_a_bootstrap(server):
    server.create("no-bootstrap", {"x": "y"}, runtime="provided.al2023", handler="h")
    server.publish("no-bootstrap")
    assert server.settled("no-bootstrap")["StateReasonCode"] == "FunctionError.InvalidEntryPoint"


def test_a_runtime_that_is_not_installed(server):
    server.create("dotnet", {"x": "y"}, runtime="dotnet8", handler="h")
    server.publish("dotnet")
    found = server.settled("dotnet")
    assert (found["State"], found["StateReasonCode"]) == ("Failed", "InvalidRuntime")
    assert "ondol runtime install dotnet8" in found["StateReason"]


def test_an_arm64_provider_on_this_machine(server):
    server.provider("arm", InstanceRequirements={"Architectures": ["arm64"]})
    server.create("arm", PYTHON, provider="arm", Architectures=["arm64"])
    server.publish("arm")
    found = server.settled("arm")
    assert found["State"] == "Failed" and "--any-architecture" in found["StateReason"]
    assert "Architecture mismatch" in fault(server.create, "mixed", PYTHON, provider="arm")[1]


def test_a_cap_that_is_too_small(server):
    server.provider("tiny", CapacityProviderScalingConfig={"MaxVCpuCount": 2})
    server.create("capped", PYTHON, provider="tiny")
    server.publish("capped")
    found = server.settled("capped")
    assert (found["State"], found["StateReasonCode"]) == ("Failed", "CapacityProviderScalingLimitExceeded")
    tiny = next(p for p in server.status()["capacityProviders"] if p["name"] == "tiny")
    assert tiny["vCpus"] <= 2


def test_payloads(server):
    client = server.client
    server.deploy("payload", PYTHON, concurrency=2)
    code, text, status = fault(client.invoke, FunctionName="payload", Payload=b'"' + b"x" * 6_300_000 + b'"')
    assert (code, status) == ("RequestTooLargeException", 413)
    assert fault(client.invoke, FunctionName="payload", Payload=b"{no")[1].startswith("Could not parse request body into json")
    large = "x" * 5_000_000
    assert server.invoke("payload", {"large": large}) == (None, {"large": large})
    assert fault(client.invoke, FunctionName="unknown") == (
        "ResourceNotFoundException",
        "Function not found: arn:aws:lambda:us-east-1:000000000000:function:unknown",
        404,
    )
    assert fault(client.invoke, FunctionName="bad name!")[0] == "ValidationException"
    assert fault(client.invoke, FunctionName="payload", InvocationType="Later")[0] == "ValidationException"


def test_an_answer_that_is_too_large(server):
    code = "def handler(event, context):\n    return 'x' * 6_400_000\n"
    server.deploy("huge", {"app.py": code}, concurrency=1)
    error, answer = server.invoke("huge")
    assert (error, answer["errorType"]) == ("Unhandled", "Function.ResponseSizeTooLarge")


def test_two_servers_on_one_folder_or_one_port(server):
    def second(*flags):
        run = subprocess.run([BIN, "up", *flags], capture_output=True, text=True, timeout=30)
        return run.returncode, run.stderr

    code, text = second("--port", "0", "--data-dir", server.folder)
    assert code == 1 and "another server uses the data folder" in text
    other = server.folder + "-other"
    code, text = second("--port", str(server.port), "--data-dir", other)
    assert code == 1 and "is in use" in text
    subprocess.run(["rm", "-rf", other], check=True)
