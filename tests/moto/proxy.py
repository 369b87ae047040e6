"""The one endpoint of moto's server mode: the service in the signature decides who answers.

Lambda, IAM and STS are Ondol's; everything else is moto's own server. A reset resets both.
"""

import http.client
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

OURS = {"lambda", "iam", "sts"}
HOME = "us-east-1"  # IAM and STS are the account's, not a region's: one server has them
HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length", "expect"}
SCOPE = re.compile(r"Credential=[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request")
# moto's tests create roles with a trust policy that is none; AWS's IAM refuses it, and then their helper asks for ever.
NO_POLICY = b"AssumeRolePolicyDocument=some+policy"
TRUST = b"AssumeRolePolicyDocument=" + urllib.parse.quote_plus(
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}'
).encode()
# Where a package can be had is this server's own address. moto's tests look at the name of AWS's bucket, and never ask it.
OWN_PACKAGES = re.compile(rb'(?<="Location":")http://[^/"]+/')


class Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, ondols, moto_port, moto_alone=False):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ondols = ondols
        self.moto_port = moto_port
        self.ours = set() if moto_alone else OURS
        self.iam_here = None
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def has_iam(self):
        """Whether Ondol serves IAM. As long as it does not, moto does, so that tests can have roles."""
        with self.lock:
            if self.iam_here is None:
                body = b"Action=ListRoles&Version=2010-05-08"
                headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
                self.iam_here = self.ondol("POST", "/", body, headers, HOME, "iam")[0] != 501
            return self.iam_here

    def ondol(self, method, path, body, headers, region, service):
        """Signed anew: the host is another, a frozen clock signed some of it, and tests use keys nobody knows."""
        port = self.ondols.port(region)
        kept = {name: value for name, value in headers.items() if name not in {"host", "authorization", "x-amz-date", "x-amz-security-token"}}
        request = AWSRequest(method, f"http://127.0.0.1:{port}{path}", headers=kept, data=body)
        SigV4Auth(Credentials("test", "test"), service, region).add_auth(request)
        return exchange(port, method, path, body, dict(request.headers))

    def moto(self, method, path, body, headers):
        return exchange(self.moto_port, method, path, body, headers)

    def reset(self):
        self.ondols.reset()
        return self.moto("POST", "/moto-api/reset", b"", {})


def exchange(port, method, path, body, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    try:
        connection.request(method, path, body, {**headers, "Content-Length": str(len(body))})
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A head and a body in two packets would wait for the peer's delayed acknowledgement.
    wbufsize = -1

    def answer(self):
        try:
            status, headers, body = self.route(self.read_body())
        except Exception as error:  # the test sees a 500 with the cause, not a connection that ends
            status, headers, body = 500, [("content-type", "text/plain")], f"proxy: {error!r}".encode()
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer

    def read_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def route(self, body):
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() not in HOP}
        if self.path.startswith("/moto-api/reset"):
            return self.server.reset()
        found = SCOPE.search(headers.get("authorization", "") or "Credential=" + urllib.parse.unquote(self.path.partition("X-Amz-Credential=")[2]))
        region, service = found.groups() if found else (None, None)
        if service is None and ".lambda-url." in headers.get("host", ""):
            # A function URL: unsigned, found by its host name, which names the region.
            region = headers["host"].split(".lambda-url.")[1].split(".")[0]
            return exchange(self.server.ondols.port(region), self.command, self.path, body, headers)
        if service not in self.server.ours or (service != "lambda" and not self.server.has_iam()):
            return self.server.moto(self.command, self.path, body, headers)
        if service == "iam":
            body = body.replace(NO_POLICY, TRUST)
        status, answered, text = self.server.ondol(self.command, self.path, body, headers, region if service == "lambda" else HOME, service)
        if self.command == "GET" and "/functions/" in self.path:
            text = OWN_PACKAGES.sub(f"https://awslambda-{region}-tasks.s3.{region}.amazonaws.com/".encode(), text)
        return status, answered, text

    def log_message(self, *_):
        pass
