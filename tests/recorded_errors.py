"""Errors as AWS answered them, recorded by LocalStack's tests against AWS, and how to get each of them here.

The recordings have code, status and text. They do not name the operation or what was sent: those were worked out from
the text, and are ours to get wrong. A text that several operations share is asked of several. The rows of Managed
Instances are weaker: most come from LocalStack's own code or from users' reports, and were not recorded from AWS.

`<word>` is filled in by test_recorded_errors.py, which also has the things the rows are about: `<fn>` is a function
with version 1 and the alias `live`, `<bare>` one with neither, `<layer>` a layer with version 1, `<new>` a name nobody has.
"""

from dataclasses import dataclass, field

from conftest import zip_of

ZIP = zip_of({"app.py": "def handler(event, context):\n    return event\n"})
INVALID, MISSING, CONFLICT, VALIDATION, STALE = (
    ("InvalidParameterValueException", 400),
    ("ResourceNotFoundException", 404),
    ("ResourceConflictException", 409),
    ("ValidationException", 400),
    ("PreconditionFailedException", 412),
)
FUNCTION = "arn:<partition>:lambda:<region>:<account>:function:"
LAYER = "arn:<partition>:lambda:<region>:<account>:layer:"
WRONG_REVISION = "12345678-1234-4123-8123-123456789012"
NO_CSC = "arn:<partition>:lambda:<region>:<account>:code-signing-config:csc-00000000000000000"
NO_UUID = "00000000-0000-4000-8000-000000000000"
NAME = "(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:)?(\\d{12}:)?(function:)?"
TAGGABLE = (
    "arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:\\d{12}:(function:[a-zA-Z0-9-_]+(:(\\$LATEST|[a-zA-Z0-9-_]+))?"
    "|layer:([a-zA-Z0-9-_]+)|code-signing-config:csc-[a-z0-9]{17}|event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    "|capacity-provider:[a-zA-Z0-9-_]+)"
)
RUNTIMES = (
    "nodejs20.x, python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, java25, python3.10, python3.11, java21, ruby3.3, ruby3.4, ruby3.2, "
    "python3.8, python3.9, java17, nodejs16.x, dotnet10, dotnet8, java11, dotnet6, nodejs18.x, provided.al2, java8.al2"
)
ALL_RUNTIMES = (
    "ruby3.5, ruby2.6, dotnetcore1.0, python3.7, nodejs8.10, nasa, ruby2.7, python2.7-greengrass, dotnetcore2.0, python3.8, java21, dotnet6, dotnetcore2.1, python3.9, "
    "java11, nodejs6.10, provided, dotnetcore3.1, dotnet8, java25, java17, nodejs, nodejs4.3, java8.al2, go1.x, dotnet10, nodejs20.x, go1.9, byol, nodejs10.x, "
    "provided.al2023, nodejs22.x, python3.10, java8, nodejs12.x, python3.11, nodejs24.x, nodejs8.x, python3.12, nodejs14.x, nodejs8.9, nodejs26.x, python3.13, "
    "python3.14, nodejs16.x, python3.15, provided.al2, nodejs4.3-edge, nodejs18.x, ruby3.2, python3.4, ruby3.3, ruby3.4, ruby2.5, python3.6, python2.7"
)
ARCHITECTURES = "Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]"
STALE_FUNCTION = "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
STALE_LAYER = "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve the latest Revision Id"
STALE_POLICY = "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve the latest Revision Id"
DERIVED = "The derived qualifier from the function name does not match the specified qualifier."
REGION = "Functions from 'ap-southeast-1' are not reachable in this region ('<region>')"
NOTHING = "The resource you requested does not exist."
BELOW = " for function decreases account's UnreservedConcurrentExecution below its minimum value of [<minimum_unreserved>]."


@dataclass(frozen=True)
class Row:
    operation: str
    send: dict
    answer: tuple
    text: str | tuple | None
    """Several, where recordings have several and do not say which is whose; none where nothing was said."""
    first: tuple = field(default=())
    """Operations that must succeed before: (operation, what to send)."""


def one(value, at, constraint):
    return f"1 validation error detected: Value '{value}' at '{at}' failed to satisfy constraint: {constraint}"


def pattern(value, at, text):
    return one(value, at, f"Member must satisfy regular expression pattern: {text}")


def create(**settings):
    return {"FunctionName": "<new>", "Runtime": "python3.13", "Role": "<role>", "Handler": "app.handler", "Code": {"ZipFile": ZIP}, **settings}


def tags(count):
    return {f"k{number}": "v" for number in range(count)}


