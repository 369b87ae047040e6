"""Requests as botocore writes them, signed by hand: with any key, at any time, or not at all.

A client of botocore's takes long to make, refuses what it holds for wrong, and signs with the clock it finds. Here an
operation of the service model and its input become one request on a connection that is kept.
"""

import dataclasses
import hashlib
import http.client
import json
import threading
import xml.etree.ElementTree as ElementTree
from datetime import datetime, timedelta, timezone
from urllib.parse import urlencode, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.serialize import create_serializer
from botocore.utils import percent_encode_sequence

import recorder
from service_model import service as model_of

REGION = "us-east-1"
ROOT = Credentials("test", "test")
MATCHES_NOT = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."

kept = threading.local()


class Signature(SigV4Auth):
    """botocore's, but at a time of the test's choosing and with the headers it asks for."""

    def __init__(self, credentials, service, region=REGION, minutes=0, payload=None):
        super().__init__(credentials, service, region)
        self.minutes = minutes
        self.stated = payload

    def add_auth(self, request):
        request.context["timestamp"] = stamp(self.minutes)
        self._modify_request_before_signing(request)
        if self.stated:
            request.headers["X-Amz-Content-SHA256"] = self.stated
        text = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(request, self.signature(text, request))


def stamp(minutes=0):
    """The time of a request as `X-Amz-Date` has it."""
    return (datetime.now(timezone.utc) + timedelta(minutes=minutes)).strftime("%Y%m%dT%H%M%SZ")


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def is_xml(self):
        return self.body.startswith(b"<")

    def error(self):
        """(status, code, text), as the service's own protocol has them."""
        if self.is_xml:
            root = ElementTree.fromstring(self.body)
            return self.status, root.findtext("{*}Error/{*}Code"), root.findtext("{*}Error/{*}Message")
        told = json.loads(self.body or b"{}")
        return self.status, self.headers.get("x-amzn-errortype"), told.get("message", told.get("Message"))

    def denied(self):
        return self.status == 403 and (self.error()[1] or "").startswith("AccessDenied")

    def text(self, name):
        """The first element of a name in an answer in XML."""
        return ElementTree.fromstring(self.body).findtext(".//{*}" + name)


def written(url, service, operation, values):
    """The request for an operation, without a signature."""
    model = model_of(service)
    about = model.operation_model(operation)
    parts = create_serializer(model.metadata["protocol"]).serialize_to_request(values, about)
    query = parts["query_string"]
    if not isinstance(query, str):
        query = percent_encode_sequence(query)
    body = parts["body"]
    if isinstance(body, dict):
        body = urlencode(body)
    if isinstance(body, str):
        body = body.encode()
    address = url + parts["url_path"] + (("&" if "?" in parts["url_path"] else "?") + query if query else "")
    headers = dict(parts["headers"]) | {"Host": urlsplit(url).netloc}
    return AWSRequest(parts["method"], address, headers, body or b"")


def send(request):
    """Sends a request as it is and gives the answer."""
    address = urlsplit(request.url)
    connections = kept.__dict__.setdefault("connections", {})
    target = address.path + ("?" + address.query if address.query else "")
    for fresh in (False, True):
        if fresh or address.netloc not in connections:
            connections[address.netloc] = http.client.HTTPConnection(address.netloc, timeout=60)
        connection = connections[address.netloc]
        try:
            connection.request(request.method, target, request.data or None, dict(request.headers))
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())
        except (http.client.RemoteDisconnected, ConnectionError):
            # The server may end a connection that it kept; a fresh one counts.
            if fresh:
                raise
    raise AssertionError


def ask(url, service, operation, values, credentials=ROOT, signature=None):
    """Asks for an operation; without credentials and without a signature it is not signed."""
    request = written(url, service, operation, values)
    if signature is None and credentials is not None:
        signature = Signature(credentials, service)
    if signature is not None:
        signature.add_auth(request)
    answer = send(request)
    if answer.status >= 300:
        # Answers that are no errors are held against the model where they are asked for with a client.
        about = model_of(service).operation_model(operation)
        found = recorder.differences(about, answer.status, answer.headers, answer.body)
        with recorder.lock:
            recorder.violations.extend(f"{operation}: {text}" for text in found)
    return answer


def assumed(url, role_arn, session_name, credentials=ROOT, **more):
    """The credentials of a session of a role."""
    answer = ask(url, "sts", "AssumeRole", {"RoleArn": role_arn, "RoleSessionName": session_name, **more}, credentials)
    assert answer.status == 200, answer.body
    return Credentials(answer.text("AccessKeyId"), answer.text("SecretAccessKey"), answer.text("SessionToken"))


def sha256(body):
    return hashlib.sha256(body).hexdigest()
