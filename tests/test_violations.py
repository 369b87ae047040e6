"""Every constraint of the model, broken: the answer names it in AWS's words, and nothing is changed.

The inputs and the expected texts are worked out from the model (constraints.py); requests are written by botocore's
serializer without its own checks, and sent as they are.
"""

import http.client
import itertools
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.serialize import create_serializer
from conftest import Server
from urllib.parse import urlencode
from xml.etree import ElementTree

from constraints import bad_values, violations
from service_model import chance, promised, service, value_for

SEED = int(os.environ.get("ONDOL_SEED", "20251122"))
ROUNDS = 3
PAIRS = 12
THREADS = 4
OPERATIONS = sorted(promised())
# IAM and STS say it in the older form of the code.
CODES = {"rest-json": "ValidationException", "query": "ValidationError"}


@pytest.fixture(scope="module")
def empty_server():
    server = Server()
    yield server
    server.remove()


def bad_structures(shape, random, above=()):
    """(what, value) of a structure with one thing wrong, anywhere in it."""
    base = value_for(shape, random)
    for name in shape.required_members:
        yield f"without {name}", {key: value for key, value in base.items() if key != name}
    for name, member in shape.members.items():
        if member.name in above:
            continue
        good = base.get(name) or value_for(member, random)
        for what, bad in bad_values(member, good):
            yield f"{name}: {what}", base | {name: bad}
        inside = (*above, member.name)
        if member.type_name == "structure":
            for what, bad in bad_structures(member, random, inside):
                yield f"{name}.{what}", base | {name: bad}
        elif member.type_name == "list" and member.member.type_name == "structure":
            for what, bad in bad_structures(member.member, random, inside):
                yield f"{name}[0].{what}", base | {name: [bad]}
                if member.metadata.get("max", 2) >= 2:
                    yield f"{name}[1].{what}", base | {name: [value_for(member.member, random), bad]}


def can_travel(shape, values):
    """Whether HTTP carries this input as it is: no empty label, no header of other bytes, no empty list in a query."""
    for name, member in shape.members.items():
        place, value = member.serialization.get("location"), values.get(name)
        if place == "uri" and (value is None or value == ""):
            return False
        if place in ("header", "headers") and isinstance(value, str) and not re.fullmatch(r"[!-~]([ -~]*[!-~])?", value):
            return False
        if place == "querystring" and value in ([], {}):
            return False
    return True


def can_travel_as_form(shape, values):
    """Whether a form can say it: it has no empty list and no empty structure."""
    return "[]" not in repr(values) and "{}" not in repr(values)


def cases(model, random):
    shape = model.input_shape
    if shape is None:
        return
    sent = can_travel if model.service_model.metadata["protocol"] == "rest-json" else can_travel_as_form
    single = [(what, values) for _ in range(ROUNDS) for what, values in bad_structures(shape, random) if sent(shape, values)]
    yield from single
    for _ in range(PAIRS if len(single) > 1 else 0):
        (one, first), (two, second) = random.sample(single, 2)
        # The second's mistake goes into the first's input.
        name = re.match(r"without (\w+)|(\w+)", two)
        name = name[1] or name[2]
        both = {key: value for key, value in first.items() if key != name}
        if name in second:
            both[name] = second[name]
        yield f"{one} and {two}", both


def request(server, model, values):
    """A signed request, as (method, target, body, headers)."""
    written = create_serializer(model.service_model.metadata["protocol"], include_validation=False).serialize_to_request(values, model)
    query = written["query_string"]
    query = urlencode(query, doseq=True) if isinstance(query, dict) else query
    separator = "&" if "?" in written["url_path"] else "?"
    target = written["url_path"] + (separator + query.replace("+", "%20") if query else "")
    body = written["body"]
    body = urlencode(body) if isinstance(body, dict) else body
    body = body if isinstance(body, bytes) else body.encode()
    signed = AWSRequest(written["method"], f"http://127.0.0.1:{server.port}{target}", headers=dict(written["headers"]), data=body)
    SigV4Auth(Credentials("test", "test"), model.service_model.service_name, "us-east-1").add_auth(signed)
    return written["method"], target, body, dict(signed.headers.items())


def read(answer, protocol):
    """(code, message) of an answer, in its protocol's form."""
    raw = answer.read()
    try:
        if protocol == "query":
            root = ElementTree.fromstring(raw)
            return root.findtext("{*}Error/{*}Code"), root.findtext("{*}Error/{*}Message") or ""
        said = json.loads(raw)
        return (answer.getheader("x-amzn-ErrorType") or "").split(":")[0], said.get("message") or said.get("Message") or ""
    except (ValueError, ElementTree.ParseError):
        return None, raw[:200].decode(errors="replace")


