"""Listings in pages: nothing lost, nothing twice, in a steady order; and tags on everything that has them."""

import pytest
from botocore import xform_name

from conftest import ACCOUNT, PROVIDER_ARN, Server, zip_of
from on_demand import create
from test_api import PYTHON, fault
from test_control_packages import signing
from test_layers import publish_layer

QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"
NUMBERS = [str(n) for n in range(1, 13)]


@pytest.fixture(scope="module")
def full():
    """A server with more than a page of everything that is listed."""
    server = Server()
    client = server.client
    server.provider("cp")
    for n in range(3):
        server.provider(f"cp-{n}")
    server.signing = signing(server, "Warn")
    for _ in range(4):
        signing(server, "Warn")
    for name in ("a", "a-b", "a_b", "B", "z0"):
        create(server, name, CodeSigningConfigArn=server.signing)
    for n in NUMBERS:
        client.update_function_configuration(FunctionName="a", Description=n)
        server.settled("a", "$LATEST")
        assert client.publish_version(FunctionName="a")["Version"] == n
    for n in NUMBERS:
        client.create_alias(FunctionName="a", Name=f"alias-{n}", FunctionVersion=n)
    for n in NUMBERS[:5]:
        client.put_function_event_invoke_config(FunctionName="a", Qualifier=n, MaximumRetryAttempts=1)
        client.put_provisioned_concurrency_config(FunctionName="a", Qualifier=n, ProvisionedConcurrentExecutions=1)
        client.create_function_url_config(FunctionName="a", Qualifier=f"alias-{n}", AuthType="NONE")
        client.create_event_source_mapping(FunctionName="a", EventSourceArn=f"{QUEUE}{n}")
        publish_layer(server, f"layer-{n}", {"f": n})
    for n in NUMBERS[1:]:
        publish_layer(server, "layer-1", {"f": n})
    server.create("managed", PYTHON)
    for n in range(5):
        client.update_function_configuration(FunctionName="managed", Description=str(n))
        client.publish_version(FunctionName="managed")
    yield server
    server.remove()


LISTS = [
    # (operation, its other input, where the items are, what tells one from another, how many there are)
    ("ListFunctions", {}, "Functions", "FunctionArn", 6),
    ("ListFunctions", {"FunctionVersion": "ALL"}, "Functions", "FunctionArn", 6 + 12 + 5),
    ("ListVersionsByFunction", {"FunctionName": "a"}, "Versions", "Version", 13),
    ("ListAliases", {"FunctionName": "a"}, "Aliases", "AliasArn", 12),
    ("ListLayers", {}, "Layers", "LayerArn", 5),
    ("ListLayerVersions", {"LayerName": "layer-1"}, "LayerVersions", "LayerVersionArn", 12),
    ("ListEventSourceMappings", {}, "EventSourceMappings", "UUID", 5),
    ("ListEventSourceMappings", {"FunctionName": "a"}, "EventSourceMappings", "UUID", 5),
    ("ListCodeSigningConfigs", {}, "CodeSigningConfigs", "CodeSigningConfigArn", 5),
    ("ListFunctionsByCodeSigningConfig", {"CodeSigningConfigArn": None}, "FunctionArns", None, 5),
    ("ListFunctionEventInvokeConfigs", {"FunctionName": "a"}, "FunctionEventInvokeConfigs", "FunctionArn", 5),
    ("ListFunctionUrlConfigs", {"FunctionName": "a"}, "FunctionUrlConfigs", "FunctionArn", 5),
    ("ListProvisionedConcurrencyConfigs", {"FunctionName": "a"}, "ProvisionedConcurrencyConfigs", "FunctionArn", 5),
    ("ListCapacityProviders", {}, "CapacityProviders", "CapacityProviderArn", 4),
    ("ListFunctionVersionsByCapacityProvider", {"CapacityProviderName": "cp"}, "FunctionVersions", "FunctionArn", 5),
]


def pages(server, operation, asked, member, size):
    call = getattr(server.client, xform_name(operation))
    asked = {name: server.signing if value is None else value for name, value in asked.items()}
    marker, found = {}, []
    while True:
        answer = call(**asked, **marker, MaxItems=size)
        assert len(answer[member]) <= size
        found.append(answer[member])
        if not answer.get("NextMarker"):
            return found
        assert len(answer[member]) == size, "only the last page is short"
        marker = {"Marker": answer["NextMarker"]}
        assert len(found) < 100


@pytest.mark.parametrize("operation, asked, member, identity, count", LISTS)
def test_pages_together_are_the_whole(full, operation, asked, member, identity, count):
    of = lambda item: item[identity] if identity else item
    whole = [of(item) for page in pages(full, operation, asked, member, 50) for item in page]
    assert len(whole) == len(set(whole)) == count
    for size in (1, 2, 3, count):
        assert [of(item) for page in pages(full, operation, asked, member, size) for item in page] == whole, size


def test_every_listing_of_the_service_is_here(full):
    names = {name for name in full.client.meta.service_model.operation_names if name.startswith("List")}
    assert names - {operation for operation, *_ in LISTS} == {"ListTags", "ListDurableExecutionsByFunction"}


