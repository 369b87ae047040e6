"""The errors AWS was recorded to answer, each asked for here: code, status and text (recorded_errors.py)."""

import io
import itertools
import re
import zipfile

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from conftest import ROLE, Server, wait_until

from recorded_errors import NOT_REACHED, ROWS, ZIP
from service_model import LAMBDA
from test_violations import alike

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class World:
    """What the rows are about; each thing is made when the first row names it."""

    def __init__(self):
        self.server = Server()
        self.client = self.server.make_client(parameter_validation=False)
        self.made = {}
        self.count = itertools.count(1)

    def __getitem__(self, word):
        if word == "new":
            return f"new-{next(self.count)}"
        if word not in self.made:
            self.made[word] = getattr(self, f"make_{word}")()
        return self.made[word]

    def call(self, operation, send):
        send = self.filled(send)
        return getattr(self.client, xform_name(operation))(**send)

    def filled(self, value, known=None):
        """A value with its `<words>` filled in; `<new>` is the same all over one value."""
        known = {} if known is None else known
        if isinstance(value, dict):
            return {self.filled(key, known): self.filled(inner, known) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.filled(inner, known) for inner in value]
        if not isinstance(value, str):
            return value

        def word(found):
            if found[1] not in known:
                known[found[1]] = self[found[1]]
            return known[found[1]]

        whole = re.fullmatch(r"<([a-z_0-9]+)>", value)
        return word(whole) if whole else re.sub(r"<(?!uuid>)([a-z_0-9]+)>", lambda found: str(word(found)), value)

    def identity(self):
        """[partition, region, account], from the ARN of something that is there."""
        made = self.client.publish_layer_version(LayerName="probe", Content={"ZipFile": ZIP})
        self.client.delete_layer_version(LayerName="probe", VersionNumber=1)
        _, partition, _, region, account, *_ = made["LayerArn"].split(":")
        return partition, region, account

    def make_partition(self):
        return self.identity()[0]

    def make_region(self):
        return self.identity()[1]

    def make_account(self):
        return self.identity()[2]

    def make_role(self):
        try:
            trust = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}'
            return self.server.make_client("iam").create_role(RoleName="recorded", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("NotImplementedException", "NotImplemented"), error
            return ROLE

    def function(self, name, **settings):
        self.call("CreateFunction", {"FunctionName": name, "Runtime": "python3.13", "Role": "<role>", "Handler": "app.handler", "Code": {"ZipFile": ZIP}, **settings})
        self.server.settled(name, "$LATEST")
        return name

    def versioned(self, name):
        self.function(name)
        self.client.publish_version(FunctionName=name)
        self.server.settled(name, "1")
        return name

    def make_fn(self):
        name = self.versioned("recorded")
        self.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
        return name

    def make_bare(self):
        return self.function("bare")

    def make_default(self):
        return self.versioned("default")

    def make_active(self):
        return self.function("active")

    def make_throttled(self):
        name = self.function("throttled")
        self.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
        return name

    def make_reserved_one(self):
        name = self.versioned("reserved-one")
        self.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
        return name

    def provisioned(self, name, qualifier):
        self.versioned(name)
        self.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
        self.client.put_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=2)
        get = lambda: self.client.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)["Status"]
        wait_until(lambda: get() in ("READY", "FAILED"), f"{name}'s provisioned concurrency")
        return name

    def make_provisioned_version(self):
        return self.provisioned("provisioned-version", "1")

    def make_provisioned_alias(self):
        return self.provisioned("provisioned-alias", "live")

    def make_layer(self):
        self.client.publish_layer_version(LayerName="recorded", Content={"ZipFile": ZIP})
        return "recorded"

    def make_two_versions(self):
        for _ in range(2):
            self.client.publish_layer_version(LayerName="two", Content={"ZipFile": ZIP})
        return "two"

    def make_managed(self):
        arn = self.server.provider("recorded").replace("000000000000", self["account"])
        return {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": arn}}

    def make_sha256(self):
        return self.client.get_function_configuration(FunctionName=self["fn"])["CodeSha256"]

    def make_unreserved(self):
        return self.client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]

    def make_minimum_unreserved(self):
        # docs: an account keeps 100 for functions that reserve nothing.
        return 100

    def make_all_but_the_minimum(self):
        return self["unreserved"] - 99

    def make_more_than_all(self):
        return self["unreserved"] + 1

    def make_bomb(self):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", bytes(262_144_001))
        return out.getvalue()

    def make_too_large_zip(self):
        # A stored archive, as large as its content. In base64 it is still within the size of a request.
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("app.py", bytes(52_428_801))
        return out.getvalue()

    def make_too_large_request(self):
        return bytes(53_000_000)