def short(text):
    return re.sub(r"a{40,}", lambda found: f"a…{len(found[0])}…a", str(text))[:1200]


def alike(text):
    """A text with its enumerations sorted: AWS names the values in an order of its own."""
    return re.sub(r"enum value set: \[([^\]]*)\]", lambda found: "enum value set: [" + ", ".join(sorted(found[1].split(", "))) + "]", text)


def expected(wrong):
    """Every text that would be right: the violations in any order, and each in any of its forms."""
    head = f"{len(wrong)} validation error{'s' if len(wrong) > 1 else ''} detected: "
    return {alike(head + "; ".join(texts)) for order in itertools.permutations(wrong) for texts in itertools.product(*order)}


NAMES = {name: "contain only alphanumeric characters and/or the following: +=,.@_-" for name in ("roleName", "policyName", "userName")} | {
    "path": "begin and end with / and contain only alphanumeric characters and/or / characters.",
    "pathPrefix": "begin with the / character and contain only alphanumeric characters and/or / characters.",
}


def of_names(model, wrong):
    """IAM has a sentence of its own where nothing but the characters of a name is wrong."""
    if model.service_model.service_name != "iam" or len(wrong) != 1:
        return None
    texts = next(iter(wrong[0]))
    found = re.search(r"' at '(\w+)' failed to satisfy constraint: Member must satisfy regular expression", texts)
    return found and found[1] in NAMES and {f"The specified value for {found[1]} is invalid. It must {NAMES[found[1]]}"}


def ask(server, model, planned):
    """Sends the cases of an operation one after another on one connection; gives what is wrong with the answers."""
    protocol = model.service_model.metadata["protocol"]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    found = []
    for what, values, wrong in planned:
        try:
            connection.request(*request(server, model, values))
            answer = connection.getresponse()
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            # What is refused before its body was read ends its connection.
            connection.close()
            connection.request(*request(server, model, values))
            answer = connection.getresponse()
        code, text = read(answer, protocol)
        right = of_names(model, wrong) or expected(wrong)
        if (answer.status, code) != (400, CODES[protocol]) or alike(text) not in right:
            sent = short(json.dumps(values, default=repr))
            found.append(f"{what}\n    sent     {sent}\n    answer   {answer.status} {code}: {short(text)}\n    expected {short(min(right))}")
        if answer.getheader("connection") == "close":
            connection.close()
    connection.close()
    return found


@pytest.fixture(scope="module")
def answers(empty_server):
    """All operations at once; each test then looks at its own."""

    def one(named):
        model = service(named[0]).operation_model(named[1])
        random = chance(f"{SEED} {named[1]}")
        planned = [(what, values, violations(model.input_shape, values)) for what, values in cases(model, random)]
        # Two mistakes may mend each other: then there is nothing to ask.
        planned = [case for case in planned if 1 <= len(case[2]) <= 4]
        return len(planned), ask(empty_server, model, planned)

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(OPERATIONS, pool.map(one, OPERATIONS)))


@pytest.mark.parametrize("name, operation", OPERATIONS)
def test_every_broken_constraint_is_named(answers, name, operation):
    asked, found = answers[name, operation]
    shape = service(name).operation_model(operation).input_shape
    assert asked or shape is None or not shape.members, "nothing was broken"
    assert not found, f"ONDOL_SEED={SEED}: {len(found)} of {asked}:\n" + "\n".join(found[:8])


def test_there_are_many_cases(answers):
    assert sum(asked for asked, _ in answers.values()) > 50 * len(OPERATIONS)


def test_nothing_was_changed(answers, empty_server):
    client = empty_server.client
    lists = {
        "ListFunctions": lambda: client.list_functions()["Functions"],
        "ListLayers": lambda: client.list_layers()["Layers"],
        "ListCapacityProviders": lambda: client.list_capacity_providers()["CapacityProviders"],
        "ListEventSourceMappings": lambda: client.list_event_source_mappings()["EventSourceMappings"],
        "ListCodeSigningConfigs": lambda: client.list_code_signing_configs()["CodeSigningConfigs"],
    }
    for operation in {operation for name, operation in OPERATIONS if name == "lambda"} & set(lists):
        assert lists[operation]() == [], operation
    assert client.get_account_settings()["AccountUsage"] == {"TotalCodeSize": 0, "FunctionCount": 0}
