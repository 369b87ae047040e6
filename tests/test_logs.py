"""What functions, the platform and capacity providers write: kept, found again, followed, and bounded."""

import json
import subprocess
import threading
import time
from pathlib import Path

from conftest import BIN, LATEST_PUBLISHED, PROVIDER_ARN, wait_until
from test_layers import logs, messages

SPEAKS = """
import json, logging
def handler(event, context):
    print("plain " + event["word"])
    logging.getLogger().warning("warned " + event["word"])
    logging.getLogger().info("informed " + event["word"])
    print(json.dumps({"level": "DEBUG", "message": "whispered " + event["word"]}))
    return event["word"]
"""

FLOODS = """
import os, time
def handler(event, context):
    line = (b"x" * 99 + b"\\n") * 6000
    end = time.monotonic() + event["seconds"]
    written = 0
    while time.monotonic() < end:
        written += os.write(1, line)
    return written
"""


def test_lines_and_platform_events_are_kept_by_request_level_and_time(server):
    server.deploy("speaks", {"app.py": SPEAKS}, concurrency=4)
    answers = [server.client.invoke(FunctionName="speaks", Payload=json.dumps({"word": word})) for word in ("one", "two")]
    ids = [answer["ResponseMetadata"]["RequestId"] for answer in answers]
    everything = messages(server, "speaks")
    assert sum(line.startswith("plain ") for line in everything) == 2
    assert not any("whispered" in line for line in everything), "DEBUG is below the configured level"
    of_one = [json.loads(line) for line in messages(server, "speaks", "--request", ids[0])]
    kinds = [line.get("type") or line.get("level") for line in of_one]
    assert kinds[0] == "platform.start" and kinds[-1] == "platform.report" and "WARNING" in kinds, kinds
    start, report = of_one[0]["record"], of_one[-1]["record"]
    assert start == {"requestId": ids[0], "version": LATEST_PUBLISHED, "functionArn": f"arn:aws:lambda:us-east-1:000000000000:function:speaks:{LATEST_PUBLISHED}"}
    assert (report["requestId"], report["status"]) == (ids[0], "success") and report["metrics"]["durationMs"] > 0
    warned = next(line for line in of_one if line.get("level") == "WARNING")
    assert (warned["message"], warned["requestId"]) == ("warned one", ids[0])
    init = [json.loads(line) for line in everything if "platform.init" in line]
    assert {line["type"] for line in init} == {"platform.initStart", "platform.initReport"}, "initRuntimeDone is DEBUG"
    assert init[0]["record"]["initializationType"] == "lambda-managed-instances"
    # Text for people, one line each; nothing before a moment; nothing of another version.
    text = subprocess.run([BIN, "logs", "speaks", "--port", str(server.port)], capture_output=True, text=True, check=True).stdout
    assert any(line.endswith(" plain two") and "speaks[$LATEST.PUBLISHED]" in line for line in text.splitlines())
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    assert logs(server, "speaks", "--since", moment) == []
    assert logs(server, "speaks:7") == []


def test_levels_of_the_configuration_decide(server):
    server.deploy("levels", {"app.py": SPEAKS}, concurrency=1, LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "SystemLogLevel": "WARN", "LogGroup": "/my/own"})
    server.invoke("levels", {"word": "quiet"})
    found = logs(server, "levels")
    assert any("whispered quiet" in event["message"] for event in found)
    assert not any("platform." in event["message"] for event in found), "the platform's events are INFO"
    assert {event["logGroup"] for event in found} == {"/my/own"}


def test_following_shows_what_comes(server):
    server.deploy("followed", {"app.py": SPEAKS}, concurrency=1)
    follow = subprocess.Popen([BIN, "logs", "followed", "--follow", "--json", "--port", str(server.port)], stdout=subprocess.PIPE, text=True)
    try:
        seen = []
        threading.Thread(target=lambda: seen.extend(iter(follow.stdout.readline, "")), daemon=True).start()
        for word in ("first", "second"):
            server.invoke("followed", {"word": word})
            wait_until(lambda: any(f"plain {word}" in line for line in list(seen)), word)
        assert len([line for line in seen if "plain first" in line]) == 1, "nothing is shown twice"
    finally:
        follow.kill()
        follow.wait()


def test_a_capacity_provider_s_log_tells_of_its_instances(own_server):
    server = own_server
    server.provider("quiet", TelemetryConfig={"LoggingConfig": {"SystemLogLevel": "WARN"}})
    server.provider("told", TelemetryConfig={"LoggingConfig": {"LogGroup": "/providers/told"}})
    for provider in ("quiet", "told"):
        server.deploy(f"on-{provider}", {"app.py": SPEAKS}, provider=provider)
    found = [json.loads(line) for line in messages(server, "--capacity-provider", "told")]
    launched = [line for line in found if line["message"].startswith("Successfully launched ")]
    assert len(launched) == 3 and len([line for line in found if line["message"].startswith("Launching ")]) == 3
    metadata = launched[0]["metadata"]
    assert launched[0]["level"] == "INFO" and metadata["capacityProviderArn"] == PROVIDER_ARN + "told"
    assert metadata["instanceId"] in launched[0]["message"] and metadata["instanceTypes"][0] in launched[0]["message"]
    assert messages(server, "--capacity-provider", "quiet") == []


def test_a_flood_is_counted_bounded_and_slows_nobody(own_server):
    server = own_server
    server.stop()
    server.flags = ("--logs-mib", "64")
    server.start()
    server.deploy("floods", {"app.py": FLOODS}, concurrency=1, Timeout=30)
    server.deploy("calm", {"app.py": SPEAKS}, concurrency=1)
    answers = []
    flood = [threading.Thread(target=lambda: answers.append(server.invoke("floods", {"seconds": 5}))) for _ in range(2)]
    [thread.start() for thread in flood]
    calm = 0
    while any(thread.is_alive() for thread in flood):
        assert server.invoke("calm", {"word": str(calm)}) == (None, str(calm))
        calm += 1
    [thread.join() for thread in flood]
    written = sum(answer for error, answer in answers if error is None)
    assert calm > 20 and written > 100 << 20, (calm, answers)
    kept = messages(server, "calm")
    assert sum(line.startswith("plain ") for line in kept) == calm, "not a line of the calm one is lost"
    drops = [json.loads(line)["record"] for line in messages(server, "floods") if "platform.logsDropped" in line]
    assert drops and all(drop["droppedRecords"] > 0 and "MiB" in drop["reason"] for drop in drops)
    size = sum(file.stat().st_size for file in Path(server.folder, "logs").rglob("*.log"))
    assert size < 80 << 20, size
    print(f"{written >> 20} MiB written, {sum(d['droppedBytes'] for d in drops) >> 20} MiB told as dropped, {calm} calm invokes")
