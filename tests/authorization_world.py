"""A server with one of everything, for requests that must not change any of it."""

import itertools
import json
import sqlite3
import subprocess
from pathlib import Path

from botocore.credentials import Credentials

from authorization_reference import ACCOUNT, IAM, LAMBDA, SCHEDULER
from conftest import LATEST_PUBLISHED, ROLE, Server, wait_until, zip_of
from service_model import chance, service, value_for
from signed import ask, assumed

OTHER_ACCOUNT = "111122223333"
PYTHON = zip_of({"app.py": "def handler(event, context):\n    return event\n"})
LAYER = zip_of({"python/shared.py": "NAME = 1\n"})
FUNCTION_ARN = LAMBDA + "function:f"
SQS = f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action, resource="*", **more):
    return allow(action, resource, **more) | {"Effect": "Deny"}


TRUST_ROOT = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]}
)


class World:
    def __init__(self):
        self.server = Server()
        self.url = self.server.url
        self.numbers = itertools.count()
        self.client = self.server.client
        self.iam = self.server.make_client("iam")
        self.fill()
        self.other = self.other_account()
        self.nobody, self.nobody_arn = self.session("nobody")

    def fill(self):
        client, iam, server = self.client, self.iam, self.server
        server.provider("cp", Tags={"team": "a"})
        csc = client.create_code_signing_config(AllowedPublishers={"SigningProfileVersionArns": [profile(1)]}, Tags={"team": "a"})
        self.code_signing_config = csc["CodeSigningConfig"]["CodeSigningConfigArn"]
        self.layer_version = client.publish_layer_version(LayerName="l", Content={"ZipFile": LAYER})["LayerVersionArn"]
        client.add_layer_version_permission(LayerName="l", VersionNumber=1, StatementId="s", Action="lambda:GetLayerVersion", Principal="444455556666")
        self.default_function("f", Tags={"team": "a"})
        client.publish_version(FunctionName="f")
        client.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
        client.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=5)
        client.put_function_event_invoke_config(FunctionName="f", MaximumRetryAttempts=1)
        client.create_function_url_config(FunctionName="f", AuthType="AWS_IAM")
        client.put_provisioned_concurrency_config(FunctionName="f", Qualifier="live", ProvisionedConcurrentExecutions=1)
        client.add_permission(FunctionName="f", StatementId="s", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com")
        mapping = client.create_event_source_mapping(FunctionName="f", EventSourceArn=SQS, Enabled=False, Tags={"team": "a"})
        self.mapping = mapping["UUID"]
        server.deploy("m", {"app.py": "def handler(event, context):\n    return event\n"}, concurrency=1)
        iam.create_role(RoleName="target", AssumeRolePolicyDocument=TRUST_ROOT, Tags=[{"Key": "team", "Value": "a"}])
        iam.put_role_policy(RoleName="target", PolicyName="inline", PolicyDocument=policy(allow("s3:*")))
        self.policy_arn = iam.create_policy(PolicyName="managed", PolicyDocument=policy(allow("s3:*")))["Policy"]["Arn"]
        iam.create_policy_version(PolicyArn=self.policy_arn, PolicyDocument=policy(allow("sqs:*")), SetAsDefault=True)
        iam.attach_role_policy(RoleName="target", PolicyArn=self.policy_arn)
        trust = {"Effect": "Allow", "Principal": {"Service": "scheduler.amazonaws.com"}, "Action": "sts:AssumeRole"}
        iam.create_role(RoleName="scaler", AssumeRolePolicyDocument=policy(trust))
        scheduler = server.make_client("scheduler")
        scheduler.create_schedule_group(Name="g", Tags=[{"Key": "team", "Value": "a"}])
        scheduler.create_schedule(**schedules("CreateSchedule") | {"Name": "s"})
        settled = lambda name, **more: client.get_event_source_mapping(UUID=self.mapping)["State"] == "Disabled"
        wait_until(lambda: settled("f"), "the mapping to settle")

    def default_function(self, name, **more):
        self.client.create_function(FunctionName=name, Runtime="python3.13", Handler="app.handler", Role=ROLE, Code={"ZipFile": PYTHON}, **more)
        return self.server.settled(name, "$LATEST")

    def other_account(self):
        return key_of(self.server, OTHER_ACCOUNT)

    def session(self, prefix, *statements, trust=TRUST_ROOT):
        """(credentials, ARN) of a session of a role of its own with these statements."""
        role = f"{prefix}-{next(self.numbers)}"
        self.iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
        if statements:
            self.may(role, *statements)
        return assumed(self.url, f"{IAM}role/{role}", "one"), f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/one"

    def may(self, role, *statements):
        self.iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=policy(*statements))

    def ask(self, row, credentials=None, **more):
        service_name, operation, values = row
        return ask(self.url, service_name, operation, values, credentials, **more)

    def state(self):
        """Everything a write could have changed: each document with its revision, and the stored packages."""
        database = sqlite3.connect(f"file:{self.server.folder}/ondol.db?mode=ro", uri=True)
        try:
            documents = database.execute("SELECT key, revision FROM documents ORDER BY key").fetchall()
        finally:
            database.close()
        packages = sorted(str(path) for path in Path(self.server.folder, "artifacts").rglob("*"))
        return documents, packages