@pytest.fixture(scope="module")
def world():
    world = World()
    yield world
    world.server.remove()


def member_shape(operation, path):
    """The shape a text's `at 'a.b'` speaks of, or its elements'."""
    shape = LAMBDA.operation_model(operation).input_shape
    for part in path.split("."):
        name = next((name for name in shape.members if name[:1].lower() + name[1:] == part), None)
        shape = shape.members[name]
    return shape


def today(operation, text):
    """A recorded text with the pattern of our model: recordings are older, and patterns are what models change."""

    def replaced(found):
        shape = member_shape(operation, found["path"])
        shape = shape.member if shape.type_name == "list" else shape
        if "pattern" not in shape.metadata:
            return found[0]
        end = "]" if found["pattern"].endswith("]") and "constraint: [" in found["head"] else ""
        last = ", Member must not be null" if end and found["pattern"].endswith(", Member must not be null]") else ""
        return found["head"] + shape.metadata["pattern"] + last + end

    return re.sub(r"(?P<head>Value .* at '(?P<path>[A-Za-z.]+)' .*regular expression pattern: )(?P<pattern>.*)", replaced, text, flags=re.DOTALL)


def rows():
    numbers = {}
    for row in ROWS:
        number = numbers[row.operation] = numbers.get(row.operation, 0) + 1
        yield pytest.param(row, id=f"{row.operation}-{number}")


@pytest.mark.parametrize("row", rows())
def test_a_recorded_error(world, row):
    known = {}
    for operation, send in row.first:
        try:
            world.call(operation, world.filled(send, known))
        except ClientError as error:
            # An earlier row of the same kind did it already.
            assert error.response["Error"]["Code"] == "ResourceConflictException", error
    send = world.filled(row.send, known)
    before = {f["FunctionName"] for f in world.client.list_functions()["Functions"]}
    with pytest.raises(ClientError) as raised:
        world.call(row.operation, send)
    response = raised.value.response
    code, text, status = response["Error"]["Code"], response["Error"]["Message"], response["ResponseMetadata"]["HTTPStatusCode"]
    assert (code, status) == row.answer, f"{code} {status}: {str(text)[:600]}"
    if row.text is None:
        assert text is None
        return
    wanted = [world.filled(one, known) for one in ([row.text] if isinstance(row.text, str) else row.text)]
    right = {alike(text) for one in wanted for text in (one, today(row.operation, one))}
    said = UUID.sub("<uuid>", text) if "<uuid>" in wanted[0] else text
    assert alike(said) in right, f"\nanswered {said[:1500]}\nrecorded {wanted[0][:1500]}"
    if row.operation == "CreateFunction":
        assert {f["FunctionName"] for f in world.client.list_functions()["Functions"]} == before, "a refused function is there"


def test_the_table_keeps_its_size():
    """The recordings are not in this repository, so that all of them are here was checked when the table was made."""
    texts = {row.text for row in ROWS}
    assert len(texts) >= 120
    assert all(why for _, _, why in NOT_REACHED)
    assert not texts & {text for _, text, _ in NOT_REACHED}
