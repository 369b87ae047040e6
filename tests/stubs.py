"""Other AWS services as small as a test needs them: what --service-endpoint points to."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Stub:
    """Answers with what `answer` makes of a request; remembers every request."""

    def __init__(self, answer):
        self.requests = []
        stub = self

        class Door(BaseHTTPRequestHandler):
            def reply(self):
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = {"method": self.command, "path": unquote(parts.path), "raw": parts.path, "query": parse_qs(parts.query), "headers": headers, "body": body}
                stub.requests.append(request)
                status, kind, content = answer(request)
                try:
                    self.send_response(status)
                    self.send_header("content-type", kind)
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except ConnectionError:
                    pass  # Who asked is gone.

            do_GET = do_POST = do_PUT = reply

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


class Queue(Stub):
    """A queue of SQS that outlives the server: what is received and not deleted comes again after a second."""

    def __init__(self):
        self.messages, self.hidden, self.lock = {}, {}, threading.Lock()
        super().__init__(self.answer)

    def send(self, body):
        with self.lock:
            self.messages[str(len(self.requests))] = body

    def is_empty(self):
        return not self.messages

    def answer(self, request):
        asked = json.loads(request["body"])
        with self.lock:
            given = getattr(self, request["headers"]["x-amz-target"].split(".")[1])(asked)
        if given == {}:
            time.sleep(min(asked.get("WaitTimeSeconds", 0), 0.1))
        return 200, "application/x-amz-json-1.0", json.dumps(given).encode()

    def GetQueueUrl(self, _):
        return {"QueueUrl": "http://queue/q"}

    def GetQueueAttributes(self, _):
        return {"Attributes": {"VisibilityTimeout": "30"}}

    def ReceiveMessage(self, _):
        seen = [name for name in self.messages if self.hidden.get(name, 0) < time.monotonic()]
        self.hidden |= {name: time.monotonic() + 1 for name in seen}
        shown = [{"MessageId": name, "ReceiptHandle": name, "Body": self.messages[name], "Attributes": {}} for name in seen]
        return {"Messages": shown} if shown else {}

    def DeleteMessageBatch(self, asked):
        for entry in asked["Entries"]:
            self.messages.pop(entry["ReceiptHandle"], None)
        return {"Successful": [], "Failed": []}


@contextmanager
def stub(answer):
    place = Stub(answer)
    try:
        yield place
    finally:
        place.server.shutdown()
        place.server.server_close()


def s3(buckets):
    """An S3 of {bucket: {key: {version: bytes}}}; the last version of a key is its current one."""

    def error(code, message):
        return 404, "application/xml", f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message><RequestId>1</RequestId></Error>'.encode()

    def answer(request):
        _, bucket, key = request["path"].split("/", 2)
        if bucket not in buckets:
            return error("NoSuchBucket", "The specified bucket does not exist")
        if key not in buckets[bucket]:
            return error("NoSuchKey", "The specified key does not exist.")
        versions = buckets[bucket][key]
        wanted = request["query"].get("versionId", [list(versions)[-1]])[0]
        if wanted not in versions:
            return error("NoSuchVersion", "The specified version does not exist.")
        return 200, "application/zip", versions[wanted]

    return stub(answer)


def json_service(known):
    """A service in JSON that has what `known` says of (operation, input), and nothing else."""

    def answer(request):
        operation = request["headers"]["x-amz-target"].split(".")[-1]
        found = known(operation, json.loads(request["body"]))
        if found is None:
            return 400, "application/x-amz-json-1.1", json.dumps({"__type": "ResourceNotFoundException", "message": "not here"}).encode()
        return 200, "application/x-amz-json-1.1", json.dumps(found).encode()

    return stub(answer)
