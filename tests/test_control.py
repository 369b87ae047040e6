"""Rules between control operations: revisions, what a publish makes, what an end takes along, what concurrency is promised."""

import json
import threading

import pytest

from conftest import Server, zip_of
from on_demand import LATEST, create, throttled
from test_api import PYTHON, fault
from test_layers import publish_layer

INVALID = "InvalidParameterValueException"
STALE = "PreconditionFailedException"
NEVER = "00000000-0000-4000-8000-000000000000"


def revision(server, name, **settings):
    return server.client.get_function_configuration(FunctionName=name, **settings)["RevisionId"]


def test_a_change_with_an_old_revision_is_refused(server):
    client = server.client
    create(server, "revised")
    code = lambda word: {"ZipFile": zip_of({"app.py": f"x = {word!r}\n"})}
    changes = [
        lambda **r: client.update_function_code(FunctionName="revised", **code(r["RevisionId"]), **r),
        lambda **r: client.update_function_configuration(FunctionName="revised", Description=r["RevisionId"], **r),
        lambda **r: client.add_permission(FunctionName="revised", StatementId=r["RevisionId"], Action="lambda:InvokeFunction", Principal="s3.amazonaws.com", **r),
        lambda **r: client.publish_version(FunctionName="revised", **r),
    ]
    for change in changes:
        before = revision(server, "revised")
        code_, _, status = fault(change, RevisionId=NEVER)
        assert (code_, status) == (STALE, 412)
        assert revision(server, "revised") == before, "a refusal changes nothing"
        change(RevisionId=before)
        server.settled("revised", LATEST)
    # Each change gave a new one, so that the second of two who read the same is refused.
    for change in changes[:2]:
        read = revision(server, "revised")
        change(RevisionId=read)
        server.settled("revised", LATEST)
        assert fault(change, RevisionId=read)[0] == STALE


def test_of_many_who_read_the_same_one_writes(server):
    client = server.client
    create(server, "raced")
    read = revision(server, "raced")
    outcomes = []

    def write(n):
        try:
            client.update_function_configuration(FunctionName="raced", Description=str(n), RevisionId=read)
            outcomes.append("written")
        except client.exceptions.PreconditionFailedException:
            outcomes.append("refused")

    writers = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    [writer.start() for writer in writers]
    [writer.join() for writer in writers]
    assert sorted(outcomes) == ["refused"] * 7 + ["written"]


def test_revisions_of_aliases_and_policies(server):
    client = server.client
    create(server, "of-revisions", Publish=True)
    alias = client.create_alias(FunctionName="of-revisions", Name="live", FunctionVersion="1")
    assert fault(client.update_alias, FunctionName="of-revisions", Name="live", Description="x", RevisionId=NEVER)[::2] == (STALE, 412)
    updated = client.update_alias(FunctionName="of-revisions", Name="live", Description="x", RevisionId=alias["RevisionId"])
    assert updated["RevisionId"] != alias["RevisionId"]
    assert fault(client.update_alias, FunctionName="of-revisions", Name="live", RevisionId=alias["RevisionId"])[0] == STALE
    for qualifier in ({}, {"Qualifier": "1"}, {"Qualifier": "live"}):
        permit = lambda sid, **r: client.add_permission(FunctionName="of-revisions", StatementId=sid, Action="lambda:InvokeFunction", Principal="s3.amazonaws.com", **qualifier, **r)
        permit("one")
        read = client.get_policy(FunctionName="of-revisions", **qualifier)["RevisionId"]
        permit("two", RevisionId=read)
        assert fault(permit, "three", RevisionId=read)[::2] == (STALE, 412)
        remove = lambda sid, **r: client.remove_permission(FunctionName="of-revisions", StatementId=sid, **qualifier, **r)
        assert fault(remove, "one", RevisionId=read)[::2] == (STALE, 412)
        remove("one", RevisionId=client.get_policy(FunctionName="of-revisions", **qualifier)["RevisionId"])
        policy = json.loads(client.get_policy(FunctionName="of-revisions", **qualifier)["Policy"])
        assert [statement["Sid"] for statement in policy["Statement"]] == ["two"]


def test_revisions_of_a_layer_s_policy(server):
    client = server.client
    number = publish_layer(server, "permitted", {"f": "1"})["Version"]
    permit = lambda sid, **r: client.add_layer_version_permission(LayerName="permitted", VersionNumber=number, StatementId=sid, Action="lambda:GetLayerVersion", Principal="*", **r)
    first = permit("one")["RevisionId"]
    assert fault(permit, "two", RevisionId=NEVER)[::2] == (STALE, 412)
    second = permit("two", RevisionId=first)["RevisionId"]
    assert fault(client.remove_layer_version_permission, LayerName="permitted", VersionNumber=number, StatementId="one", RevisionId=first)[0] == STALE
    client.remove_layer_version_permission(LayerName="permitted", VersionNumber=number, StatementId="one", RevisionId=second)
    policy = json.loads(client.get_layer_version_policy(LayerName="permitted", VersionNumber=number)["Policy"])
    assert [statement["Sid"] for statement in policy["Statement"]] == ["two"]