def permission(**settings):
    return {"FunctionName": "<bare>", "StatementId": "s1", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com", **settings}


def layer_permission(**settings):
    return {"LayerName": "<layer>", "VersionNumber": 1, "StatementId": "s1", "Action": "lambda:GetLayerVersion", "Principal": "*", **settings}


def alias(**settings):
    return {"FunctionName": "<fn>", "Name": "<new>", "FunctionVersion": "1", **settings}


def provisioned(count, qualifier="1", **settings):
    return {"FunctionName": "<fn>", "Qualifier": qualifier, "ProvisionedConcurrentExecutions": count, **settings}


def kafka(*servers):
    return {
        "FunctionName": "<bare>",
        "Topics": ["topic"],
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": list(servers)}},
        "SourceAccessConfigurations": [{"Type": "BASIC_AUTH", "URI": "arn:<partition>:secretsmanager:<region>:<account>:secret:none"}],
    }


def queue(**settings):
    return {"FunctionName": "<bare>", "EventSourceArn": "arn:<partition>:sqs:<region>:<account>:none", **settings}


def no_longer(runtime):
    text = f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. We recommend you use a supported runtime while creating or updating functions."
    return Row("CreateFunction", create(Runtime=runtime), INVALID, text)


def no_runtime(runtime):
    return f"Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [{RUNTIMES}] or be a valid ARN"


ROWS = [
    # Layers' permissions
    Row("AddLayerVersionPermission", layer_permission(Action="*"), VALIDATION, pattern("*", "action", "lambda:GetLayerVersion")),
    Row("AddLayerVersionPermission", layer_permission(LayerName="doesnotexist"), MISSING, f"Layer version {LAYER}doesnotexist:1 does not exist."),
    Row("AddLayerVersionPermission", layer_permission(VersionNumber=2), MISSING, f"Layer version {LAYER}<layer>:2 does not exist."),
    Row("AddLayerVersionPermission", layer_permission(StatementId="s3"), CONFLICT, "The statement id (s3) provided already exists. Please provide a new statement id, or remove the existing statement.", (("AddLayerVersionPermission", layer_permission(StatementId="s3")),)),
    Row("AddLayerVersionPermission", layer_permission(StatementId="s4", RevisionId=WRONG_REVISION), STALE, STALE_LAYER),
    Row("GetLayerVersionPolicy", {"LayerName": "<layer>", "VersionNumber": 2}, MISSING, f"Layer version {LAYER}<layer>:2 does not exist."),
    Row("GetLayerVersionPolicy", {"LayerName": "doesnotexist", "VersionNumber": 1}, MISSING, f"Layer version {LAYER}doesnotexist:1 does not exist."),
    Row("RemoveLayerVersionPermission", {"LayerName": "<layer>", "VersionNumber": 1, "StatementId": "doesnotexist"}, MISSING, "Statement doesnotexist is not found in resource policy.", (("AddLayerVersionPermission", layer_permission(StatementId="<new>")),)),
    Row("RemoveLayerVersionPermission", {"LayerName": "<layer>", "VersionNumber": 2, "StatementId": "s"}, MISSING, f"Layer version {LAYER}<layer>:2 does not exist."),
    Row("RemoveLayerVersionPermission", {"LayerName": "doesnotexist", "VersionNumber": 1, "StatementId": "s"}, MISSING, f"Layer version {LAYER}doesnotexist:1 does not exist."),
    Row("RemoveLayerVersionPermission", {"LayerName": "<layer>", "VersionNumber": 1, "StatementId": "s5", "RevisionId": WRONG_REVISION}, STALE, STALE_LAYER, (("AddLayerVersionPermission", layer_permission(StatementId="s5")),)),
    # Layers
    Row("GetLayerVersion", {"LayerName": "<layer>", "VersionNumber": 0}, INVALID, "Layer Version Cannot be less than 1"),
    Row("GetLayerVersion", {"LayerName": "<layer>", "VersionNumber": 2}, MISSING, NOTHING),
    Row("GetLayerVersion", {"LayerName": "doesnotexist", "VersionNumber": 1}, MISSING, NOTHING),
    Row("DeleteLayerVersion", {"LayerName": "<layer>", "VersionNumber": 0}, INVALID, "Layer Version Cannot be less than 1"),
    Row("DeleteLayerVersion", {"LayerName": "<layer>", "VersionNumber": -1}, INVALID, "Layer Version Cannot be less than 1"),
    Row("GetLayerVersionByArn", {"Arn": f"{LAYER}<layer>"}, VALIDATION, pattern(f"{LAYER}<layer>", "arn", "(arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:\\d{12}:layer:[a-zA-Z0-9-_]+:[0-9]+)|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+)")),
    Row("ListLayers", {"CompatibleArchitecture": "archdoesnotexist"}, VALIDATION, one("archdoesnotexist", "compatibleArchitecture", "Member must satisfy enum value set: [x86_64, arm64]")),
    Row("ListLayers", {"CompatibleRuntime": "runtimedoesnotexist"}, VALIDATION, one("runtimedoesnotexist", "compatibleRuntime", f"Member must satisfy enum value set: [{ALL_RUNTIMES}]")),
    Row("PublishLayerVersion", {"LayerName": "<new>", "Content": {"ZipFile": "<bomb>"}}, INVALID, "Unzipped size must be smaller than 262144000 bytes"),
    *(
        Row("PublishLayerVersion", {"LayerName": "<new>", "Content": {"ZipFile": ZIP}, "CompatibleRuntimes": runtimes, "CompatibleArchitectures": architectures}, VALIDATION,
            f"2 validation errors detected: Value '[{', '.join(runtimes)}]' at 'compatibleRuntimes' failed to satisfy constraint: Member must satisfy enum value set: [{RUNTIMES}]; Value '[{', '.join(architectures)}]' at 'compatibleArchitectures' failed to satisfy constraint: {ARCHITECTURES}")
        for runtimes, architectures in ((["invalidruntime"], ["invalidarch"]), (["invalidruntime", "invalidruntime2", "nodejs20.x"], ["invalidarch", "x86_64"]))
    ),
    # Creating functions
    Row("CreateFunction", create(FunctionName="a" * 65), INVALID, one("a" * 65, "functionName", "Member must have length less than or equal to 64")),
    Row("CreateFunction", create(FunctionName="invalid:function:name"), VALIDATION, pattern("invalid:function:name", "functionName", NAME + "([a-zA-Z0-9-_]+)(:(\\$LATEST|[a-zA-Z0-9-_]+))?")),
    Row("CreateFunction", create(FunctionName=FUNCTION + "a" * 100), VALIDATION, one(FUNCTION + "a" * 100, "functionName", "Member must have length less than or equal to 140")),
    Row("CreateFunction", create(Role="r1"), VALIDATION, pattern("r1", "role", "arn:(aws[a-zA-Z-]*)?:iam::\\d{12}:role/?[a-zA-Z_0-9+=,.@\\-_/]+")),
    Row("CreateFunction", create(Runtime="non-existent-runtime"), INVALID, no_runtime("non-existent-runtime")),
    Row("CreateFunction", create(Runtime="PYTHON3.9"), INVALID, no_runtime("PYTHON3.9")),
    Row("CreateFunction", create(Architectures=["X86_64"]), VALIDATION, one("[X86_64]", "architectures", ARCHITECTURES)),
    Row("CreateFunction", create(Architectures=["x86_64", "arm64"]), VALIDATION, one("[x86_64, arm64]", "architectures", "Member must have length less than or equal to 1")),
    Row("CreateFunction", create(SnapStart={"ApplyOn": "invalidOption"}), VALIDATION, one("invalidOption", "snapStart.applyOn", "Member must satisfy enum value set: [PublishedVersions, None]")),
    Row("CreateFunction", create(Code={"ZipFile": b"this is not a zip file, just a random string"}), INVALID, "Could not unzip uploaded file. Please check your file, then try to upload again."),
    Row("CreateFunction", create(Code={"ZipFile": "<bomb>"}), INVALID, "Unzipped size must be smaller than 262144000 bytes"),
    Row("CreateFunction", create(Code={"ZipFile": "<too_large_zip>"}), ("RequestEntityTooLargeException", 413), "Zipped size must be smaller than 52428800 bytes"),
    Row("CreateFunction", create(Code={"ZipFile": "<too_large_request>"}), ("RequestEntityTooLargeException", 413), "Request must be smaller than 70167211 bytes for the CreateFunction operation"),
    Row("CreateFunction", create(Environment={"Variables": {"LARGE_VAR": "x" * 4081}}), INVALID, 'Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit. String measured: {"LARGE_VAR":"' + "x" * 4081 + '"}'),
    Row("CreateFunction", create(Environment={"Variables": {"SMALL_VAR": "ok", "LARGE_VAR": "x" * 4064}}), INVALID, 'Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit. String measured: {"SMALL_VAR":"ok","LARGE_VAR":"' + "x" * 4064 + '"}'),
    Row("CreateFunction", create(Tags=tags(51)), INVALID, "Number of tags exceeds resource tag limit."),
    Row("CreateFunction", create(Layers=[f"{LAYER}<layer>:9"]), INVALID, f"Layer version {LAYER}<layer>:9 does not exist."),
    Row("CreateFunction", create(Layers=[f"{LAYER}doesnotexist:1"]), INVALID, f"Layer version {LAYER}doesnotexist:1 does not exist."),
    Row("CreateFunction", create(Layers=[f"{LAYER}<layer>"]), VALIDATION, one(f"[{LAYER}<layer>]", "layers", "Member must satisfy constraint: [Member must have length less than or equal to 2048, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:\\d{12}:layer:[a-zA-Z0-9-_]+:[0-9]+)|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+), Member must not be null]")),
    Row("CreateFunction", create(Layers=[f"{LAYER}l{number}:1" for number in range(6)]), INVALID, "Cannot reference more than 5 layers."),
    Row("CreateFunction", create(Layers=["arn:<partition>:lambda:ap-southeast-1:<account>:layer:l:1"]), INVALID, "Layers are not in the same region as the function. Layers are expected to be in region <region>."),
    Row("CreateFunction", create(Layers=[f"{LAYER}<layer>:1", f"{LAYER}<layer>:1"]), INVALID, f"Two different versions of the same layer are not allowed to be referenced in the same function. {LAYER}<layer>:1 and {LAYER}<layer>:1 are versions of the same layer."),
    Row("CreateFunction", create(Layers=[f"{LAYER}<two_versions>:1", f"{LAYER}<two_versions>:2"]), INVALID, f"Two different versions of the same layer are not allowed to be referenced in the same function. {LAYER}<two_versions>:1 and {LAYER}<two_versions>:2 are versions of the same layer."),
    Row("CreateFunction", create(CodeSigningConfigArn=NO_CSC), ("CodeSigningConfigNotFoundException", 404), f"The code signing configuration cannot be found. Check that the provided configuration is not deleted: {NO_CSC}."),
    Row("CreateFunction", create(VpcConfig={"SubnetIds": ["bad-subnet"], "SecurityGroupIds": ["sg-1"]}), VALIDATION, one("[bad-subnet]", "vpcConfig.subnetIds", "Member must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length greater than or equal to 0, Member must satisfy regular expression pattern: subnet-[0-9a-z]*]")),
    Row("CreateFunction", create(VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["bad-sg"]}), VALIDATION, one("[bad-sg]", "vpcConfig.securityGroupIds", "Member must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length greater than or equal to 0, Member must satisfy regular expression pattern: sg-[0-9a-zA-Z]*]")),
    *(no_longer(runtime) for runtime in ("dotnetcore3.1", "go1.x", "java8", "nodejs12.x", "nodejs14.x", "provided", "python3.7", "ruby2.7")),
    # Managed Instances: second-hand and from the field, but for the texts of tags further down
    Row("CreateFunction", create(MemorySize=2048, CapacityProviderConfig={}), VALIDATION, "1 validation error detected: Value null at 'capacityProviderConfig.lambdaManagedInstancesCapacityProviderConfig' failed to satisfy constraint: Member must not be null"),
    Row("CreateFunction", create(MemorySize=2048, CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": {}}), VALIDATION, "1 validation error detected: Value null at 'capacityProviderConfig.lambdaManagedInstancesCapacityProviderConfig.capacityProviderArn' failed to satisfy constraint: Member must not be null"),
    Row("CreateFunction", create(MemorySize=2048, CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": "none"}}), VALIDATION, pattern("none", "capacityProviderConfig.lambdaManagedInstancesCapacityProviderConfig.capacityProviderArn", "arn:aws[a-zA-Z-]*:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:\\d{12}:capacity-provider:[a-zA-Z0-9-_]+")),
    Row("CreateFunction", create(MemorySize=2048, Runtime="python3.12", CapacityProviderConfig="<managed>"), INVALID, "Runtime Enum python3.12 does not support specified feature: Lambda Managed Instances"),
    Row("CreateFunction", create(MemorySize=2048, LoggingConfig={"LogFormat": "Text"}, CapacityProviderConfig="<managed>"), INVALID, 'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change the LogFormat to "JSON" and try again.'),
    Row("CreateFunction", create(MemorySize=512, CapacityProviderConfig="<managed>"), VALIDATION, "Lambda Managed Instance functions must have memory size greater than or equal to 2048"),
    Row("CreateFunction", create(MemorySize=2048, PublishTo="x", CapacityProviderConfig="<managed>"), VALIDATION, one("x", "publishTo", "Member must satisfy enum value set: [LATEST_PUBLISHED]")),
    Row("PublishVersion", {"FunctionName": "<fn>", "PublishTo": "x"}, VALIDATION, one("x", "publishTo", "Member must satisfy enum value set: [LATEST_PUBLISHED]")),
    Row("UpdateFunctionCode", {"FunctionName": "<fn>", "ZipFile": ZIP, "PublishTo": "x"}, VALIDATION, one("x", "publishTo", "Member must satisfy enum value set: [LATEST_PUBLISHED]")),
    Row("UpdateFunctionConfiguration", {"FunctionName": "<default>", "CapacityProviderConfig": "<managed>"}, INVALID, "CapacityProviderConfig isn't supported for Lambda Default functions."),
    Row("PutFunctionScalingConfig", {"FunctionName": "<default>", "Qualifier": "1", "FunctionScalingConfig": {"MinExecutionEnvironments": 1}}, ("AccessDeniedException", 403), "The function provided by the arn does not contain a capacity provider configuration"),
    Row("CreateCapacityProvider", {"CapacityProviderName": "<new>", "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}, "PermissionsConfig": {"CapacityProviderOperatorRoleArn": "<role>"}, "CapacityProviderScalingConfig": {"ScalingMode": "Auto", "ScalingPolicies": [{"PredefinedMetricType": "LambdaCapacityProviderAverageCPUUtilization", "TargetValue": 50.0}]}}, INVALID, "A scaling policy can't be specified when the scalingMode is set to Auto"),
    Row("UpdateFunctionConfiguration", {"FunctionName": "arn:<partition>:lambda:<region>:123456789012:function:f", "Timeout": 3}, ("AccessDeniedException", 403), None),
    # Reading functions
    *(Row(operation, {"FunctionName": "doesnotexist"}, MISSING, f"Function not found: {FUNCTION}doesnotexist") for operation in ("GetFunction", "GetFunctionConfiguration", "DeleteFunction", "ListVersionsByFunction", "PublishVersion")),
    Row("GetFunction", {"FunctionName": "<fn>", "Qualifier": "10"}, MISSING, f"Function not found: {FUNCTION}<fn>:10"),
    Row("GetFunction", {"FunctionName": "<fn>", "Qualifier": "aliasdoesnotexist"}, MISSING, f"Function not found: {FUNCTION}<fn>:aliasdoesnotexist"),
    Row("GetFunctionConfiguration", {"FunctionName": "<fn>", "Qualifier": "10"}, MISSING, f"Function not found: {FUNCTION}<fn>:10"),
    *(Row(operation, {"FunctionName": "<fn>:1", "Qualifier": "$LATEST"}, INVALID, DERIVED) for operation in ("GetFunction", "GetFunctionConfiguration", "DeleteFunction")),
    *(Row(operation, {"FunctionName": "arn:<partition>:lambda:ap-southeast-1:<account>:function:<fn>"}, MISSING, REGION) for operation in ("GetFunction", "GetFunctionConfiguration", "DeleteFunction")),
    Row("GetFunction", {"FunctionName": "arn:<partition>:lambda:<region>:123400000000@function:myfn"}, VALIDATION, pattern("arn:<partition>:lambda:<region>:123400000000@function:myfn", "functionName", NAME + "([a-zA-Z0-9-_\\.]+)(:(\\$LATEST(\\.PUBLISHED)?|[a-zA-Z0-9-_]+))?")),
    Row("GetFunction", {"FunctionName": "<fn>", "Qualifier": "invalid-qualifier-with-?-char"}, VALIDATION, pattern("invalid-qualifier-with-?-char", "qualifier", "\\$(LATEST(\\.PUBLISHED)?)|[a-zA-Z0-9-_$]+")),
    Row("GetFunction", {"FunctionName": "<fn>", "Qualifier": "valid-with-$-but-doesnotexist"}, MISSING, f"Function not found: {FUNCTION}<fn>:valid-with-$-but-doesnotexist"),
    Row("ListFunctions", {"FunctionVersion": "invalid"}, VALIDATION, one("invalid", "functionVersion", "Member must satisfy enum value set: [ALL]")),
    Row("DeleteFunction", {"FunctionName": "<fn>", "Qualifier": "$LATEST"}, INVALID, "$LATEST version cannot be deleted without deleting the function."),
    # Changing functions
    Row("UpdateFunctionCode", {"FunctionName": "doesnotexist", "ZipFile": ZIP}, MISSING, f"Function not found: {FUNCTION}doesnotexist"),
    Row("UpdateFunctionCode", {"FunctionName": "<fn>", "ImageUri": "<account>.dkr.ecr.<region>.amazonaws.com/none:latest"}, INVALID, "Please don't provide ImageUri when updating a function with packageType Zip."),
    Row("UpdateFunctionCode", {"FunctionName": "<fn>", "ZipFile": ZIP, "RevisionId": WRONG_REVISION}, STALE, STALE_FUNCTION),
    Row("UpdateFunctionConfiguration", {"FunctionName": "doesnotexist", "Timeout": 3}, MISSING, f"Function not found: {FUNCTION}doesnotexist"),
    Row("UpdateFunctionConfiguration", {"FunctionName": "<fn>", "Timeout": 3, "RevisionId": WRONG_REVISION}, STALE, STALE_FUNCTION),
    Row("UpdateFunctionConfiguration", {"FunctionName": "<fn>", "Role": "r1"}, VALIDATION, pattern("r1", "role", "arn:(aws[a-zA-Z-]*)?:iam::\\d{12}:role/?[a-zA-Z_0-9+=,.@\\-_/]+")),
    Row("UpdateFunctionConfiguration", {"FunctionName": "<fn>", "Runtime": "non-existent-runtime"}, INVALID, no_runtime("non-existent-runtime")),
    Row("UpdateFunctionConfiguration", {"FunctionName": "<fn>", "Runtime": "PYTHON3.9"}, INVALID, no_runtime("PYTHON3.9")),
    Row("PublishVersion", {"FunctionName": "<fn>", "RevisionId": WRONG_REVISION}, STALE, STALE_FUNCTION),
    *(Row("PublishVersion", {"FunctionName": "<fn>", "CodeSha256": sha}, INVALID, f"CodeSHA256 ({sha}) is different from current CodeSHA256 in $LATEST (<sha256>). Please try again with the CodeSHA256 in $LATEST.") for sha in ("somenonexistentsha256", "a" * 63)),
    # Invoking
    Row("Invoke", {"FunctionName": "doesnotexist"}, MISSING, f"Function not found: {FUNCTION}doesnotexist"),
    Row("Invoke", {"FunctionName": "<active>", "Payload": b"\x99"}, ("InvalidRequestContentException", 400), "Could not parse request body into json: Could not parse payload into json: Unexpected character ((CTRL-CHAR, code 153)): expected a valid value (JSON String, Number, Array, Object or token 'null', 'true' or 'false')\n at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column: 1]"),
    Row("Invoke", {"FunctionName": "<throttled>"}, ("TooManyRequestsException", 429), "Rate Exceeded."),
    # Aliases
    Row("CreateAlias", alias(Name="live"), CONFLICT, f"Alias already exists: {FUNCTION}<fn>:live"),
    Row("CreateAlias", alias(FunctionName="doesnotexist"), MISSING, f"Function not found: {FUNCTION}doesnotexist"),
    Row("CreateAlias", alias(FunctionVersion="10"), MISSING, f"Function not found: {FUNCTION}<fn>:10"),
    Row("CreateAlias", alias(Name="2024"), VALIDATION, pattern("2024", "name", "(?!^[0-9]+$)([a-zA-Z0-9-_]+)")),
    Row("CreateAlias", alias(FunctionVersion="$LATEST", RoutingConfig={"AdditionalVersionWeights": {"1": 0.5}}), INVALID, "$LATEST is not supported for an alias pointing to more than 1 version"),
    Row("CreateAlias", alias(RoutingConfig={"AdditionalVersionWeights": {"1": 0.5}}), INVALID, "Invalid function version 1. Function version 1 is already included in routing configuration."),
    Row("CreateAlias", alias(RoutingConfig={"AdditionalVersionWeights": {"1": 0.5, "2": 0.5}}), INVALID, "Number of items in AdditionalVersionWeights cannot be greater than 1"),
    Row("CreateAlias", alias(RoutingConfig={"AdditionalVersionWeights": {"2": 2.0}}), VALIDATION, one("{2=2.0}", "routingConfig.additionalVersionWeights", "Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0, Member must not be null]")),
    Row("CreateAlias", alias(RoutingConfig={"AdditionalVersionWeights": {"2": -1.0}}), VALIDATION, one("{2=-1.0}", "routingConfig.additionalVersionWeights", "Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0, Member must not be null]")),
    Row("CreateAlias", alias(RoutingConfig={"AdditionalVersionWeights": {"$LATEST": 0.5}}), VALIDATION, one("{$LATEST=0.5}", "routingConfig.additionalVersionWeights", "Map keys must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+]")),
    Row("GetAlias", {"FunctionName": "<fn>", "Name": "non-existent"}, MISSING, f"Cannot find alias arn: {FUNCTION}<fn>:non-existent"),
    Row("UpdateAlias", {"FunctionName": "<fn>", "Name": "non-existent", "Description": "d"}, MISSING, f"Alias not found: {FUNCTION}<fn>:non-existent"),
    Row("UpdateAlias", {"FunctionName": "<fn>", "Name": "live", "Description": "d", "RevisionId": WRONG_REVISION}, STALE, STALE_FUNCTION),
    # Policies of functions
    Row("AddPermission", permission(FunctionName="doesnotexist"), MISSING, f"Function not found: {FUNCTION}doesnotexist"),
    Row("AddPermission", permission(FunctionName="<fn>", Qualifier="42"), MISSING, f"Function not found: {FUNCTION}<fn>:42"),
    Row("AddPermission", permission(FunctionName="<fn>", Qualifier="alias-doesnotexist"), MISSING, f"Cannot find alias arn: {FUNCTION}<fn>:alias-doesnotexist"),
    Row("AddPermission", permission(Qualifier="$LATEST"), INVALID, "We currently do not support adding policies for $LATEST."),
    Row("AddPermission", permission(Principal="invalid.nonaws.com"), INVALID, "The provided principal was invalid. Please check the principal and try again."),
    Row("AddPermission", permission(StatementId="example.com"), VALIDATION, pattern("example.com", "statementId", "([a-zA-Z0-9-_]+)")),
    Row("AddPermission", permission(FunctionName="<fn>"), CONFLICT, "The statement id (s1) provided already exists. Please provide a new statement id, or remove the existing statement.", (("AddPermission", permission(FunctionName="<fn>")),)),
    Row("AddPermission", permission(FunctionName="<fn>", StatementId="<new>", RevisionId=WRONG_REVISION), STALE, STALE_POLICY, (("AddPermission", permission(FunctionName="<fn>", StatementId="<new>")),)),
    Row("AddPermission", permission(FunctionName="<fn>:1", Qualifier="2"), INVALID, DERIVED),
    Row("GetPolicy", {"FunctionName": "doesnotexist"}, MISSING, f"Function not found: {FUNCTION}doesnotexist"),
    Row("GetPolicy", {"FunctionName": "<bare>"}, MISSING, NOTHING),
    Row("RemovePermission", {"FunctionName": "doesnotexist", "StatementId": "s"}, MISSING, f"No policy found for: {FUNCTION}doesnotexist"),
    Row("RemovePermission", {"FunctionName": "<bare>", "StatementId": "s"}, MISSING, "No policy is associated with the given resource."),
    Row("RemovePermission", {"FunctionName": "<fn>", "StatementId": "non-existent"}, MISSING, "Statement non-existent is not found in resource policy.", (("AddPermission", permission(FunctionName="<fn>", StatementId="<new>")),)),
    Row("RemovePermission", {"FunctionName": "<fn>", "StatementId": "s6", "RevisionId": WRONG_REVISION}, STALE, STALE_POLICY, (("AddPermission", permission(FunctionName="<fn>", StatementId="s6")),)),
    # Function URLs
    *(Row(operation, {"FunctionName": "doesnotexist", "AuthType": "NONE"} if operation == "CreateFunctionUrlConfig" else {"FunctionName": "doesnotexist"}, MISSING, "Function does not exist" if operation == "CreateFunctionUrlConfig" else ("Function does not exist", NOTHING)) for operation in ("CreateFunctionUrlConfig", "GetFunctionUrlConfig", "DeleteFunctionUrlConfig", "UpdateFunctionUrlConfig")),
    *(Row(operation, {"FunctionName": "<fn>", "Qualifier": qualifier, **({"AuthType": "NONE"} if operation == "CreateFunctionUrlConfig" else {})}, VALIDATION, pattern(qualifier, "qualifier", "((?!^\\d+$)^[0-9a-zA-Z-_]+$)")) for operation in ("CreateFunctionUrlConfig", "GetFunctionUrlConfig", "DeleteFunctionUrlConfig", "UpdateFunctionUrlConfig") for qualifier in ("$LATEST", "1", "2")),
    Row("CreateFunctionUrlConfig", {"FunctionName": "<fn>", "AuthType": "NONE", "InvokeMode": "UNKNOWN"}, VALIDATION, one("UNKNOWN", "invokeMode", "Member must satisfy enum value set: [RESPONSE_STREAM, BUFFERED]")),
    Row("CreateFunctionUrlConfig", {"FunctionName": "<fn>", "AuthType": "NONE"}, CONFLICT, f"Failed to create function url config for [functionArn = {FUNCTION}<fn>]. Error message:  FunctionUrlConfig exists for this Lambda function", (("CreateFunctionUrlConfig", {"FunctionName": "<fn>", "AuthType": "NONE"}),)),
    *(Row(operation, {"FunctionName": "<bare>"}, MISSING, NOTHING) for operation in ("GetFunctionUrlConfig", "DeleteFunctionUrlConfig", "UpdateFunctionUrlConfig")),
    # Asynchronous invocations
    Row("PutFunctionEventInvokeConfig", {"FunctionName": "doesnotexist", "MaximumRetryAttempts": 1}, MISSING, "The function doesn't exist."),
    Row("PutFunctionEventInvokeConfig", {"FunctionName": "<fn>", "Qualifier": "doesnotexist", "MaximumRetryAttempts": 1}, MISSING, "The function doesn't exist."),
    Row("PutFunctionEventInvokeConfig", {"FunctionName": "<fn>"}, INVALID, "You must specify at least one of error handling or destination setting."),
    Row("PutFunctionEventInvokeConfig", {"FunctionName": "<fn>", "DestinationConfig": {"OnSuccess": {"Destination": FUNCTION + "<fn>"}}}, INVALID, "You can't specify the function as a destination for itself."),
    Row("PutFunctionEventInvokeConfig", {"FunctionName": "<fn>", "DestinationConfig": {"OnSuccess": {"Destination": FUNCTION + "doesnotexist"}}}, INVALID, f"The destination ARN {FUNCTION}doesnotexist is invalid."),
    Row("PutFunctionEventInvokeConfig", {"FunctionName": "<fn>", "DestinationConfig": {"OnSuccess": {"Destination": "arn:<partition>:iam:<region>:<account>:function:<fn>"}}}, INVALID, "The provided destination config DestinationConfig(onSuccess=OnSuccess(destination=arn:<partition>:iam:<region>:<account>:function:<fn>), onFailure=null) is invalid."),
    Row("PutFunctionEventInvokeConfig", {"FunctionName": "<fn>", "DestinationConfig": {"OnFailure": {"Destination": "arn:<partition>:_-/!lambda:<region>:<account>:function:<fn>"}}}, VALIDATION, pattern("arn:<partition>:_-/!lambda:<region>:<account>:function:<fn>", "destinationConfig.onFailure.destination", "$|kafka://([^.]([a-zA-Z0-9\\-_.]{0,248}))|arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\\-])+:((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1})?:(\\d{12})?:(.*)")),
    *(Row(operation, {"FunctionName": name, **qualifier}, MISSING, f"The function {FUNCTION}{arn} doesn't have an EventInvokeConfig") for operation in ("GetFunctionEventInvokeConfig", "DeleteFunctionEventInvokeConfig") for name, qualifier, arn in (("<bare>", {}, "<bare>:$LATEST"), ("<fn>", {"Qualifier": "1"}, "<fn>:1"), ("<fn>", {"Qualifier": "live"}, "<fn>:live"), ("<fn>", {"Qualifier": "doesnotexist"}, "<fn>:doesnotexist"), ("<fn>", {"Qualifier": "1221"}, "<fn>:1221"), ("doesnotexist", {}, "doesnotexist:$LATEST"))),
    Row("ListFunctionEventInvokeConfigs", {"FunctionName": "doesnotexist"}, MISSING, "The function doesn't exist."),
    # Concurrency
    Row("PutFunctionConcurrency", {"FunctionName": "doesnotexist", "ReservedConcurrentExecutions": 1}, MISSING, f"Function not found: {FUNCTION}doesnotexist"),
    Row("GetFunctionConcurrency", {"FunctionName": "doesnotexist"}, MISSING, f"Function not found: {FUNCTION}doesnotexist"),
    Row("PutFunctionConcurrency", {"FunctionName": "<fn>:1", "ReservedConcurrentExecutions": 1}, INVALID, "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please specify either a function name or an unqualified function ARN."),
    Row("PutFunctionConcurrency", {"FunctionName": "<bare>", "ReservedConcurrentExecutions": "<all_but_the_minimum>"}, INVALID, "Specified ReservedConcurrentExecutions" + BELOW),
    Row("PutProvisionedConcurrencyConfig", provisioned(0), VALIDATION, one("0", "provisionedConcurrentExecutions", "Member must have value greater than or equal to 1")),
    Row("PutProvisionedConcurrencyConfig", provisioned(1, "$LATEST"), INVALID, "Provisioned Concurrency Configs cannot be applied to unpublished function versions."),
    Row("PutProvisionedConcurrencyConfig", provisioned("<all_but_the_minimum>"), INVALID, "Specified ConcurrentExecutions" + BELOW),
    Row("PutProvisionedConcurrencyConfig", provisioned("<more_than_all>"), INVALID, "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [<unreserved>]."),
    Row("PutProvisionedConcurrencyConfig", provisioned(2, FunctionName="<reserved_one>"), INVALID, "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"),
    Row("PutProvisionedConcurrencyConfig", provisioned(1, "10"), MISSING, f"Function not found: {FUNCTION}<fn>:10"),
    Row("PutProvisionedConcurrencyConfig", provisioned(1, "noalias"), MISSING, f"Cannot find alias arn: {FUNCTION}<fn>:noalias"),
    Row("PutProvisionedConcurrencyConfig", provisioned(1, "1", FunctionName="doesnotexist"), MISSING, f"Function not found: {FUNCTION}doesnotexist:1"),
    Row("PutProvisionedConcurrencyConfig", provisioned(1, "noalias", FunctionName="doesnotexist"), MISSING, f"Cannot find alias arn: {FUNCTION}doesnotexist:noalias"),
    Row("PutProvisionedConcurrencyConfig", provisioned(1, "live", FunctionName="<provisioned_version>"), CONFLICT, "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"),
    Row("PutProvisionedConcurrencyConfig", provisioned(1, "1", FunctionName="<provisioned_alias>"), CONFLICT, "Version is pointed by a Provisioned Concurrency alias"),
    Row("PutFunctionConcurrency", {"FunctionName": "<provisioned_version>", "ReservedConcurrentExecutions": 1}, INVALID, " ReservedConcurrentExecutions  1 should not be lower than function's total provisioned concurrency [2]."),
    *(Row("GetProvisionedConcurrencyConfig", {"FunctionName": "<fn>", "Qualifier": qualifier}, ("ProvisionedConcurrencyConfigNotFoundException", 404), "No Provisioned Concurrency Config found for this function") for qualifier in ("1", "live")),
    *(Row(operation, {"FunctionName": "<fn>", "Qualifier": "$LATEST"}, INVALID, "The function resource provided must be an alias or a published version.") for operation in ("GetProvisionedConcurrencyConfig", "DeleteProvisionedConcurrencyConfig")),
    Row("GetProvisionedConcurrencyConfig", {"FunctionName": "doesnotexist", "Qualifier": "noalias"}, MISSING, f"Cannot find alias arn: {FUNCTION}doesnotexist:noalias"),
    # Recursion
    Row("PutFunctionRecursionConfig", {"FunctionName": "<fn>", "RecursiveLoop": "InvalidValue"}, VALIDATION, one("InvalidValue", "recursiveLoop", "Member must satisfy enum value set: [Terminate, Allow]")),
    # Code signing
    Row("PutFunctionCodeSigningConfig", {"FunctionName": "<fn>", "CodeSigningConfigArn": NO_CSC}, ("CodeSigningConfigNotFoundException", 404), f"The code signing configuration cannot be found. Check that the provided configuration is not deleted: {NO_CSC}."),
    *(Row(operation, {"CodeSigningConfigArn": NO_CSC}, MISSING, f"The Lambda code signing configuration {NO_CSC} can not be found.") for operation in ("GetCodeSigningConfig", "UpdateCodeSigningConfig", "DeleteCodeSigningConfig", "ListFunctionsByCodeSigningConfig")),
    *(Row(operation, {"FunctionName": "csc-test-doesnotexist"}, MISSING, f"Function not found: {FUNCTION}csc-test-doesnotexist") for operation in ("GetFunctionCodeSigningConfig", "DeleteFunctionCodeSigningConfig")),
    # Tags
    *(Row(operation, {"Resource": resource, **more}, *refused)
      for operation, more in (("ListTags", {}), ("TagResource", {"Tags": {"a": "b"}}), ("UntagResource", {"TagKeys": ["a"]}))
      for resource, refused in (
          (FUNCTION + "doesnotexist", (MISSING, f"Function not found: {FUNCTION}doesnotexist")),
          (FUNCTION + "<fn>:1", (INVALID, "Tags on function aliases and versions are not supported. Please specify a function ARN.")),
          ("arn:<partition>:lambda:<region>:<account>:capacity-provider:none", (MISSING, "Capacity provider not found: arn:<partition>:lambda:<region>:<account>:capacity-provider:none")),
          ("arn:<partition>:lambda:<region>:<account>:event-source-mapping:" + NO_UUID, (MISSING, "Event source mapping not found: arn:<partition>:lambda:<region>:<account>:event-source-mapping:" + NO_UUID)),
          *((bad, (VALIDATION, pattern(bad, "resource", TAGGABLE))) for bad in ("arn:<partition>:lambda:<region>:<account>:foobar:none", "arn:<partition>:lambda:<region>:<account>:capacity-provider:none:alias", f"arn:<partition>:lambda:<region>:<account>:event-source-mapping:{NO_UUID}:alias", "arn:<partition>:something")),
      )),
    Row("TagResource", {"Resource": FUNCTION + "<fn>", "Tags": tags(51)}, INVALID, "Number of tags exceeds resource tag limit."),
    Row("UntagResource", {"Resource": FUNCTION + "<fn>"}, VALIDATION, "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not be null"),
    # Event source mappings, as far as no queue or stream is asked
    Row("CreateEventSourceMapping", queue(FunctionName="doesnotexist"), INVALID, "Function does not exist"),
    Row("CreateEventSourceMapping", queue(EventSourceArn="arn:<partition>:nothing:<region>:<account>:none"), INVALID, "Unrecognized event source."),
    Row("CreateEventSourceMapping", queue(FilterCriteria={"Filters": [{"Pattern": "invalid-json"}]}), INVALID, "Invalid filter pattern definition."),
    Row("CreateEventSourceMapping", queue(FilterCriteria={"Filters": [{"Pattern": '{"eventName": "INSERT"}'}]}), INVALID, "Invalid filter pattern definition."),
    Row("CreateEventSourceMapping", queue(BatchSize=11), INVALID, "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"),
    Row("CreateEventSourceMapping", queue(DestinationConfig={"OnFailure": {"Destination": "arn:<partition>:sqs:<region>:<account>:other"}}), INVALID, "Unsupported DestinationConfig parameter for given event source mapping type."),
    Row("CreateEventSourceMapping", queue(EventSourceArn="arn:<partition>:kinesis:<region>:<account>:stream/none"), INVALID, "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null."),
    Row("CreateEventSourceMapping", queue(EventSourceArn="arn:<partition>:kinesis:<region>:<account>:stream/none", StartingPosition="invalid"), VALIDATION, one("invalid", "startingPosition", "Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]")),
    Row("CreateEventSourceMapping", queue(EventSourceArn="arn:<partition>:dynamodb:<region>:<account>:table/t/stream/2025-02-22T03:03:25.490", StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=1740000000), INVALID, "Unsupported starting position for arn type: arn:<partition>:dynamodb:<region>:<account>:table/t/stream/2025-02-22T03:03:25.490"),
    Row("CreateEventSourceMapping", {key: value for key, value in kafka("kafka:1000").items() if key != "SourceAccessConfigurations"}, INVALID, "Required 'sourceAccessConfigurations' parameter is missing."),
    *(Row("CreateEventSourceMapping", kafka(*servers), CONFLICT, f'An event source mapping with event source ("{",".join(servers)}"), function ("{FUNCTION}<bare>"), topics ("topic") already exists. Please update or delete the existing mapping with UUID <uuid>', (("CreateEventSourceMapping", kafka(*servers)),)) for servers in (("kafka:1000",), ("kafka:1000", "kafka:2000"))),
    *(Row(operation, {"UUID": NO_UUID}, MISSING, NOTHING) for operation in ("GetEventSourceMapping", "DeleteEventSourceMapping", "UpdateEventSourceMapping")),
]

NOT_REACHED = [
    # (code, text, why no request to this server gets it)
    ("InvalidParameterValueException", "Error occurred while DescribeSecurityGroups. EC2 Error Code: InvalidGroup.NotFound. EC2 Error Message: The security group '<security_group_id>' does not exist", "there is no EC2 to ask"),
    ("InvalidParameterValueException", "Error occurred while DescribeSubnets. EC2 Error Code: InvalidSubnetID.NotFound. EC2 Error Message: The subnet ID '<subnet_id>' does not exist", "there is no EC2 to ask"),
    ("InvalidParameterValueException", "An error occurred and the request cannot be processed.", "recorded without its operation"),
    ("InvalidParameterValueException", "Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not exist", "needs an S3: moto_suite.py asks"),
    ("InvalidParameterValueException", "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist.", "needs an S3"),
    ("InvalidParameterValueException", "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: The specified queue does not exist.", "needs an SQS"),
    ("InvalidParameterValueException", "Please provide ImageUri when updating a function with packageType Image.", "needs container images"),
    ("InvalidParameterValueException", "Stream not found: <arn>", "needs a stream's service"),
    ("InvalidRequestContentException", "Could not parse request body into json: Could not parse payload into json: Invalid UTF-8 start byte 0x87", "recorded without its payload"),
    ("ResourceConflictException", 'An event source mapping with SQS arn (" <arn> ") and function (" <name> ") already exists. Please update or delete the existing mapping with UUID <uuid>', "needs an SQS"),
    ("ResourceConflictException", 'The event source arn (" <arn> ") and function (" <name> ") provided mapping already exists. Please update or delete the existing mapping with UUID <uuid>', "needs a stream's service"),
    ("ResourceConflictException", "The operation cannot be performed at this time. An update is in progress for resource: <arn>", "holds for as long as an update takes, which is no time to hit"),
    ("ValidationException", "Value '[X86_64]' at 'instanceRequirements.architectures' failed to satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64]]", "a field report that retold the text; the recorded form of CreateFunction is used"),
    ("ResourceConflictException", "To delete this capacity provider, first remove its association", "a part of a text; test_api.py looks for it"),
]
