"""Puts the Rust example on a server as the function `bench`: one environment of 2 vCPUs, 128 requests at once.

usage: deploy.py ENDPOINT BOOTSTRAP
"""

import io
import json
import sys
import zipfile

import boto3

endpoint, bootstrap = sys.argv[1:3]
client = boto3.client(
    "lambda", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
)

iam = boto3.client(
    "iam", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
)
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": "000000000000"}},
    }],
}
iam.create_role(RoleName="bench", AssumeRolePolicyDocument=json.dumps(TRUST))
role = "arn:aws:iam::000000000000:role/bench"
provider = client.create_capacity_provider(
    CapacityProviderName="bench",
    VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": []},
    PermissionsConfig={"CapacityProviderOperatorRoleArn": role},
)["CapacityProvider"]["CapacityProviderArn"]
out = io.BytesIO()
with zipfile.ZipFile(out, "w") as archive, open(bootstrap, "rb") as file:
    entry = zipfile.ZipInfo("bootstrap")
    entry.external_attr = 0o100755 << 16
    archive.writestr(entry, file.read())
managed = {"CapacityProviderArn": provider, "PerExecutionEnvironmentMaxConcurrency": 128}
client.create_function(
    FunctionName="bench",
    Runtime="provided.al2023",
    Handler="bootstrap",
    Role=role,
    Code={"ZipFile": out.getvalue()},
    MemorySize=4096,
    Timeout=10,
    CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": managed},
)
version = client.publish_version(FunctionName="bench", PublishTo="LATEST_PUBLISHED")["Version"]
client.put_function_scaling_config(
    FunctionName="bench", Qualifier=version, FunctionScalingConfig={"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 1}
)
waiter = client.get_waiter("published_version_active")
waiter.wait(FunctionName="bench", Qualifier=version, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
