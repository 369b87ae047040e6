"""Reads every answer any test gets through botocore, more strictly than botocore itself does.

A client skips what it does not know and takes what it can. Here each answer is held against the service model: members,
types, enumerations, timestamps, status and headers. What does not fit fails the test that saw it. Operations that were
answered are remembered, for test_behaviours.py to ask at the end.
"""

import json
import math
import re
import threading
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from datetime import datetime

import botocore.endpoint
import pytest

SERVICES = {"lambda", "iam", "scheduler", "sts"}
# Errors of every AWS service, which no model names. docs: CommonErrors of the API reference.
COMMON = {
    "AccessDenied": 403,
    "AccessDeniedException": 403,
    "ExpiredToken": 403,
    "ExpiredTokenException": 403,
    "IncompleteSignature": 403,
    "IncompleteSignatureException": 403,
    "InternalFailure": 500,
    "InvalidAction": 400,
    "InvalidClientTokenId": 403,
    "InvalidSignatureException": 403,
    "MalformedQueryString": 404,
    "MissingAuthenticationToken": 403,
    "MissingAuthenticationTokenException": 403,
    "MissingParameter": 400,
    "NotImplemented": 501,
    "NotImplementedException": 501,
    "RequestEntityTooLargeException": 413,
    "SerializationException": 400,
    "SignatureDoesNotMatch": 403,
    "UnknownOperationException": 404,
    "UnrecognizedClientException": 403,
    "ValidationError": 400,
    "ValidationException": 400,
}
# What the model demands and the service leaves out: a function without code signing answers nothing.
LEFT_OUT = {("GetFunctionCodeSigningConfigResponse", "CodeSigningConfigArn"), ("GetFunctionCodeSigningConfigResponse", "FunctionName")}
# Values the service is said to send though its own model does not name them. Second-hand: LocalStack's provider has the
# first, answers of IAM in reports have the other.
UNNAMED = {"LastUpdateStatusReasonCode": {"Updating", "Creating"}, "PermissionsBoundaryAttachmentType": {"Policy"}}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Lambda's own text for a time: the shape is a plain string, its documentation says how it looks.
# Provisioned concurrency has no milliseconds; function URLs have microseconds and a Z.
LAMBDA_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d((\.\d{3})?\+0000|\.\d{6}Z)")

lock = threading.Lock()
answered = defaultdict(set)
"""{(service, operation): statuses}, without those that are not implemented."""
violations = []


def differences(operation, status, headers, body):
    """What does not fit the model in an answer; nothing, if all is well."""
    headers = {name.lower(): value for name, value in headers.items()}
    found = []
    if not UUID.fullmatch(headers.get("x-amzn-requestid", "")):
        found.append(f"x-amzn-RequestId is {headers.get('x-amzn-requestid')!r}")
    query = operation.service_model.metadata["protocol"] == "query"
    judge = (query_error if query else json_error) if status >= 300 else (query_answer if query else json_answer)
    judge(operation, status, headers, body, found.append)
    return found


def json_answer(operation, status, headers, body, say):
    shape = operation.output_shape
    members = dict(shape.members) if shape else {}
    placed = {name: member.serialization.get("location") for name, member in members.items()}
    if "statusCode" in placed.values():
        if not 200 <= status < 300:
            say(f"status {status}")
    elif status != operation.http.get("responseCode", 200):
        say(f"status {status}, modelled is {operation.http.get('responseCode', 200)}")
    for name, place in placed.items():
        if place == "header":
            header = headers.get(members[name].serialization["name"].lower())
            if header is not None and members[name].type_name == "string" and members[name].enum and header not in members[name].enum:
                say(f"{name}: {header!r} is none of {members[name].enum}")
    if status == 204:
        if body:
            say(f"204 with a body: {body[:80]!r}")
        return
    if shape is None or shape.serialization.get("payload") or not [n for n, place in placed.items() if place is None]:
        if body and (shape is None or not shape.serialization.get("payload")) and body.strip() != b"{}":
            say(f"a body where the model has none: {body[:80]!r}")
        return
    if not headers.get("content-type", "").startswith("application/json"):
        say(f"content-type {headers.get('content-type')!r}")
    try:
        value = json.loads(body)
    except ValueError:
        say(f"the body is no JSON: {body[:80]!r}")
        return
    structure(shape, value, operation.name, say, only=[n for n, place in placed.items() if place is None])


def structure(shape, value, path, say, only=None):
    if not isinstance(value, dict):
        say(f"{path}: {value!r} is no object")
        return
    names = {shape.members[name].serialization.get("name", name): name for name in (only if only is not None else shape.members)}
    for wire, inner in value.items():
        if wire not in names:
            say(f"{path}.{wire}: not in the model")
        else:
            any_value(shape.members[names[wire]], inner, f"{path}.{wire}", say)
    for name in shape.required_members:
        wire = shape.members[name].serialization.get("name", name)
        if wire in names and wire not in value and (shape.name, name) not in LEFT_OUT:
            say(f"{path}.{wire}: required, and not there")


