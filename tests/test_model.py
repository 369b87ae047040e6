"""What botocore writes from the service model reaches the operation, and what comes back is of the model.

recorder.py holds every answer against the model. Here every operation is asked with inputs that keep all constraints:
none of them may be refused for its form.
"""

import os

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from conftest import Server

import recorder
from service_model import chance, promised, service, value_for

SEED = int(os.environ.get("ONDOL_SEED", "20251122"))
ROUNDS = 6


@pytest.fixture(scope="module")
def model_server():
    """Generated inputs may succeed: they get a server of their own."""
    server = Server()
    yield server
    server.remove()


def inputs(shape, random):
    """The required members alone, all members, and each optional one by itself."""
    if shape is None:
        yield {}
        return
    yield value_for(shape, random)
    for _ in range(ROUNDS):
        yield value_for(shape, random, everything=True)
    for name in shape.members:
        if name not in shape.required_members:
            yield value_for(shape, random) | {name: value_for(shape.members[name], random, everything=True)}


def tags_of_what_is_not_there(values):
    """Whether a generated ARN names a kind of resource that this version cannot have."""
    created = {"function": "CreateFunction", "capacity-provider": "CreateCapacityProvider", "event-source-mapping": "CreateEventSourceMapping", "code-signing-config": "CreateCodeSigningConfig"}
    kind = values.get("Resource", "").split(":")[5:6]
    return bool(kind) and ("lambda", created.get(kind[0])) not in promised()


@pytest.mark.parametrize("name, operation", sorted(promised()))
def test_a_good_input_is_never_refused_for_its_form(model_server, name, operation):
    model = service(name).operation_model(operation)
    client = model_server.make_client(name)
    call = getattr(client, xform_name(operation))
    random = chance(f"{SEED} {operation}")
    asked = 0
    for values in inputs(model.input_shape, random):
        what = f"ONDOL_SEED={SEED} {operation}({values})"
        try:
            call(**values)
        except ClientError as error:
            code, text = error.response["Error"]["Code"], error.response["Error"]["Message"] or ""
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            asked += 1
            if code == "NotImplementedException" and tags_of_what_is_not_there(values):
                continue
            assert code not in ("SerializationException", "UnknownOperationException", "NotImplementedException"), f"{what}: {code} {text}"
            assert status < 500 and "validation error" not in text, f"{what}: {status} {code} {text}"
            shape, _ = recorder.modelled(model, code)
            if shape:
                assert isinstance(error, getattr(client.exceptions, shape.name)), f"{what}: {code} is raised as {type(error)}"
        else:
            asked += 1
    assert asked == 1 if model.input_shape is None else asked > ROUNDS


def test_the_recorder_sees_what_is_wrong():
    """The checks of this run's answers are worth nothing if they pass anything."""
    operation = service("lambda").operation_model("GetFunctionConfiguration")
    good = {"x-amzn-RequestId": "3a6d1d9e-0000-4000-8000-000000000000", "content-type": "application/json"}

    def said(body, status=200, headers=good):
        return recorder.differences(operation, status, headers, body)

    assert said(b'{"FunctionName":"f","Timeout":3,"LastModified":"2025-11-22T10:00:00.000+0000"}') == []
    for body in (
        b'{"FunctionNames":"f"}',
        b'{"FunctionName":null}',
        b'{"FunctionName":1}',
        b'{"Timeout":"3"}',
        b'{"Timeout":3.5}',
        b'{"Timeout":true}',
        b'{"State":"Asleep"}',
        b'{"Architectures":["sparc"]}',
        b'{"VpcConfig":{"SubnetIds":"s"}}',
        b'{"LastModified":"2025-11-22T10:00:00Z"}',
        b"[]",
        b"",
    ):
        assert said(body), body
    assert said(b"{}", status=201)
    assert said(b"{}", headers={"content-type": "application/json"})
    refused = good | {"x-amzn-ErrorType": "ResourceNotFoundException"}
    assert said(b'{"Type":"User","Message":"no"}', 404, refused) == []
    assert said(b'{"Type":"User","Message":"no"}', 400, refused)
    assert said(b'{"Type":"User"}', 404, refused)
    assert said(b'{"Message":"no"}', 404, good)
    assert said(b'{"Message":"no"}', 404, good | {"x-amzn-ErrorType": "NoSuchException"})