def test_a_publish_without_a_change_makes_nothing(server):
    client = server.client
    create(server, "published")
    publish = lambda **more: client.publish_version(FunctionName="published", **more)["Version"]
    assert [publish(), publish(), publish(Description="says something else")] == ["1", "1", "1"]
    client.update_function_configuration(FunctionName="published", Environment={"Variables": {"MINE": "1"}})
    server.settled("published", LATEST)
    assert [publish(), publish()] == ["2", "2"]
    same = client.get_function_configuration(FunctionName="published")["CodeSha256"]
    assert fault(client.publish_version, FunctionName="published", CodeSha256="x" * 44)[0] == INVALID
    assert publish(CodeSha256=same) == "2"
    # A number is never given twice.
    client.delete_function(FunctionName="published", Qualifier="2")
    client.update_function_configuration(FunctionName="published", Description="new")
    server.settled("published", LATEST)
    assert publish() == "3"


def test_a_version_that_an_alias_names_stays(server):
    client = server.client
    create(server, "pointed", Publish=True)
    client.update_function_configuration(FunctionName="pointed", Description="2")
    server.settled("pointed", LATEST)
    client.publish_version(FunctionName="pointed")
    client.create_alias(FunctionName="pointed", Name="live", FunctionVersion="1", RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}})
    delete = lambda version: client.delete_function(FunctionName="pointed", Qualifier=version)
    for version in ("1", "2"):
        assert fault(delete, version)[::2] == ("ResourceConflictException", 409)
    client.update_alias(FunctionName="pointed", Name="live", RoutingConfig={"AdditionalVersionWeights": {}})
    delete("2")
    assert fault(delete, "1")[0] == "ResourceConflictException"
    client.delete_alias(FunctionName="pointed", Name="live")
    delete("1")
    assert [v["Version"] for v in client.list_versions_by_function(FunctionName="pointed")["Versions"]] == [LATEST]
    assert fault(client.create_alias, FunctionName="pointed", Name="live", FunctionVersion="1")[0] == "ResourceNotFoundException"


def test_a_function_takes_everything_of_its_own_along(server):
    client = server.client

    def furnish():
        create(server, "furnished", Publish=True, Tags={"a": "1"})
        client.create_alias(FunctionName="furnished", Name="live", FunctionVersion="1")
        for qualifier in ({}, {"Qualifier": "live"}):
            client.add_permission(FunctionName="furnished", StatementId="s", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com", **qualifier)
            client.create_function_url_config(FunctionName="furnished", AuthType="NONE", **qualifier)
            client.put_function_event_invoke_config(FunctionName="furnished", MaximumRetryAttempts=1, **qualifier)
        client.put_provisioned_concurrency_config(FunctionName="furnished", Qualifier="live", ProvisionedConcurrentExecutions=1)
        client.put_function_concurrency(FunctionName="furnished", ReservedConcurrentExecutions=5)
        client.put_function_recursion_config(FunctionName="furnished", RecursiveLoop="Allow")

    furnish()
    assert client.list_function_url_configs(FunctionName="furnished")["FunctionUrlConfigs"], "else nothing is tested"
    client.delete_function(FunctionName="furnished")
    for call in (client.get_policy, client.list_aliases, client.list_versions_by_function, client.get_function_concurrency, client.get_function_url_config):
        assert fault(call, FunctionName="furnished")[::2] == ("ResourceNotFoundException", 404)
    create(server, "furnished")
    missing = lambda call, **more: fault(call, FunctionName="furnished", **more)[0] in ("ResourceNotFoundException", "ProvisionedConcurrencyConfigNotFoundException")
    for qualifier in ({}, {"Qualifier": "live"}):
        for call in (client.get_policy, client.get_function_url_config, client.get_function_event_invoke_config):
            assert missing(call, **qualifier)
    assert missing(client.get_provisioned_concurrency_config, Qualifier="live") and missing(client.get_alias, Name="live")
    assert client.list_aliases(FunctionName="furnished")["Aliases"] == []
    assert [v["Version"] for v in client.list_versions_by_function(FunctionName="furnished")["Versions"]] == [LATEST]
    assert client.list_function_url_configs(FunctionName="furnished")["FunctionUrlConfigs"] == []
    assert client.list_function_event_invoke_configs(FunctionName="furnished")["FunctionEventInvokeConfigs"] == []
    assert client.list_provisioned_concurrency_configs(FunctionName="furnished")["ProvisionedConcurrencyConfigs"] == []
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName="furnished")
    assert client.get_function_recursion_config(FunctionName="furnished")["RecursiveLoop"] == "Terminate"
    shown = client.get_function(FunctionName="furnished")
    assert "Tags" not in shown and "Concurrency" not in shown
    client.delete_function(FunctionName="furnished")
    furnish()


