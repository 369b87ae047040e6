"""Whole lives: what is made is read, changed, listed and ended, and every answer is compared whole, so that nothing is
missing and nothing is there too much. A member that is not expected is absent, which is not the same as empty."""

import json
import re
from datetime import datetime

import pytest

from conftest import ACCOUNT, ROLE, TRUST
from on_demand import create
from test_api import fault

LAMBDA = f"arn:aws:lambda:us-east-1:{ACCOUNT}:"
QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:queue"
GONE = ("ResourceNotFoundException", 404)
DOCUMENT = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
OTHER_DOCUMENT = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]}


class Like(str):
    """Equal to every text of its form."""

    def __eq__(self, other):
        return isinstance(other, str) and re.fullmatch(str(self), other) is not None

    __hash__ = str.__hash__


class Time:
    """Equal to every time that a client made of an answer."""

    def __eq__(self, other):
        return isinstance(other, datetime)


REVISION = Like(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = Time()
MILLISECONDS = Like(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000")
SECONDS = Like(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000")
MICROSECONDS = Like(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def whole(answer):
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def refused(call, **settings):
    code, _, status = fault(call, **settings)
    return code, status


@pytest.fixture(scope="module")
def client(server):
    create(server, "f")
    server.client.publish_version(FunctionName="f")
    server.client.create_alias(FunctionName="f", Name="for-settings", FunctionVersion="1")
    return server.client


@pytest.fixture
def iam(server):
    return server.make_client("iam")


def test_an_alias(client):
    at = {"FunctionName": "f", "Name": "live"}
    alias = {"AliasArn": f"{LAMBDA}function:f:live", "Name": "live", "FunctionVersion": "1", "Description": "", "RevisionId": REVISION}
    assert whole(client.create_alias(**at, FunctionVersion="1")) == alias
    assert whole(client.get_alias(**at)) == alias
    alias |= {"Description": "first"}
    assert whole(client.update_alias(**at, Description="first")) == alias
    assert whole(client.get_alias(**at)) == alias
    assert alias in client.list_aliases(FunctionName="f")["Aliases"]
    assert whole(client.delete_alias(**at)) == {}
    assert refused(client.get_alias, **at) == GONE
    assert whole(client.delete_alias(**at)) == {}, "an alias that is gone is deleted with success"


def test_a_code_signing_config(client):
    publishers = lambda name: {"SigningProfileVersionArns": [f"arn:aws:signer:us-east-1:{ACCOUNT}:/signing-profiles/{name}/abcdefghij"]}
    made = whole(client.create_code_signing_config(AllowedPublishers=publishers("one")))
    config = {
        "CodeSigningConfigId": Like("csc-[0-9a-z]{17}"),
        "CodeSigningConfigArn": Like(f"{LAMBDA}code-signing-config:csc-[0-9a-z]{{17}}"),
        "Description": "",
        "AllowedPublishers": publishers("one"),
        "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Warn"},
        "LastModified": MILLISECONDS,
    }
    assert made == {"CodeSigningConfig": config}
    arn = {"CodeSigningConfigArn": made["CodeSigningConfig"]["CodeSigningConfigArn"]}
    assert whole(client.get_code_signing_config(**arn)) == made
    config |= {"Description": "changed", "AllowedPublishers": publishers("two"), "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Enforce"}}
    changed = client.update_code_signing_config(**arn, **{name: config[name] for name in ("Description", "AllowedPublishers", "CodeSigningPolicies")})
    assert whole(changed) == {"CodeSigningConfig": config} == whole(client.get_code_signing_config(**arn))
    assert config in client.list_code_signing_configs()["CodeSigningConfigs"]

    assert whole(client.get_function_code_signing_config(FunctionName="f")) == {}
    bound = arn | {"FunctionName": "f"}
    assert whole(client.put_function_code_signing_config(**bound)) == bound == whole(client.get_function_code_signing_config(FunctionName="f"))
    assert whole(client.list_functions_by_code_signing_config(**arn)) == {"FunctionArns": [f"{LAMBDA}function:f"]}
    assert refused(client.delete_code_signing_config, **arn) == ("ResourceConflictException", 409)
    assert whole(client.delete_function_code_signing_config(FunctionName="f")) == {}
    assert whole(client.delete_code_signing_config(**arn)) == {}
    assert refused(client.get_code_signing_config, **arn) == GONE


def test_an_event_invoke_config(client):
    at = {"FunctionName": "f", "Qualifier": "for-settings"}
    empty = {"OnSuccess": {}, "OnFailure": {}}
    config = {"FunctionArn": f"{LAMBDA}function:f:for-settings", "LastModified": TIME, "MaximumRetryAttempts": 0, "DestinationConfig": empty}
    assert whole(client.put_function_event_invoke_config(**at, MaximumRetryAttempts=0)) == config
    assert whole(client.get_function_event_invoke_config(**at)) == config
    config |= {"MaximumEventAgeInSeconds": 100, "DestinationConfig": {"OnSuccess": {}, "OnFailure": {"Destination": QUEUE}}}
    sent = {"MaximumEventAgeInSeconds": 100, "DestinationConfig": {"OnFailure": {"Destination": QUEUE}}}
    assert whole(client.update_function_event_invoke_config(**at, **sent)) == config, "an update keeps what it does not name"
    assert whole(client.list_function_event_invoke_configs(FunctionName="f")) == {"FunctionEventInvokeConfigs": [config]}
    replaced = {"FunctionArn": config["FunctionArn"], "LastModified": TIME, "MaximumEventAgeInSeconds": 60, "DestinationConfig": empty}
    assert whole(client.put_function_event_invoke_config(**at, MaximumEventAgeInSeconds=60)) == replaced, "a put does not"
    assert whole(client.delete_function_event_invoke_config(**at)) == {}
    for call in (client.get_function_event_invoke_config, client.delete_function_event_invoke_config):
        assert refused(call, **at) == GONE


def test_a_function_url_config(client):
    at = {"FunctionName": "f", "Qualifier": "for-settings"}
    made = {
        "FunctionUrl": Like(r"http://127\.0\.0\.1:\d+/_ondol/url/[0-9a-z]{32}/"),
        "FunctionArn": f"{LAMBDA}function:f:for-settings",
        "AuthType": "NONE",
        "CreationTime": MICROSECONDS,
        "InvokeMode": "BUFFERED",
    }
    created = whole(client.create_function_url_config(**at, AuthType="NONE"))
    assert created == made
    read = made | {"LastModifiedTime": MICROSECONDS}
    assert whole(client.get_function_url_config(**at)) == read
    cors = {"AllowOrigins": ["https://example.com"], "AllowMethods": ["GET"], "MaxAge": 60}
    read |= {"AuthType": "AWS_IAM", "InvokeMode": "RESPONSE_STREAM", "Cors": cors}
    assert whole(client.update_function_url_config(**at, AuthType="AWS_IAM", InvokeMode="RESPONSE_STREAM", Cors=cors)) == read
    read |= {"Cors": {"AllowHeaders": ["x-y"]}}
    assert whole(client.update_function_url_config(**at, Cors={"AllowHeaders": ["x-y"]})) == read, "the rules are replaced, not mixed"
    assert whole(client.get_function_url_config(**at))["FunctionUrl"] == created["FunctionUrl"]
    assert whole(client.list_function_url_configs(FunctionName="f")) == {"FunctionUrlConfigs": [read]}
    assert refused(client.create_function_url_config, **at, AuthType="NONE") == ("ResourceConflictException", 409)
    assert whole(client.delete_function_url_config(**at)) == {}
    for call in (client.get_function_url_config, client.delete_function_url_config):
        assert refused(call, **at) == GONE


def test_how_a_runtime_is_updated(client):
    arn = f"{LAMBDA}function:f:$LATEST"
    read = lambda: whole(client.get_runtime_management_config(FunctionName="f"))
    assert read() == {"UpdateRuntimeOn": "Auto", "FunctionArn": arn}
    wanted = {"UpdateRuntimeOn": "FunctionUpdate", "FunctionArn": arn}
    assert whole(client.put_runtime_management_config(FunctionName="f", UpdateRuntimeOn="FunctionUpdate")) == wanted == read()
    version = "arn:aws:lambda:us-east-1::runtime:" + "0" * 64
    by_hand = {"UpdateRuntimeOn": "Manual", "RuntimeVersionArn": version}
    assert whole(client.put_runtime_management_config(FunctionName="f", **by_hand)) == by_hand | {"FunctionArn": arn} == read()
    assert client.put_runtime_management_config(FunctionName="f", UpdateRuntimeOn="Auto") and read() == {"UpdateRuntimeOn": "Auto", "FunctionArn": arn}


def test_provisioned_concurrency(client):
    at = {"FunctionName": "f", "Qualifier": "for-settings"}
    numbers = {"RequestedProvisionedConcurrentExecutions": 2, "AllocatedProvisionedConcurrentExecutions": 0, "AvailableProvisionedConcurrentExecutions": 0}
    put = client.put_provisioned_concurrency_config(**at, ProvisionedConcurrentExecutions=2)
    assert whole(put) == numbers | {"Status": "IN_PROGRESS", "LastModified": SECONDS}
    ended = numbers | {"Status": "FAILED", "StatusReason": Like("Ondol doesn't start provisioned .*"), "LastModified": SECONDS}
    assert whole(client.get_provisioned_concurrency_config(**at)) == ended
    listed = client.list_provisioned_concurrency_configs(FunctionName="f")
    assert whole(listed) == {"ProvisionedConcurrencyConfigs": [ended | {"FunctionArn": f"{LAMBDA}function:f:for-settings"}]}
    assert whole(client.delete_provisioned_concurrency_config(**at)) == {}
    assert refused(client.get_provisioned_concurrency_config, **at) == ("ProvisionedConcurrencyConfigNotFoundException", 404)
    assert whole(client.delete_provisioned_concurrency_config(**at)) == {}


def test_a_resource_policy(client):
    at = {"ResourceArn": f"{LAMBDA}function:f"}
    statement = {"Sid": "all", "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "lambda:InvokeFunction", "Resource": at["ResourceArn"]}
    policy = {"Version": "2012-10-17", "Id": "default", "Statement": [statement]}
    put = whole(client.put_resource_policy(**at, Policy=json.dumps(policy)))
    assert (json.loads(put.pop("Policy")), put) == (policy, {"RevisionId": REVISION})
    read = whole(client.get_resource_policy(**at))
    assert (json.loads(read.pop("Policy")), read) == (policy, put)
    assert json.loads(client.get_policy(FunctionName="f")["Policy"])["Statement"] == [statement], "it is the same policy"
    stale = dict(at, RevisionId="00000000-0000-4000-8000-000000000000")
    assert refused(client.delete_resource_policy, **stale) == ("PreconditionFailedException", 412)
    assert whole(client.delete_resource_policy(**at)) == {}
    for call in (client.get_resource_policy, client.delete_resource_policy):
        assert refused(call, **at) == GONE


def test_an_event_source_mapping(server, client):
    made = whole(client.create_event_source_mapping(FunctionName="f", EventSourceArn=QUEUE, Enabled=False))
    mapping = {
        "UUID": REVISION,
        "EventSourceMappingArn": Like(f"{LAMBDA}event-source-mapping:.*"),
        "EventSourceArn": QUEUE,
        "FunctionArn": f"{LAMBDA}function:f",
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
        "FunctionResponseTypes": [],
        "LastModified": TIME,
        "StateTransitionReason": "USER_INITIATED",
    }
    assert made == mapping | {"State": "Disabled"}
    at = {"UUID": made["UUID"]}
    assert whole(client.get_event_source_mapping(**at)) == mapping | {"State": "Disabled"}
    more = {
        "BatchSize": 5,
        "MaximumBatchingWindowInSeconds": 1,
        "FilterCriteria": {"Filters": [{"Pattern": '{"body":{"kind":["order"]}}'}]},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ScalingConfig": {"MaximumConcurrency": 2},
    }
    mapping |= more
    assert whole(client.update_event_source_mapping(**at, **more)) == mapping | {"State": "Updating"}
    assert whole(client.get_event_source_mapping(**at)) == mapping | {"State": "Disabled"}
    mapping.pop("FilterCriteria")
    client.update_event_source_mapping(**at, FilterCriteria={})
    assert client.list_event_source_mappings(FunctionName="f")["EventSourceMappings"] == [mapping | {"State": "Disabled"}], "no filters are absent"
    assert whole(client.delete_event_source_mapping(**at)) == mapping | {"State": "Deleting"}
    for call in (client.get_event_source_mapping, client.update_event_source_mapping, client.delete_event_source_mapping):
        assert refused(call, **at) == GONE


def test_a_role(iam):
    role = {
        "Path": "/service-role/",
        "RoleName": "whole",
        "RoleId": Like("AROA[0-9A-Z]{17}"),
        "Arn": f"arn:aws:iam::{ACCOUNT}:role/service-role/whole",
        "CreateDate": TIME,
        "AssumeRolePolicyDocument": json.loads(TRUST),
    }
    at = {"RoleName": "whole"}
    tags = [{"Key": "team", "Value": "floor"}]
    made = iam.create_role(**at, Path="/service-role/", AssumeRolePolicyDocument=TRUST, Description="a role", Tags=tags, MaxSessionDuration=7200)
    assert whole(made) == {"Role": role | {"Description": "a role", "Tags": tags, "MaxSessionDuration": 7200}}
    role = iam.get_role(**at)["Role"]
    assert whole(iam.update_role(**at, Description="another", MaxSessionDuration=3600)) == {}
    read = {"Description": "another", "MaxSessionDuration": 3600}
    assert iam.get_role(**at)["Role"] == role | read
    assert iam.update_role_description(**at, Description="a third")["Role"] == role | read | {"Description": "a third"}
    assert whole(iam.tag_role(**at, Tags=[{"Key": "team", "Value": "house"}, {"Key": "stage", "Value": "test"}])) == {}
    assert whole(iam.list_role_tags(**at)) == {"Tags": [{"Key": "stage", "Value": "test"}, {"Key": "team", "Value": "house"}], "IsTruncated": False}
    assert whole(iam.untag_role(**at, TagKeys=["team", "never"])) == {}
    assert iam.get_role(**at)["Role"]["Tags"] == [{"Key": "stage", "Value": "test"}]

    assert whole(iam.put_role_policy(**at, PolicyName="inline", PolicyDocument=json.dumps(DOCUMENT))) == {}
    assert whole(iam.list_role_policies(**at)) == {"PolicyNames": ["inline"], "IsTruncated": False}
    inline = at | {"PolicyName": "inline"}
    assert whole(iam.get_role_policy(**inline)) == inline | {"PolicyDocument": DOCUMENT}
    assert whole(iam.list_instance_profiles_for_role(**at)) == {"InstanceProfiles": [], "IsTruncated": False}
    assert refused(iam.delete_role, **at) == ("DeleteConflict", 409)
    assert whole(iam.delete_role_policy(**inline)) == {}
    assert refused(iam.get_role_policy, **inline) == ("NoSuchEntity", 404)
    assert whole(iam.delete_role(**at)) == {}
    assert refused(iam.get_role, **at) == ("NoSuchEntity", 404)


def test_a_managed_policy(iam):
    policy = {
        "PolicyName": "whole",
        "PolicyId": Like("ANPA[0-9A-Z]{17}"),
        "Arn": f"arn:aws:iam::{ACCOUNT}:policy/team/whole",
        "Path": "/team/",
        "DefaultVersionId": "v1",
        "AttachmentCount": 0,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "CreateDate": TIME,
        "UpdateDate": TIME,
    }
    made = iam.create_policy(PolicyName="whole", Path="/team/", PolicyDocument=json.dumps(DOCUMENT), Description="a policy")
    assert whole(made) == {"Policy": policy}
    policy |= {"Description": "a policy", "Tags": []}
    at = {"PolicyArn": policy["Arn"]}
    assert whole(iam.get_policy(**at)) == {"Policy": policy}

    version = lambda name, default: {"VersionId": name, "IsDefaultVersion": default, "CreateDate": TIME}
    second = iam.create_policy_version(**at, PolicyDocument=json.dumps(OTHER_DOCUMENT))
    assert whole(second) == {"PolicyVersion": version("v2", False)}
    assert whole(iam.get_policy_version(**at, VersionId="v2")) == {"PolicyVersion": version("v2", False) | {"Document": OTHER_DOCUMENT}}
    assert whole(iam.set_default_policy_version(**at, VersionId="v2")) == {}
    listed = {"Versions": [version("v2", True), version("v1", False)], "IsTruncated": False}
    assert whole(iam.list_policy_versions(**at)) == listed
    assert iam.get_policy(**at)["Policy"]["DefaultVersionId"] == "v2"
    assert refused(iam.delete_policy_version, **at, VersionId="v2") == ("DeleteConflict", 409)
    assert whole(iam.delete_policy_version(**at, VersionId="v1")) == {}
    assert refused(iam.get_policy_version, **at, VersionId="v1") == ("NoSuchEntity", 404)

    tags = [{"Key": "stage", "Value": "test"}, {"Key": "team", "Value": "floor"}]
    assert whole(iam.tag_policy(**at, Tags=tags)) == {}
    assert whole(iam.list_policy_tags(**at)) == {"Tags": tags, "IsTruncated": False}
    assert whole(iam.untag_policy(**at, TagKeys=["team"])) == {}
    assert iam.get_policy(**at)["Policy"]["Tags"] == tags[:1]

    role = ROLE.rsplit("/", 1)[1]
    assert whole(iam.attach_role_policy(RoleName=role, **at)) == {}
    attached = {"PolicyName": "whole", "PolicyArn": at["PolicyArn"]}
    assert whole(iam.list_attached_role_policies(RoleName=role)) == {"AttachedPolicies": [attached], "IsTruncated": False}
    holders = {"PolicyGroups": [], "PolicyUsers": [], "PolicyRoles": [{"RoleName": role, "RoleId": Like("AROA.*")}], "IsTruncated": False}
    assert whole(iam.list_entities_for_policy(**at)) == holders
    assert iam.get_policy(**at)["Policy"]["AttachmentCount"] == 1
    assert refused(iam.delete_policy, **at) == ("DeleteConflict", 409)
    assert whole(iam.detach_role_policy(RoleName=role, **at)) == {}
    assert refused(iam.detach_role_policy, RoleName=role, **at) == ("NoSuchEntity", 404)
    assert whole(iam.delete_policy(**at)) == {}
    assert refused(iam.get_policy, **at) == ("NoSuchEntity", 404)