def test_the_recorder_sees_what_is_wrong_in_xml():
    operation = service("iam").operation_model("GetRole")
    headers = {"x-amzn-RequestId": "3a6d1d9e-0000-4000-8000-000000000000"}
    role = "<Path>/</Path><RoleName>r</RoleName><RoleId>AROA</RoleId><Arn>arn:aws:iam::000000000000:role/r</Arn><CreateDate>2025-11-22T10:00:00Z</CreateDate>"
    form = '<GetRoleResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><GetRoleResult><Role>{}</Role></GetRoleResult><ResponseMetadata><RequestId>i</RequestId></ResponseMetadata></GetRoleResponse>'

    def said(body, status=200):
        return recorder.differences(operation, status, headers, body.encode())

    good = form.format(role)
    assert said(good) == []
    tags = "<Tags><member><Key>a</Key><Value>b</Value></member></Tags>"
    assert said(form.format(role + tags)) == []
    for body in (
        form.format(role + "<Colour>red</Colour>"),
        form.format(role.replace("<Path>/</Path>", "")),
        form.format(role.replace("10:00:00Z", "10:00:00+01:00")),
        form.format(role + tags.replace("member", "item")),
        form.format(role + "<MaxSessionDuration>long</MaxSessionDuration>"),
        good.replace("GetRoleR", "GetR"),
        good.replace("https://iam.amazonaws.com/doc/2010-05-08/", "urn:other"),
        good.replace("<RequestId>i</RequestId>", ""),
        "{}",
    ):
        assert said(body), body
    error = "<ErrorResponse><Error><Type>Sender</Type><Code>{}</Code><Message>no</Message></Error><RequestId>i</RequestId></ErrorResponse>"
    assert said(error.format("NoSuchEntity"), 404) == []
    assert said(error.format("NoSuchEntity"), 400)
    assert said(error.format("NoSuchThing"), 404)
    assert said(error.format("NoSuchEntity").replace("Sender", "Receiver"), 404)
    assert said(error.format("NoSuchEntity").replace("<Message>no</Message>", ""), 404)


@pytest.mark.parametrize("operation", sorted(o for s, o in promised() if s == "lambda"))
def test_what_is_not_there_is_a_modelled_exception(model_server, operation):
    """Asked for something that is not there, an operation raises one of its model's own exceptions."""
    model = service("lambda").operation_model(operation)
    members = model.input_shape.required_members if model.input_shape else []
    named = [name for name in members if name in ("FunctionName", "LayerName", "CapacityProviderName", "UUID", "CodeSigningConfigArn", "ResourceArn")]
    if not named or operation.startswith(("Create", "Publish", "DeleteLayer")) and operation != "PublishVersion":
        assert not operation.startswith("Get") or operation == "GetAccountSettings" or "Arn" in operation, f"{operation} asks for something"
        return
    client = model_server.make_client("lambda")
    values = value_for(model.input_shape, chance(SEED)) | {named[0]: "not-there"}
    if named[0] == "CodeSigningConfigArn":
        values[named[0]] = "arn:aws:lambda:us-east-1:000000000000:code-signing-config:csc-" + "0" * 17
    if named[0] == "ResourceArn":
        values[named[0]] = "arn:aws:lambda:us-east-1:000000000000:function:not-there"
    if named[0] == "UUID":
        values[named[0]] = "00000000-0000-4000-8000-000000000000"
    if operation == "ListLayerVersions":
        assert client.list_layer_versions(LayerName="not-there")["LayerVersions"] == []
        return
    with pytest.raises(ClientError) as raised:
        getattr(client, xform_name(operation))(**values)
    response = raised.value.response
    assert type(raised.value) is not ClientError, f"{operation}: {response['Error']}"
    assert response["Error"]["Message"] and response["ResponseMetadata"]["HTTPStatusCode"] < 500


def test_a_function_comes_back_as_it_was_sent(model_server):
    """Every member of a function's configuration that this server stores, there and back through botocore."""
    server = model_server
    server.provider("there-and-back")
    sent = {
        "Description": "ünïcode & \"quotes\" \\ \u2028",
        "Timeout": 17,
        "MemorySize": 4096,
        "Environment": {"Variables": {"PLAIN": "x", "MANY_BYTES": "é" * 100, "EMPTY": ""}},
        "EphemeralStorage": {"Size": 1024},
        "LoggingConfig": {"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "SystemLogLevel": "WARN", "LogGroup": "/a/b.c-d_e#1"},
    }
    created = server.create("there-and-back", {"app.py": "def handler(event, context):\n    return event\n"}, provider="there-and-back", **sent)
    read = server.client.get_function_configuration(FunctionName="there-and-back")
    listed = next(f for f in server.client.list_functions()["Functions"] if f["FunctionName"] == "there-and-back")
    for name, value in sent.items():
        for answer in (created, read, listed):
            assert answer[name] == value, name
    changed = {"Description": "", "Timeout": 18, "Environment": {"Variables": {}}}
    server.client.update_function_configuration(FunctionName="there-and-back", **changed)
    read = server.client.get_function_configuration(FunctionName="there-and-back")
    assert (read["Description"], read["Timeout"], read.get("Environment", {"Variables": {}})["Variables"]) == ("", 18, {})