def test_an_alias_takes_what_hangs_on_it_along(server):
    client = server.client
    create(server, "hung", Publish=True)
    for _ in range(2):
        client.create_alias(FunctionName="hung", Name="live", FunctionVersion="1")
        for call in (client.get_policy, client.get_function_url_config, client.get_function_event_invoke_config):
            assert fault(call, FunctionName="hung", Qualifier="live")[0] == "ResourceNotFoundException"
        client.add_permission(FunctionName="hung", Qualifier="live", StatementId="s", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com")
        client.create_function_url_config(FunctionName="hung", Qualifier="live", AuthType="NONE")
        client.put_function_event_invoke_config(FunctionName="hung", Qualifier="live", MaximumRetryAttempts=1)
        client.delete_alias(FunctionName="hung", Name="live")


def test_concurrency_is_shown_and_added_up():
    server = Server(None, "--quota", "concurrent-executions=50", "--quota", "unreserved-concurrency-min=10")
    client = server.client
    try:
        limit = lambda: client.get_account_settings()["AccountLimit"]
        assert (limit()["ConcurrentExecutions"], limit()["UnreservedConcurrentExecutions"]) == (50, 50)
        for name in ("a", "b"):
            create(server, name)
        assert "Concurrency" not in client.get_function(FunctionName="a")
        assert client.put_function_concurrency(FunctionName="a", ReservedConcurrentExecutions=30)["ReservedConcurrentExecutions"] == 30
        assert client.get_function(FunctionName="a")["Concurrency"] == {"ReservedConcurrentExecutions": 30}
        assert client.get_function_concurrency(FunctionName="a")["ReservedConcurrentExecutions"] == 30
        assert limit()["UnreservedConcurrentExecutions"] == 20
        too_much = fault(client.put_function_concurrency, FunctionName="b", ReservedConcurrentExecutions=11)
        assert too_much[0] == INVALID and "below its minimum value of [10]" in too_much[1]
        client.put_function_concurrency(FunctionName="b", ReservedConcurrentExecutions=10)
        assert fault(client.put_function_concurrency, FunctionName="a", ReservedConcurrentExecutions=31)[0] == INVALID
        client.put_function_concurrency(FunctionName="a", ReservedConcurrentExecutions=0)
        assert client.get_function(FunctionName="a")["Concurrency"] == {"ReservedConcurrentExecutions": 0}
        assert throttled(server.invoke, "a") == "ReservedFunctionConcurrentInvocationLimitExceeded"
        assert limit()["UnreservedConcurrentExecutions"] == 40
        client.delete_function_concurrency(FunctionName="a")
        client.delete_function(FunctionName="b")
        assert limit()["UnreservedConcurrentExecutions"] == 50
    finally:
        server.remove()


def test_the_account_s_numbers():
    server = Server(None, "--quota", "code-storage-bytes=7000000")
    client = server.client
    try:
        limit = client.get_account_settings()["AccountLimit"]
        assert limit == {"TotalCodeSize": 7_000_000, "CodeSizeUnzipped": 262_144_000, "CodeSizeZipped": 52_428_800, "ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}
        usage = lambda: client.get_account_settings()["AccountUsage"]
        assert usage() == {"TotalCodeSize": 0, "FunctionCount": 0}
        for name in ("a", "b"):
            create(server, name, {"app.py": f"{name} = 1\n"})
        size = lambda name: client.get_function_configuration(FunctionName=name)["CodeSize"]
        assert usage() == {"TotalCodeSize": size("a") + size("b"), "FunctionCount": 2}
        client.publish_version(FunctionName="a")
        assert usage()["FunctionCount"] == 2, "a version is no function"
        client.delete_function(FunctionName="a")
        assert usage() == {"TotalCodeSize": size("b"), "FunctionCount": 1}
    finally:
        server.remove()


def test_quotas_of_capacity_providers():
    server = Server(None, "--quota", "capacity-providers=2", "--quota", "function-versions-per-capacity-provider=2")
    client = server.client
    try:
        for name in ("one", "two"):
            server.provider(name)
        assert fault(server.provider, "three")[0] == "CapacityProviderLimitExceededException"
        server.create("f", PYTHON, provider="one")
        publish = lambda n: (client.update_function_configuration(FunctionName="f", Description=str(n)), client.publish_version(FunctionName="f"))
        publish(1), publish(2)
        assert fault(publish, 3)[0] == "FunctionVersionsPerCapacityProviderLimitExceededException"
    finally:
        server.remove()


@pytest.mark.parametrize(
    "quota, ask",
    [
        ("control-requests-per-second", lambda client: client.list_functions()),
        ("get-function-requests-per-second", lambda client: client.get_function(FunctionName="f")),
        ("capacity-provider-writes-per-second", lambda client: client.delete_capacity_provider(CapacityProviderName="none")),
    ],
)
def test_quotas_of_requests(quota, ask):
    server = Server()
    try:
        create(server, "f")
        server.stop()
        server.flags = ("--quota", f"{quota}=1")
        server.start()
        slowed = 0
        # A hundred in a row take no hundred seconds.
        for _ in range(100):
            try:
                ask(server.client)
            except server.client.exceptions.TooManyRequestsException as error:
                assert error.response["Reason"] == "CallerRateLimitExceeded"
                slowed += 1
            except server.client.exceptions.ResourceNotFoundException:
                pass
        assert slowed > 0
    finally:
        server.remove()
