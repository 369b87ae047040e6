"""The API as tools use it: states, waiters, texts, listings, errors in every protocol's form."""

import http.client
import json

import boto3
import pytest
from botocore.exceptions import ClientError

from conftest import EXAMPLES, LATEST_PUBLISHED, PROVIDER_ARN, ROLE, wait_until, zip_of

PYTHON = {"app.py": "def handler(event, context):\n    return event\n"}


def fault(call, *arguments, **settings):
    with pytest.raises(ClientError) as raised:
        call(*arguments, **settings)
    response = raised.value.response
    return response["Error"]["Code"], response["Error"]["Message"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_a_capacity_provider_s_life(server):
    client = server.client
    created = client.create_capacity_provider(
        CapacityProviderName="life",
        VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": []},
        PermissionsConfig={"CapacityProviderOperatorRoleArn": ROLE},
        CapacityProviderScalingConfig={"MaxVCpuCount": 30, "ScalingMode": "Auto"},
        Tags={"team": "a"},
    )["CapacityProvider"]
    assert (created["State"], created["CapacityProviderArn"]) == ("Pending", PROVIDER_ARN + "life")
    get = lambda: client.get_capacity_provider(CapacityProviderName="life")["CapacityProvider"]
    wait_until(lambda: get()["State"] == "Active", "Active")
    assert get()["CapacityProviderScalingConfig"] == {"MaxVCpuCount": 30, "ScalingMode": "Auto"}
    assert get()["InstanceRequirements"]["Architectures"] == ["x86_64"]
    assert client.list_tags(Resource=PROVIDER_ARN + "life")["Tags"] == {"team": "a"}
    again = fault(
        client.create_capacity_provider,
        CapacityProviderName="life",
        VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": []},
        PermissionsConfig={"CapacityProviderOperatorRoleArn": ROLE},
    )
    assert again[0] == "ResourceConflictException"
    updated = client.update_capacity_provider(CapacityProviderName="life", CapacityProviderScalingConfig={"MaxVCpuCount": 40})
    assert updated["CapacityProvider"]["State"] == "Pending"
    wait_until(lambda: get()["State"] == "Active", "Active after the update")
    assert get()["CapacityProviderScalingConfig"]["MaxVCpuCount"] == 40
    assert "life" in [p["CapacityProviderArn"].rsplit(":")[-1] for p in client.list_capacity_providers()["CapacityProviders"]]
    deleted = client.delete_capacity_provider(CapacityProviderName="life")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 202
    wait_until(lambda: server.status()["capacityProviders"] and "life" not in [p["name"] for p in server.status()["capacityProviders"]], "its end")
    assert fault(client.get_capacity_provider, CapacityProviderName="life") == (
        "ResourceNotFoundException",
        f"Capacity provider not found: {PROVIDER_ARN}life",
        404,
    )


def test_a_function_s_life(server):
    client = server.client
    created = server.create("life", PYTHON, concurrency=2, Tags={"a": "1"}, Environment={"Variables": {"NAME": "y"}})
    assert created["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert (created["State"], created["StateReasonCode"], created["Version"]) == ("Pending", "Creating", "$LATEST")
    latest = client.get_function(FunctionName="life")
    assert (latest["Configuration"]["State"], latest["Tags"]) == ("ActiveNonInvocable", {"a": "1"})
    assert latest["Configuration"]["LoggingConfig"]["LogFormat"] == "JSON"
    assert fault(client.invoke, FunctionName="life")[0] == "NoPublishedVersionException"
    assert fault(client.invoke, FunctionName="life", Qualifier="$LATEST")[0] == "NoPublishedVersionException"

    published = server.publish("life")
    assert (published["State"], published["Version"]) == ("Pending", LATEST_PUBLISHED)
    waiter = client.get_waiter("published_version_active")
    waiter.wait(FunctionName="life", Qualifier=LATEST_PUBLISHED, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    for form in ("life", "life:" + LATEST_PUBLISHED, published["FunctionArn"], "000000000000:function:life"):
        assert server.invoke(form, {"x": 1}) == (None, {"x": 1}), form
    assert fault(client.invoke, FunctionName="life", Qualifier="$LATEST")[1].startswith(
        "Functions configured with capacity provider configuration can't be invoked with $LATEST qualifier."
    )
    assert client.invoke(FunctionName="life", InvocationType="DryRun")["StatusCode"] == 204

    numbered = client.publish_version(FunctionName="life")
    assert numbered["Version"] == "1"
    assert client.publish_version(FunctionName="life")["Version"] == "1", "no change publishes no new version"
    assert server.settled("life", "1")["State"] == "Active"
    assert server.invoke("life:1", {"x": 2}) == (None, {"x": 2})
    versions = [v["Version"] for v in client.list_versions_by_function(FunctionName="life")["Versions"]]
    assert versions == ["$LATEST", LATEST_PUBLISHED, "1"]
    on = client.list_function_versions_by_capacity_provider(CapacityProviderName="cp")["FunctionVersions"]
    assert {v["FunctionArn"].split(":", 6)[6] for v in on} >= {f"life:{LATEST_PUBLISHED}", "life:1"}

    in_use = fault(client.delete_capacity_provider, CapacityProviderName="cp")
    assert in_use[0] == "ResourceConflictException"
    assert "To delete this capacity provider, first remove its association" in in_use[1]

    assert client.delete_function(FunctionName="life", Qualifier="1")["ResponseMetadata"]["HTTPStatusCode"] == 202
    wait_until(lambda: server.version_status("life", "1") is None, "the version's end")
    assert fault(client.invoke, FunctionName="life", Qualifier="1") == (
        "ResourceNotFoundException",
        "Function not found: arn:aws:lambda:us-east-1:000000000000:function:life:1",
        404,
    )
    client.delete_function(FunctionName="life")
    wait_until(lambda: "life" not in [f["FunctionName"] for f in client.list_functions()["Functions"]], "the function's end")
    assert server.version_status("life") is None


def test_scaling_configs_act(server):
    client = server.client
    server.deploy("scaled", PYTHON, concurrency=1)
    assert len(server.ready("scaled")) == 3

    def put(low, high):
        config = {"MinExecutionEnvironments": low, "MaxExecutionEnvironments": high}
        return client.put_function_scaling_config(FunctionName="scaled", Qualifier=LATEST_PUBLISHED, FunctionScalingConfig=config)

    for low, high in ((5, 9), (1, 1)):
        assert put(low, high)["ResponseMetadata"]["HTTPStatusCode"] == 202
        wait_until(lambda: len(server.version_status("scaled")["executionEnvironments"]) == low, f"{low} environments")
        wait_until(lambda: len(server.ready("scaled")) == low, f"{low} environments ready")
    assert put(0, 0)["FunctionState"] == "Deactivating"
    assert server.settled("scaled")["State"] == "Deactivated"
    assert fault(client.invoke, FunctionName="scaled")[1].endswith("currently in the following state: Deactivated")
    assert put(2, 2)["FunctionState"] == "Pending"
    assert server.settled("scaled")["State"] == "Active"
    assert server.invoke("scaled", {"x": 1}) == (None, {"x": 1})
    get = lambda: client.get_function_scaling_config(FunctionName="scaled", Qualifier=LATEST_PUBLISHED)
    two, four = ({"MinExecutionEnvironments": n, "MaxExecutionEnvironments": n} for n in (2, 4))
    assert get()["AppliedFunctionScalingConfig"] == two and "RequestedFunctionScalingConfig" not in get()
    put(4, 4)
    wait_until(lambda: get()["AppliedFunctionScalingConfig"] == four, "it to be applied")
    assert len(server.ready("scaled")) == 4
    assert fault(put, 0, 3)[0] == "InvalidParameterValueException"


def test_a_republish_rolls_over_without_a_lost_request(server):
    client = server.client
    code = "import time\ndef handler(event, context):\n    time.sleep(0.05)\n    return {}\n"
    server.deploy("rolling", {"app.py": code.format(1)}, concurrency=16)
    first = set(server.ready("rolling"))
    client.update_function_code(FunctionName="rolling", ZipFile=zip_of({"app.py": code.format(2)}))
    published = server.publish("rolling")
    assert (published["State"], published["LastUpdateStatus"]) == ("Active", "InProgress")
    answers = []
    while 2 not in answers[-5:]:
        error, answer = server.invoke("rolling")
        assert error is None
        answers.append(answer)
        assert len(answers) < 2000
    assert answers == sorted(answers), "the new version answered, and then the old one again"
    assert server.settled("rolling")["LastUpdateStatus"] == "Successful"
    wait_until(lambda: len(server.version_status("rolling")["executionEnvironments"]) == 3, "the old ones' end")
    assert not first & set(server.ready("rolling"))


def test_exact_refusals(server):
    client = server.client
    provider = {"CapacityProviderArn": PROVIDER_ARN + "cp"}
    cases = [
        (dict(runtime="nodejs24.x", concurrency=65), "InvalidParameterValueException",
         "The specified PerExecutionEnvironmentMaxConcurrency exceeds the limit of 64 per VCpu. For your configuration, the limit is 64"),
        (dict(MemorySize=512), "ValidationException",
         "Lambda Managed Instance functions must have memory size greater than or equal to 2048"),
        (dict(runtime="python3.12"), "InvalidParameterValueException",
         "Runtime Enum python3.12 does not support specified feature: Lambda Managed Instances"),
        (dict(runtime="nodejs12.x"), "InvalidParameterValueException",
         "The runtime parameter of nodejs12.x is no longer supported for creating or updating AWS Lambda functions. We recommend you use a supported runtime while creating or updating functions."),
        (dict(provider="none"), "ResourceNotFoundException", f"Capacity provider not found: {PROVIDER_ARN}none"),
        (dict(Timeout=9999), "ValidationException",
         "1 validation error detected: Value '9999' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 5400"),
        (dict(LoggingConfig={"LogFormat": "Text"}), "InvalidParameterValueException",
         'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change the LogFormat to "JSON" and try again.'),
        (dict(TracingConfig={"Mode": "Active"}), "InvalidParameterValueException",
         "TracingConfig Active isn't supported by this version of Ondol. Leave it out."),
    ]
    for settings, code, text in cases:
        assert fault(server.create, "refused", PYTHON, **settings)[:2] == (code, text), settings
    assert fault(client.get_function, FunctionName="refused")[0] == "ResourceNotFoundException", "nothing was half-created"
    auto = {"ScalingMode": "Auto", "ScalingPolicies": [{"PredefinedMetricType": "LambdaCapacityProviderAverageCPUUtilization", "TargetValue": 50.0}]}
    assert fault(server.provider, "refused", CapacityProviderScalingConfig=auto)[1] == (
        "A scaling policy can't be specified when the scalingMode is set to Auto"
    )
    cpu = {"PredefinedMetricType": "LambdaCapacityProviderAverageCPUUtilization"}
    gpu = {"PredefinedMetricType": "LambdaCapacityProviderAverageGPUUtilization", "TargetValue": 50.0}
    manual = lambda *policies: {"CapacityProviderScalingConfig": {"ScalingMode": "Manual", "ScalingPolicies": list(policies)}}
    for settings, text in [
        (manual(gpu), "no instances with GPUs"),
        (manual(cpu | {"TargetValue": 50.0}, cpu | {"TargetValue": 70.0}), "Only one scaling policy"),
        (manual(cpu | {"TargetValue": 0.0}), "TargetValue must be greater than 0"),
        ({"InstanceRequirements": {"Architectures": ["arm64"], "AllowedInstanceTypes": ["m7i.*"]}}, "No arm64 instance type"),
        ({"InstanceRequirements": {"Architectures": ["x86_64"], "AllowedInstanceTypes": ["nonsense"]}}, "No x86_64 instance type"),
        ({"InstanceRequirements": {"Architectures": ["x86_64"], "AllowedInstanceTypes": ["m7i.4xlarge"]},
          "CapacityProviderScalingConfig": {"MaxVCpuCount": 8}}, "MaxVCpuCount 8 is less than the 16 vCPUs of m7i.4xlarge"),
        ({"InstanceRequirements": {"Architectures": ["x86_64"], "AllowedInstanceTypes": ["m7i.*"], "ExcludedInstanceTypes": ["c*"]}},
         "Only one of AllowedInstanceTypes and ExcludedInstanceTypes"),
    ]:
        code, told, _ = fault(server.provider, "refused", **settings)
        assert code == "InvalidParameterValueException" and text in told, settings
    assert fault(client.get_capacity_provider, CapacityProviderName="refused")[0] == "ResourceNotFoundException"
    assert fault(client.list_durable_executions_by_function, FunctionName="x") == (
        "NotImplementedException",
        "ListDurableExecutionsByFunction isn't supported by this version of Ondol. COMPATIBILITY.md lists what is.",
        501,
    )


@pytest.mark.parametrize(
    "service, call",
    [("s3", "list_buckets"), ("ec2", "describe_vpcs"), ("dynamodb", "list_tables"), ("xray", "get_groups")],
)
def test_other_services_say_so_in_their_own_form(server, service, call):
    code, _, status = fault(getattr(server.make_client(service), call))
    assert (code, status) == ("NotImplementedException", 501)


def test_signatures_are_checked(server):
    wrong = server.make_client(secret="wrong")
    assert fault(wrong.list_functions)[0] == "InvalidSignatureException"
    assert fault(wrong.invoke, FunctionName="x")[0] == "InvalidSignatureException"
    unknown = server.make_client(key="AKIAUNKNOWN")
    assert fault(unknown.list_functions)[0] == "UnrecognizedClientException"


def ask(server, path="/2015-03-31/functions", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in {"Host": f"127.0.0.1:{server.port}", **(headers or {})}.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_web_pages_and_unsigned_requests_are_kept_out(server):
    assert ask(server)[0] == 403
    status, text = ask(server, headers={"Origin": "https://evil.example"})
    assert status == 403 and "evil.example" in text
    status, text = ask(server, headers={"Host": "evil.example:80"})
    assert status == 403 and "--allow-host" in text
    assert ask(server, "/_ondol/health") == (200, '{"status":"running"}')


def test_tags_and_account(server):
    client = server.client
    server.create("tagged", PYTHON)
    arn = "arn:aws:lambda:us-east-1:000000000000:function:tagged"
    client.tag_resource(Resource=arn, Tags={"a": "1", "b": "2"})
    client.untag_resource(Resource=arn, TagKeys=["a"])
    assert client.list_tags(Resource=arn)["Tags"] == {"b": "2"}
    assert client.get_account_settings()["AccountUsage"]["FunctionCount"] >= 1


def test_listings_come_in_pages(server):
    names = ["page", "page-2", "page-3", "page_4"]
    for name in names:
        server.create(name, PYTHON)
    pages = server.client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
    found = [f["FunctionName"] for page in pages for f in page["Functions"]]
    assert sorted(name for name in found if name in names) == names
    assert len(found) == len(set(found))


def test_names_in_every_form(server):
    client = server.client
    server.create("named", PYTHON)
    for form in ("named", "us-east-1:000000000000:function:named", "arn:aws:lambda:000000000000:function:named"):
        assert client.get_function(FunctionName=form)["Configuration"]["FunctionName"] == "named", form
    long = "x" * 65
    text = f"1 validation error detected: Value '{long}' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 64"
    for call, action in ((client.get_function, "GetFunction"), (client.invoke, "InvokeFunction")):
        assert fault(call, FunctionName=long)[:2] == ("InvalidParameterValueException", text)
        other = fault(call, FunctionName="111111111111:function:f")
        assert other[1].endswith(f"lambda:{action} on resource: arn:aws:lambda:us-east-1:111111111111:function:f because no resource-based policy allows the lambda:{action} action")
        assert "are not reachable in this region" in fault(call, FunctionName="eu-west-1:000000000000:function:f")[1]
    assert fault(client.get_function, FunctionName="named", Qualifier="01")[0] == "ResourceNotFoundException"


def test_defaults_follow_what_was_not_chosen(server):
    client = server.client
    managed = lambda: client.get_function_configuration(FunctionName="defaults")["CapacityProviderConfig"][
        "LambdaManagedInstancesCapacityProviderConfig"
    ]
    server.create("defaults", PYTHON, runtime="nodejs24.x", handler="index.handler", MemorySize=4096)
    assert managed()["PerExecutionEnvironmentMaxConcurrency"] == 128
    client.update_function_configuration(FunctionName="defaults", MemorySize=2048)
    assert managed()["PerExecutionEnvironmentMaxConcurrency"] == 64
    client.update_function_configuration(FunctionName="defaults", Runtime="python3.13", VpcConfig={"SubnetIds": [], "SecurityGroupIds": []})
    assert managed()["PerExecutionEnvironmentMaxConcurrency"] == 16
    chosen = {"CapacityProviderArn": PROVIDER_ARN + "cp", "PerExecutionEnvironmentMaxConcurrency": 7}
    client.update_function_configuration(
        FunctionName="defaults", CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": chosen}
    )
    client.update_function_configuration(FunctionName="defaults", MemorySize=4096)
    assert managed()["PerExecutionEnvironmentMaxConcurrency"] == 7
    refused = fault(client.update_function_configuration, FunctionName="defaults", AcceleratorConfig={"AcceleratorMemorySize": 24})
    assert refused[1] == "AcceleratorConfig isn't supported by this version of Ondol. Leave it out."


def test_publishing_to_a_deactivated_version_ends(server):
    client = server.client
    server.deploy("asleep", PYTHON, concurrency=1)
    zero = {"MinExecutionEnvironments": 0, "MaxExecutionEnvironments": 0}
    client.put_function_scaling_config(FunctionName="asleep", Qualifier=LATEST_PUBLISHED, FunctionScalingConfig=zero)
    server.settled("asleep")
    client.update_function_code(FunctionName="asleep", ZipFile=zip_of({"app.py": "def handler(e, c):\n    return 'new'\n"}))
    server.publish("asleep")
    found = server.settled("asleep")
    assert (found["State"], found["LastUpdateStatus"]) == ("Deactivated", "Successful")
    one = {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 1}
    client.put_function_scaling_config(FunctionName="asleep", Qualifier=LATEST_PUBLISHED, FunctionScalingConfig=one)
    assert server.settled("asleep")["State"] == "Active"
    assert server.invoke("asleep") == (None, "new")


def sample(shape):
    """A value that fits a shape well enough to be sent."""
    if shape.type_name == "structure":
        return {name: sample(shape.members[name]) for name in shape.required_members}
    if shape.type_name == "list":
        return [sample(shape.member)]
    if shape.type_name == "map":
        return {"a": sample(shape.value)}
    if shape.type_name == "string":
        return shape.enum[0] if shape.enum else "arn:aws:lambda:us-east-1:000000000000:function:f" if "Arn" in shape.name or "Resource" in shape.name else "1"
    return {"blob": b"{}", "boolean": True, "timestamp": 0}.get(shape.type_name, 1)


def test_every_other_operation_says_that_it_is_not_there(server):
    from botocore import xform_name

    from conftest import ROOT

    page = (ROOT / "COMPATIBILITY.md").read_text().split("## Lambda")[1].split("## ")[0]
    listed = dict(line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ") and "---" not in line and "operation" not in line)
    client = server.make_client(parameter_validation=False)
    service = client.meta.service_model
    assert set(listed) == set(service.operation_names), "the page names every operation of the client"
    asked = 0
    for name, state in listed.items():
        if state == "works" or state.startswith("stores") or service.operation_model(name).has_event_stream_input:
            continue
        shape = service.operation_model(name).input_shape
        # The client validates nothing: what is sent is only meant to arrive at the right operation.
        call = getattr(client, xform_name(name))
        code, text, status = fault(call, **(sample(shape) if shape else {}))
        assert (code, status) == ("NotImplementedException", 501) and text.startswith(name), (name, code, text)
        asked += 1
    assert asked == len([state for state in listed.values() if state == "unsupported"])
