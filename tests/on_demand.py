"""What the tests of Lambda (default) functions share: making one, seeing its environments, and a place to meet its handlers."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from botocore.exceptions import ClientError

from conftest import ROLE, wait_until, zip_of

LATEST = "$LATEST"

# Does what the event says, and tells which process did it: process ids start anew in every environment.
DOES = """
import os, signal, sys, urllib.request
process = os.urandom(8).hex()
def handler(event, context):
    if "meet" in event:
        urllib.request.urlopen(event["meet"]).read()
    if "print" in event:
        print(event["print"])
    if "raise" in event:
        raise KeyError(event["raise"])
    if "exit" in event:
        os._exit(event["exit"])
    if "signal" in event:
        os.kill(os.getpid(), event["signal"])
    if "mib" in event:
        return len(b"x" * (event["mib"] << 20))
    if event.get("environment"):
        return dict(os.environ)
    return process
"""


class Meeting:
    """Handlers come here and wait to be let go: functions share this machine's network.

    So a test knows who runs at the same moment, without guessing how long anything takes.
    """

    def __init__(self):
        self.here = []
        self.open = threading.Event()
        meeting = self

        class Door(BaseHTTPRequestHandler):
            def do_GET(self):
                meeting.here.append(unquote(self.path[1:]))
                meeting.open.wait()
                try:
                    self.send_response(200)
                    self.send_header("content-length", "0")
                    self.end_headers()
                except OSError:
                    pass  # Whoever came has been ended meanwhile.

            def log_message(self, *_):
                pass

        class Hall(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 300

            def handle_error(self, *_):
                pass  # As above.

        self.server = Hall(("127.0.0.1", 0), Door)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def at(self, name):
        return f"http://127.0.0.1:{self.server.server_address[1]}/{name}"

    def wait_for(self, count):
        wait_until(lambda: len(self.here) >= count, f"{count} handlers at the meeting, {self.here} came")


@contextmanager
def meeting():
    place = Meeting()
    try:
        yield place
    finally:
        place.open.set()
        place.server.shutdown()
        place.server.server_close()


@contextmanager
def together(count):
    """A pool whose threads are waited for, whatever happens in between."""
    with ThreadPoolExecutor(count) as pool:
        yield pool


def create(server, name, files=None, runtime="python3.13", handler="app.handler", **settings):
    """A Lambda (default) function that can be invoked."""
    settings = {"Code": {"ZipFile": zip_of(files or {"app.py": DOES})}, "Timeout": 30, "Role": ROLE} | settings
    created = server.client.create_function(FunctionName=name, Runtime=runtime, Handler=handler, **settings)
    assert server.settled(name, LATEST)["State"] == "Active"
    return created


def environments(server, name, version=LATEST):
    """The execution environments of a function, as the status shows them."""
    found = [f for f in server.status()["onDemand"] if (f["function"], f["version"]) == (name, version)]
    return found[0]["executionEnvironments"] if found else []


def throttled(call, *arguments, **settings):
    """The reason of a 429 that has to come."""
    try:
        answer = call(*arguments, **settings)
    except ClientError as error:
        response = error.response
        assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == ("TooManyRequestsException", 429), response
        return response["Reason"]
    raise AssertionError(f"not throttled: {answer}")


def groups_of(server_id):
    return list(Path("/sys/fs/cgroup").glob(f"*/ondol/{server_id}/**/")) + list(Path("/sys/fs/cgroup").glob(f"ondol/{server_id}/**/"))


def report_of(line):
    """{name: value} of a REPORT line."""
    assert line.startswith("REPORT RequestId: "), line
    return dict(re.fullmatch(r"([^:]+): (.*)", part).groups() for part in line.removeprefix("REPORT ").split("\t") if part)


def invoke_at(server, name, place, tag, **event):
    return server.invoke(name, event | {"meet": place.at(tag)})


def events_of(text):
    return [json.loads(line) for line in text.splitlines() if line]
