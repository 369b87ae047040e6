"""Layers merged into /opt, and extensions that run beside the runtime: AWS's own crate, and a script on the raw API."""

import json
import os
import subprocess
from pathlib import Path

from conftest import BIN, EXAMPLES, LATEST_PUBLISHED, Server, wait_until, zip_of
from test_api import fault

READS_OPT = """
import os
def handler(event, context):
    def read(path):
        try:
            return open(path).read()
        except OSError as error:
            return error.strerror
    import shared
    return {"both": read("/opt/both"), "one": read("/opt/lib/one"), "write": read_only(), "shared": shared.NAME}
def read_only():
    try:
        open("/opt/x", "w")
        return "written"
    except OSError as error:
        return error.strerror
"""

# Subscribes to everything and repeats what it gets on its own output, without any library.
TELEMETRY = """#!/usr/bin/python3.13
import http.server, json, os, threading, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"]
seen = []
class Hear(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        batch = json.loads(self.rfile.read(int(self.headers["content-length"])))
        for event in batch:
            if event["type"] != "extension":
                print("heard " + json.dumps({"type": event["type"], "record": event["record"]}), flush=True)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hear)
threading.Thread(target=server.serve_forever, daemon=True).start()
def call(method, path, body=None, **headers):
    request = urllib.request.Request(api + path, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()}, data=json.dumps(body).encode() if body is not None else None)
    return urllib.request.urlopen(request)
answer = call("POST", "/2020-01-01/extension/register", {"events": ["SHUTDOWN"]}, Lambda_Extension_Name="telemetry", Lambda_Extension_Accept_Feature="accountId")
told = json.load(answer)
print("registered " + json.dumps(told), flush=True)
me = {"Lambda_Extension_Identifier": answer.headers["Lambda-Extension-Identifier"]}
call("PUT", "/2022-07-01/telemetry", {"schemaVersion": "2025-01-29", "types": ["platform", "function"], "buffering": {"timeoutMs": 25},
     "destination": {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{server.server_address[1]}/"}}, **me)
print("ended " + call("GET", "/2020-01-01/extension/event/next", **me).read().decode(), flush=True)
"""


def publish_layer(server, name, files, **settings):
    return server.client.publish_layer_version(LayerName=name, Content={"ZipFile": zip_of(files)}, **settings)


def logs(server, *arguments):
    out = subprocess.run([BIN, "logs", "--json", "--port", str(server.port), *arguments], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in out.stdout.splitlines()]


def messages(server, *arguments):
    return [event["message"] for event in logs(server, *arguments)]


def test_layer_versions_are_made_read_listed_and_deleted(server):
    client = server.client
    first = publish_layer(server, "book", {"f": "1"}, Description="one", CompatibleRuntimes=["python3.13"], LicenseInfo="MIT")
    second = publish_layer(server, "book", {"f": "2"}, CompatibleArchitectures=["x86_64"])
    assert (first["Version"], second["Version"], first["ResponseMetadata"]["HTTPStatusCode"]) == (1, 2, 201)
    assert first["LayerVersionArn"] == "arn:aws:lambda:us-east-1:000000000000:layer:book:1" == first["LayerArn"] + ":1"
    read = client.get_layer_version(LayerName="book", VersionNumber=1)
    for key in ("LayerArn", "LayerVersionArn", "Version", "Description", "CompatibleRuntimes", "LicenseInfo", "CreatedDate"):
        assert read[key] == first[key], key
    # The link is signed with the time it ends.
    content = lambda answer: {key: value.partition("?")[0] if key == "Location" else value for key, value in answer["Content"].items()}
    assert content(read) == content(first)
    assert client.get_layer_version_by_arn(Arn=second["LayerVersionArn"])["Version"] == 2
    assert [v["Version"] for v in client.list_layer_versions(LayerName="book")["LayerVersions"]] == [2, 1]
    assert [v["Version"] for v in client.list_layer_versions(LayerName="book", CompatibleRuntime="python3.13")["LayerVersions"]] == [1]
    listed = {layer["LayerName"]: layer["LatestMatchingVersion"]["Version"] for layer in client.list_layers()["Layers"]}
    assert listed["book"] == 2
    for _ in range(2):
        deleted = client.delete_layer_version(LayerName="book", VersionNumber=2)
        assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert fault(client.get_layer_version, LayerName="book", VersionNumber=2)[:2] == ("ResourceNotFoundException", "The resource you requested does not exist.")
    assert fault(client.get_layer_version, LayerName="book", VersionNumber=0)[:2] == ("InvalidParameterValueException", "Layer Version Cannot be less than 1")
    assert publish_layer(server, "book", {"f": "3"})["Version"] == 3, "a number is never given twice"