def key_of(server, account_id):
    """A key of another account's root user, once the server has seen it."""
    command = [server.binary, "keys", "create", "--account-id", account_id, "--data-dir", server.folder, "--json"]
    made = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    key = Credentials(made["AWS_ACCESS_KEY_ID"], made["AWS_SECRET_ACCESS_KEY"])
    wait_until(lambda: ask(server.url, "sts", "GetCallerIdentity", {}, key).status == 200, "the key to be known")
    return key


def profile(number):
    return f"arn:aws:signer:us-east-1:{ACCOUNT}:/signing-profiles/p/{'a' * 9}{number}"


def inputs(world):
    """Members that say what a request is on, and what it would change."""
    return {
        "FunctionName": "f",
        "LayerName": "l",
        "VersionNumber": 1,
        "CapacityProviderName": "cp",
        "UUID": world.mapping,
        "CodeSigningConfigArn": world.code_signing_config,
        "ResourceArn": FUNCTION_ARN,
        "Resource": FUNCTION_ARN,
        "Arn": world.layer_version,
        "StatementId": "s",
        "Qualifier": "live",
        "RoleName": "target",
        "PolicyArn": world.policy_arn,
        "RoleArn": f"{IAM}role/target",
        "RoleSessionName": "two",
        "AccessKeyId": "A" * 20,
        "VersionId": "v1",
        "TagKeys": ["team"],
    }


SCALING = {"FunctionName": "m", "Qualifier": LATEST_PUBLISHED}
CREATES = {
    "AddLayerVersionPermission": {"StatementId": "new", "Action": "lambda:GetLayerVersion", "Principal": "*"},
    "AddPermission": {"StatementId": "new", "Action": "lambda:InvokeFunction", "Principal": "sns.amazonaws.com"},
    "CreateAlias": {"Name": "new", "FunctionVersion": "1"},
    "CreateCapacityProvider": {
        "CapacityProviderName": "new",
        "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE},
    },
    "CreateCodeSigningConfig": {"AllowedPublishers": {"SigningProfileVersionArns": [profile(2)]}},
    "CreateEventSourceMapping": {"EventSourceArn": SQS + "2", "Enabled": False},
    "CreateFunction": {"FunctionName": "new", "Runtime": "python3.13", "Handler": "app.handler", "Role": ROLE, "Code": {"ZipFile": zip_of({"app.py": "new = 1\n"})}},
    "CreateFunctionUrlConfig": {"AuthType": "NONE"},
    "PublishLayerVersion": {"Content": {"ZipFile": zip_of({"new.py": "new = 2\n"})}},
    "PutResourcePolicy": {
        "Policy": policy({"Sid": "s", "Effect": "Allow", "Principal": {"AWS": OTHER_ACCOUNT}, "Action": "lambda:GetFunction", "Resource": FUNCTION_ARN})
    },
    "CreatePolicy": {"PolicyName": "new", "PolicyDocument": policy(allow("s3:*"))},
    "CreatePolicyVersion": {"PolicyDocument": policy(allow("sns:*"))},
    "CreateRole": {"RoleName": "new", "AssumeRolePolicyDocument": TRUST_ROOT},
}
CHANGES = {
    "DeleteAlias": {"Name": "live"},
    "GetAlias": {"Name": "live"},
    "GetFunctionScalingConfig": SCALING,
    "GetUser": {"UserName": "someone"},
    "PutFunctionConcurrency": {"ReservedConcurrentExecutions": 6},
    "PutFunctionEventInvokeConfig": {"MaximumRetryAttempts": 2},
    "PutFunctionScalingConfig": SCALING | {"FunctionScalingConfig": {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 2}},
    "PutRolePolicy": {"PolicyName": "new", "PolicyDocument": policy(allow("sns:*"))},
    "DeleteRolePolicy": {"PolicyName": "inline"},
    "GetRolePolicy": {"PolicyName": "inline"},
    "TagPolicy": {"Tags": [{"Key": "a", "Value": "1"}]},
    "TagResource": {"Tags": {"a": "1"}},
    "TagRole": {"Tags": [{"Key": "a", "Value": "1"}]},
    "UpdateAlias": {"Name": "live", "Description": "changed"},
    "UpdateAssumeRolePolicy": {"PolicyDocument": TRUST_ROOT.replace("{\"Effect", "{\"Sid\": \"changed\", \"Effect")},
    "UpdateCapacityProvider": {"CapacityProviderScalingConfig": {"MaxVCpuCount": 40}},
    "UpdateCodeSigningConfig": {"Description": "changed"},
    "UpdateEventSourceMapping": {"BatchSize": 7},
    "UpdateFunctionCode": {"ZipFile": zip_of({"app.py": "new = 3\n"})},
    "UpdateFunctionConfiguration": {"Description": "changed"},
    "UpdateFunctionEventInvokeConfig": {"MaximumRetryAttempts": 0},
    "UpdateFunctionUrlConfig": {"AuthType": "NONE"},
    "UpdateRole": {"Description": "changed"},
    "UpdateRoleDescription": {"Description": "changed"},
}