def any_value(shape, value, path, say):
    kind = shape.type_name
    if value is None:
        say(f"{path}: null")
    elif kind == "structure":
        structure(shape, value, path, say)
    elif kind == "list":
        if not isinstance(value, list):
            say(f"{path}: {value!r} is no list")
            return
        for place, inner in enumerate(value):
            any_value(shape.member, inner, f"{path}[{place}]", say)
    elif kind == "map":
        if not isinstance(value, dict):
            say(f"{path}: {value!r} is no object")
            return
        for key, inner in value.items():
            any_value(shape.key, key, f"{path} key", say)
            any_value(shape.value, inner, f"{path}.{key}", say)
    elif kind in ("string", "blob", "character"):
        if not isinstance(value, str):
            say(f"{path}: {value!r} is no text")
        elif shape.name == "Timestamp" and not LAMBDA_TIME.fullmatch(value):
            say(f"{path}: {value!r} is no time as Lambda writes it")
        elif getattr(shape, "enum", None) and value not in shape.enum and value not in UNNAMED.get(shape.name, ()):
            say(f"{path}: {value!r} is none of {shape.enum}")
    elif kind in ("integer", "long"):
        if type(value) is not int:
            say(f"{path}: {value!r} is no whole number")
    elif kind in ("float", "double"):
        if type(value) not in (int, float) or not math.isfinite(value):
            say(f"{path}: {value!r} is no number")
    elif kind == "boolean":
        if type(value) is not bool:
            say(f"{path}: {value!r} is neither true nor false")
    elif kind == "timestamp":
        form = shape.serialization.get("timestampFormat", "unixTimestamp")
        number = type(value) in (int, float) and math.isfinite(value)
        if not (number if form == "unixTimestamp" else isinstance(value, str) and is_iso(value)):
            say(f"{path}: {value!r} is no {form}")
    else:
        say(f"{path}: nobody checks a {kind}")


def is_iso(text):
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo is not None
    except ValueError:
        return False


def modelled(operation, code):
    """(the error's shape or None, its status or None), by the code a client sees."""
    for shape in operation.service_model.error_shapes:
        if shape.metadata.get("error", {}).get("code", shape.name) == code or shape.name == code:
            return shape, shape.metadata.get("error", {}).get("httpStatusCode")
    return None, COMMON.get(code)


def json_error(operation, status, headers, body, say):
    code = headers.get("x-amzn-errortype", "").split(":")[0]
    shape, wanted = modelled(operation, code)
    if not code:
        say("an error without x-amzn-ErrorType")
    elif wanted is None and shape is None:
        say(f"{code} is neither in the model nor common")
    elif wanted is not None and status != wanted:
        say(f"{code} with status {status}, modelled is {wanted}")
    try:
        value = json.loads(body)
    except ValueError:
        say(f"the error's body is no JSON: {body[:80]!r}")
        return
    texts = [value.get(name) for name in ("message", "Message") if isinstance(value, dict) and name in value]
    if code == "AccessDeniedException" and value == {"message": None}:
        return  # Recorded so: a refusal without a reason.
    if not [text for text in texts if isinstance(text, str) and text]:
        say(f"an error without a message: {value!r}")
    if shape is not None and isinstance(value, dict):
        # Lambda writes either case of the word, whatever the model says; both parse.
        names = {**{name: None for name in ("message", "Message")}, **{shape.members[n].serialization.get("name", n): n for n in shape.members}}
        for wire, inner in value.items():
            if wire not in names:
                say(f"{code}.{wire}: not in the model")
            elif names[wire]:
                any_value(shape.members[names[wire]], inner, f"{code}.{wire}", say)
    if isinstance(value, dict) and value.get("Type") not in (None, "User" if status < 500 else "Service"):
        say(f"{code}: its Type is {value['Type']!r} with status {status}")


def local(element):
    return element.tag.rsplit("}", 1)[-1]


def query_answer(operation, status, headers, body, say):
    if status != 200:
        say(f"status {status}")
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        say(f"the body is no XML: {body[:80]!r}")
        return
    wanted = operation.service_model.metadata.get("xmlNamespace")
    if local(root) != f"{operation.name}Response" or wanted and not root.tag.startswith("{" + wanted + "}"):
        say(f"the root is {root.tag}")
    children = {local(child): child for child in root}
    if "ResponseMetadata" not in children or not children["ResponseMetadata"].findtext("{*}RequestId"):
        say("no ResponseMetadata with a RequestId")
    shape = operation.output_shape
    wrapper = shape.serialization.get("resultWrapper", f"{operation.name}Result") if shape else None
    for name in set(children) - {wrapper, "ResponseMetadata"}:
        say(f"{name}: not in the model")
    if shape and shape.members:
        if wrapper not in children:
            say(f"no {wrapper}")
        else:
            xml_value(shape, children[wrapper], operation.name, say)