def test_orders(full):
    of = lambda operation, asked, member, what: [item[what] for page in pages(full, operation, asked, member, 5) for item in page]
    assert of("ListVersionsByFunction", {"FunctionName": "a"}, "Versions", "Version") == ["$LATEST", *NUMBERS], "by number, not by letter"
    assert of("ListLayerVersions", {"LayerName": "layer-1"}, "LayerVersions", "Version") == [int(n) for n in reversed(NUMBERS)], "the newest first"
    newest = dict(zip(of("ListLayers", {}, "Layers", "LayerName"), of("ListLayers", {}, "Layers", "LatestMatchingVersion")))
    assert newest["layer-1"]["Version"] == 12


def test_filters_go_with_pages(full):
    aliases = full.client.list_aliases(FunctionName="a", FunctionVersion="7", MaxItems=1)
    assert [alias["Name"] for alias in aliases["Aliases"]] == ["alias-7"] and not aliases.get("NextMarker")
    mappings = full.client.list_event_source_mappings(EventSourceArn=QUEUE + "3")["EventSourceMappings"]
    assert [mapping["EventSourceArn"] for mapping in mappings] == [QUEUE + "3"]
    assert full.client.list_event_source_mappings(FunctionName="B")["EventSourceMappings"] == []


def test_what_changes_between_pages_loses_nothing_else():
    server = Server()
    try:
        for n in range(6):
            create(server, f"f{n}")
        first = server.client.list_functions(MaxItems=3)
        seen = [function["FunctionName"] for function in first["Functions"]]
        # The one the marker came from goes away, and another comes before it.
        server.client.delete_function(FunctionName=seen[-1])
        create(server, "e")
        rest = server.client.list_functions(Marker=first["NextMarker"])
        after = [function["FunctionName"] for function in rest["Functions"]]
        assert not set(seen) & set(after)
        assert set(seen) | set(after) >= {f"f{n}" for n in range(6)}
    finally:
        server.remove()


def test_a_page_has_fifty_at_most(own_server):
    package = zip_of(PYTHON)
    for n in range(53):
        own_server.client.create_function(FunctionName=f"f{n}", Runtime="python3.13", Handler="h.h", Role=f"arn:aws:iam::{ACCOUNT}:role/r", Code={"ZipFile": package})
    for asked in ({}, {"MaxItems": 10000}):
        first = own_server.client.list_functions(**asked)
        assert len(first["Functions"]) == 50
        rest = own_server.client.list_functions(Marker=first["NextMarker"], **asked)
        assert len(rest["Functions"]) == 3 and not rest.get("NextMarker")


def resources(server):
    """{kind: (a new resource with one tag, the ARN of one that is not there)}"""
    client = server.client
    function = create(server, "tagged-in-every-way", Tags={"born": "yes"})["FunctionArn"]
    server.provider("tagged", Tags={"born": "yes"})
    mapping = client.create_event_source_mapping(FunctionName="tagged-in-every-way", EventSourceArn=QUEUE, Tags={"born": "yes"})["EventSourceMappingArn"]
    config = client.create_code_signing_config(AllowedPublishers={"SigningProfileVersionArns": [f"arn:aws:signer:us-east-1:{ACCOUNT}:/signing-profiles/p/0123456789"]}, Tags={"born": "yes"})
    config = config["CodeSigningConfig"]["CodeSigningConfigArn"]
    return {
        "function": (function, function + "-not"),
        "capacity provider": (PROVIDER_ARN + "tagged", PROVIDER_ARN + "not-there"),
        "event source mapping": (mapping, mapping[:-12] + "0" * 12),
        "code signing config": (config, config[:-17] + "0" * 17),
    }


def test_tags_on_every_kind_of_resource(full):
    client = full.client
    for kind, (arn, missing) in resources(full).items():
        tags = lambda: client.list_tags(Resource=arn)["Tags"]
        assert tags() == {"born": "yes"}, kind
        client.tag_resource(Resource=arn, Tags={"a": "1", "born": "again", "empty": ""})
        assert tags() == {"born": "again", "a": "1", "empty": ""}, kind
        client.untag_resource(Resource=arn, TagKeys=["a", "never-there"])
        assert tags() == {"born": "again", "empty": ""}, kind
        assert fault(client.tag_resource, Resource=arn, Tags={f"k{n}": "v" for n in range(49)})[0] == "InvalidParameterValueException", kind
        assert tags() == {"born": "again", "empty": ""}, "a refusal changes nothing"
        client.tag_resource(Resource=arn, Tags={f"k{n}": "v" for n in range(48)})
        assert len(tags()) == 50, kind
        for call, more in ((client.list_tags, {}), (client.tag_resource, {"Tags": {"a": "1"}}), (client.untag_resource, {"TagKeys": ["a"]})):
            assert fault(call, Resource=missing, **more)[::2] == ("ResourceNotFoundException", 404), kind


def test_tags_are_a_function_s_and_not_its_versions_(full):
    client = full.client
    arn = create(full, "versioned-tags", Tags={"a": "1"}, Publish=True)["FunctionArn"].removesuffix(":1")
    for qualifier in (None, "1"):
        shown = client.get_function(FunctionName="versioned-tags", **({"Qualifier": qualifier} if qualifier else {}))
        assert shown["Tags"] == {"a": "1"}
    assert fault(client.tag_resource, Resource=arn + ":1", Tags={"b": "2"})[0] == "InvalidParameterValueException"
    before = client.get_function_configuration(FunctionName="versioned-tags")["LastModified"]
    client.tag_resource(Resource=arn, Tags={"b": "2"})
    assert client.get_function_configuration(FunctionName="versioned-tags")["LastModified"] == before