def schedules(operation):
    """An input of an operation on schedules."""
    asked = {"FunctionName": "m", "Qualifier": LATEST_PUBLISHED, "FunctionScalingConfig": {"MinExecutionEnvironments": 1}}
    target = {"Arn": "arn:aws:scheduler:::aws-sdk:lambda:putFunctionScalingConfig", "RoleArn": f"{IAM}role/scaler", "Input": json.dumps(asked)}
    settings = {"ScheduleExpression": "rate(1 day)", "FlexibleTimeWindow": {"Mode": "OFF"}, "Target": target, "State": "DISABLED"}
    one, group, arn = {"GroupName": "g", "Name": "s"}, {"Name": "g"}, {"ResourceArn": SCHEDULER + "schedule-group/g"}
    return {
        "CreateSchedule": settings | one | {"Name": "new"},
        "UpdateSchedule": settings | one | {"Description": "changed"},
        "GetSchedule": one,
        "DeleteSchedule": one,
        "CreateScheduleGroup": {"Name": "new"},
        "GetScheduleGroup": group,
        "DeleteScheduleGroup": group,
        "TagResource": arn | {"Tags": [{"Key": "a", "Value": "1"}]},
        "UntagResource": arn | {"TagKeys": ["team"]},
        "ListTagsForResource": arn,
    }.get(operation, {})


def values_for(world, service_name, operation, form="plain"):
    """An input of the model's making, on what the world has; `form` is how it names its resource."""
    if service_name == "scheduler":
        return schedules(operation)
    shape = service(service_name).operation_model(operation).input_shape
    if shape is None:
        return {}
    values = value_for(shape, chance(operation))
    values |= {name: value for name, value in inputs(world).items() if name in shape.required_members}
    values |= CREATES.get(operation, {}) | CHANGES.get(operation, {})
    if form == "qualified":
        # A URL is of the function or of an alias.
        values["Qualifier"] = "live" if "FunctionUrl" in operation else "1"
    if form == "arn":
        for name, prefix in (("FunctionName", "function:"), ("LayerName", "layer:"), ("CapacityProviderName", "capacity-provider:")):
            if name in values:
                values[name] = LAMBDA + prefix + values[name]
    return values


def forms(service_name, operation):
    """The ways an operation can name what it is on."""
    shape = service(service_name).operation_model(operation).input_shape
    members = shape.members if shape else {}
    yield "plain"
    if "Qualifier" in members and "Qualifier" not in shape.required_members:
        yield "qualified"
    if service_name == "lambda" and {"FunctionName", "LayerName", "CapacityProviderName"} & set(shape.required_members if shape else []):
        if operation not in ("CreateFunction", "CreateCapacityProvider", "PublishLayerVersion"):
            yield "arn"