def xml_value(shape, element, path, say):
    kind = shape.type_name
    text = element.text or ""
    if kind == "structure":
        names = {shape.members[name].serialization.get("name", name): name for name in shape.members}
        seen = {local(child) for child in element}
        for child in element:
            if local(child) not in names:
                say(f"{path}.{local(child)}: not in the model")
            else:
                xml_value(shape.members[names[local(child)]], child, f"{path}.{local(child)}", say)
        for name in shape.required_members:
            # The root user has neither, whatever the model demands of a user.
            if shape.name == "User" and name in ("Path", "UserName"):
                continue
            if shape.members[name].serialization.get("name", name) not in seen:
                say(f"{path}.{name}: required, and not there")
    elif kind == "list":
        for child in element:
            if local(child) != shape.member.serialization.get("name", "member"):
                say(f"{path}: a list of {local(child)}")
            xml_value(shape.member, child, f"{path}[]", say)
    elif kind == "map":
        for entry in element:
            if [local(child) for child in entry] != ["key", "value"]:
                say(f"{path}: a map of {[local(child) for child in entry]}")
    elif kind == "timestamp" and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", text):
        say(f"{path}: {text!r} is no time")
    elif kind in ("integer", "long") and not re.fullmatch(r"-?\d+", text):
        say(f"{path}: {text!r} is no whole number")
    elif kind == "boolean" and text not in ("true", "false"):
        say(f"{path}: {text!r} is neither true nor false")
    elif kind == "string" and shape.enum and text not in shape.enum and text not in UNNAMED.get(shape.name, ()):
        say(f"{path}: {text!r} is none of {shape.enum}")


def query_error(operation, status, headers, body, say):
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        say(f"the error's body is no XML: {body[:80]!r}")
        return
    code, message = root.findtext("{*}Error/{*}Code"), root.findtext("{*}Error/{*}Message")
    if local(root) != "ErrorResponse" or not code or not message or not root.findtext("{*}RequestId"):
        say(f"not the form of an error: {body[:200]!r}")
        return
    shape, wanted = modelled(operation, code)
    if wanted is None and shape is None:
        say(f"{code} is neither in the model nor common")
    elif wanted is not None and status != wanted:
        say(f"{code} with status {status}, modelled is {wanted}")
    if root.findtext("{*}Error/{*}Type") != ("Sender" if status < 500 else "Receiver"):
        say(f"{code}: its Type is {root.findtext('{*}Error/{*}Type')!r} with status {status}")


def heard(operation, status):
    if status != 501:
        with lock:
            answered[operation.service_model.service_name, operation.name].add(status)


def watch(convert):
    """botocore's own step from an HTTP response to its dictionary, watched."""

    def watched(http_response, operation_model):
        answer = convert(http_response, operation_model)
        if operation_model.service_model.service_name in SERVICES:
            status = http_response.status_code
            heard(operation_model, status)
            streaming = status < 300 and (operation_model.has_streaming_output or operation_model.has_event_stream_output)
            found = differences(operation_model, status, http_response.headers, b"" if streaming else http_response.content)
            if found:
                with lock:
                    violations.extend(f"{operation_model.name}: {text}" for text in found)
        return answer

    return watched


botocore.endpoint.convert_to_response_dict = watch(botocore.endpoint.convert_to_response_dict)


@pytest.fixture(autouse=True)
def every_answer_fits_the_model():
    yield
    with lock:
        # What a fixture of a module saw counts too: for the first test after it.
        found = sorted(set(violations))
        violations.clear()
    assert not found, "answers that do not fit the model:\n" + "\n".join(found)


def pytest_collection_modifyitems(config, items):
    """What asks about the whole run goes last, and only into a whole run."""
    last = [item for item in items if item.get_closest_marker("whole_run")]
    items[:] = [item for item in items if item not in last]
    options = config.option
    chosen = options.keyword or options.markexpr or getattr(options, "lf", False) or getattr(options, "deselect", None)
    files = {item.path for item in items} | {item.path for item in last}
    everything = last and files >= set(last[0].path.parent.glob("test_*.py"))
    if everything and not chosen and not any("::" in argument for argument in config.args):
        items.extend(last)
    else:
        config.hook.pytest_deselected(items=last)


def pytest_configure(config):
    config.addinivalue_line("markers", "whole_run: asks about a whole run, and is left out of any other")