def test_layers_are_merged_into_opt_and_outlive_their_version(server):
    one = publish_layer(server, "one", {"both": "first", "lib/one": "1", "python/shared.py": "NAME = 'from a layer'"})["LayerVersionArn"]
    two = publish_layer(server, "two", {"both": "second"})["LayerVersionArn"]
    server.deploy("layered", {"app.py": READS_OPT}, concurrency=1, Layers=[one, two])
    shown = server.client.get_function_configuration(FunctionName="layered")["Layers"]
    assert [layer["Arn"] for layer in shown] == [one, two] and all(layer["CodeSize"] > 0 for layer in shown)
    wanted = {"both": "second", "one": "1", "write": "Read-only file system", "shared": "from a layer"}
    assert server.invoke("layered") == (None, wanted)
    # A deleted layer version stays with who uses it; nobody new may.
    server.client.delete_layer_version(LayerName="two", VersionNumber=1)
    server.client.update_function_configuration(FunctionName="layered", Description="again")
    server.publish("layered")
    assert server.settled("layered")["LastUpdateStatus"] == "Successful"
    assert server.invoke("layered") == (None, wanted)
    assert fault(server.create, "late", {"app.py": READS_OPT}, Layers=[two])[:2] == ("InvalidParameterValueException", f"Layer version {two} does not exist.")
    server.client.update_function_configuration(FunctionName="layered", Layers=[one])
    assert [layer["Arn"] for layer in server.client.get_function_configuration(FunctionName="layered")["Layers"]] == [one]
    server.client.update_function_configuration(FunctionName="layered", Layers=[])
    assert "Layers" not in server.client.get_function_configuration(FunctionName="layered")


def test_layer_lists_keep_aws_s_rules(server):
    arn = publish_layer(server, "rules", {"f": "1"})["LayerVersionArn"]
    again = publish_layer(server, "rules", {"f": "2"})["LayerVersionArn"]
    cases = [
        ([f"arn:aws:lambda:us-east-1:000000000000:layer:l{n}:1" for n in range(6)], "Cannot reference more than 5 layers."),
        (["arn:aws:lambda:eu-west-1:000000000000:layer:l:1"],
         "Layers are not in the same region as the function. Layers are expected to be in region us-east-1."),
        ([arn, again], f"Two different versions of the same layer are not allowed to be referenced in the same function. {arn} and {again} are versions of the same layer."),
    ]
    for layers, text in cases:
        assert fault(server.create, "refused", {"app.py": READS_OPT}, Layers=layers)[:2] == ("InvalidParameterValueException", text)


def test_extensions_start_first_hear_telemetry_and_of_the_end(server):
    lifecycle = Path(os.environ["ONDOL_EXTENSION_EXAMPLE"]).read_bytes()
    layer = publish_layer(server, "extensions", {"extensions/lifecycle": (lifecycle, 0o100755), "extensions/telemetry": (TELEMETRY, 0o100755)})
    code = {"app.py": "import sys\ndef handler(event, context):\n    print('by the function')\n    return {'max': __import__('os').environ['AWS_LAMBDA_MAX_CONCURRENCY']}\n"}
    server.create("extended", code, concurrency=2, Layers=[layer["LayerVersionArn"]])
    server.publish("extended")
    found = server.settled("extended")
    assert found["State"] == "Active", found.get("StateReason")
    error, answer = server.invoke("extended")
    assert (error, answer) == (None, {"max": "2"})

    def heard(text):
        return [line for line in messages(server, "extended") if text in line]

    wait_until(lambda: heard("heard") and any("by the function" in line for line in heard('"type": "function"')), "telemetry of the function")
    registered = json.loads(heard("registered ")[0].removeprefix("registered "))
    assert registered == {"functionName": "extended", "functionVersion": LATEST_PUBLISHED, "handler": "app.handler", "accountId": "000000000000"}
    kinds = {json.loads(line.removeprefix("heard "))["type"] for line in heard("heard ")}
    assert {"platform.initStart", "platform.telemetrySubscription", "platform.initReport", "function"} <= kinds, kinds
    wait_until(lambda: heard('"type": "platform.report"'), "the invocation's report")
    assert len(heard("lifecycle: started for extended")) == 3

    server.client.put_function_scaling_config(FunctionName="extended", Qualifier=LATEST_PUBLISHED, FunctionScalingConfig={"MinExecutionEnvironments": 0, "MaxExecutionEnvironments": 0})
    wait_until(lambda: len(heard("lifecycle: the environment ends: spindown")) == 3, "every environment's extension to hear of its end")
    wait_until(lambda: len(heard('ended {"eventType":"SHUTDOWN","shutdownReason":"spindown"')) == 3, "the other extension too")
    wait_until(lambda: not server.version_status("extended")["executionEnvironments"], "the environments to be gone")


def test_a_layer_with_a_broken_extension_fails_the_version_and_says_why(server):
    broken = "#!/bin/sh\necho 'no licence found'\nexit 3\n"
    layer = publish_layer(server, "broken", {"extensions/broken": (broken, 0o100755)})
    server.create("broken", {"app.py": READS_OPT}, Layers=[layer["LayerVersionArn"]])
    server.publish("broken")
    found = server.settled("broken")
    assert (found["State"], found["StateReasonCode"]) == ("Failed", "FunctionError.ExtensionInitError"), found
    assert "Extension.Crash: The extension broken ended" in found["StateReason"]
    explained = lambda: subprocess.run([BIN, "explain", "broken", "--port", str(server.port)], capture_output=True, text=True, check=True).stdout  # noqa: E731
    # Its last lines come on their own way.
    wait_until(lambda: "| no licence found" in explained(), "its lines")
    assert "FunctionError.ExtensionInitError" in explained()
    many = publish_layer(server, "many", {f"extensions/e{n}": (broken, 0o100755) for n in range(11)})
    server.create("many", {"app.py": READS_OPT}, Layers=[many["LayerVersionArn"]])
    server.publish("many")
    assert server.settled("many")["StateReasonCode"] == "FunctionError.TooManyExtensions"


def test_an_extension_that_ends_takes_its_environment_along(own_server):
    server = own_server
    # It registers, is ready, and ends when it is told to by a file the function writes.
    ends = TELEMETRY.split("print(\"ended")[0].replace("import http.server", "import time, http.server") + """
threading.Thread(target=lambda: call("GET", "/2020-01-01/extension/event/next", **me), daemon=True).start()
while not os.path.exists("/tmp/end"):
    time.sleep(0.01)
"""
    layer = publish_layer(server, "ends", {"extensions/telemetry": (ends, 0o100755)})
    code = {"app.py": "import time\ndef handler(event, context):\n    open('/tmp/end', 'w')\n    time.sleep(20)\n"}
    server.create("ends", code, concurrency=1, Layers=[layer["LayerVersionArn"]], Timeout=30)
    server.publish("ends")
    assert server.settled("ends")["State"] == "Active"
    before = set(server.ready("ends"))
    error, answer = server.invoke("ends")
    assert error == "Unhandled" and answer["errorType"] == "Extension.Crash", answer
    wait_until(lambda: len(set(server.ready("ends")) - before) >= 1, "another environment in its place")


def test_what_functions_read_is_readable_whatever_the_server_s_mask():
    server = Server(umask=0o077)
    try:
        server.provider("cp")
        layer = publish_layer(server, "l", {"python/deep/er/shared.py": "NAME = 'from a layer'"})["LayerVersionArn"]
        code = {"pkg/sub/inner.py": "X = 1", "app.py": "import sys; sys.path.append('/opt/python/deep/er')\nfrom pkg.sub.inner import X\nfrom shared import NAME\ndef handler(event, context):\n    return [X, NAME, open('/sys/fs/cgroup/cpu.max').read()]\n"}
        server.deploy("masked", code, concurrency=1, Layers=[layer])
        assert server.invoke("masked") == (None, [1, "from a layer", "100000 100000\n"])
    finally:
        server.remove()


def test_layers_need_the_container_tier():
    handler, files, _ = EXAMPLES["provided.al2023"]
    server = Server(None, "--containment", "process")
    try:
        server.provider("cp")
        layer = publish_layer(server, "l", {"f": "1"})
        server.create("plain", files, runtime="provided.al2023", handler=handler, Layers=[layer["LayerVersionArn"]])
        server.publish("plain")
        found = server.settled("plain")
        assert found["StateReasonCode"] == "InvalidConfiguration" and "container tier" in found["StateReason"]
    finally:
        server.remove()
