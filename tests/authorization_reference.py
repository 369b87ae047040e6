"""What AWS's Service Authorization Reference says of each operation: its action, and the resource the action is on.

Written from the reference and from error texts the services were seen to answer, not from the server's own table.
"""

ACCOUNT = "000000000000"
LAMBDA = f"arn:aws:lambda:us-east-1:{ACCOUNT}:"
IAM = f"arn:aws:iam::{ACCOUNT}:"
SCHEDULER = f"arn:aws:scheduler:us-east-1:{ACCOUNT}:"

# Actions that are not called as their operation is.
ACTIONS = {"Invoke": "InvokeFunction", "InvokeAsync": "InvokeFunction", "InvokeWithResponseStream": "InvokeFunction", "GetLayerVersionByArn": "GetLayerVersion"}

# Resource types, and the actions each is required for.
LAMBDA_TYPES = {
    "function": """
        AddPermission CreateAlias CreateFunction CreateFunctionUrlConfig DeleteAlias DeleteFunction
        DeleteFunctionCodeSigningConfig DeleteFunctionConcurrency DeleteFunctionEventInvokeConfig
        DeleteFunctionUrlConfig GetAlias GetFunction GetFunctionCodeSigningConfig GetFunctionConcurrency
        GetFunctionConfiguration GetFunctionEventInvokeConfig GetFunctionRecursionConfig GetFunctionScalingConfig
        GetFunctionUrlConfig GetPolicy GetRuntimeManagementConfig Invoke InvokeAsync InvokeWithResponseStream ListAliases ListFunctionEventInvokeConfigs
        ListFunctionUrlConfigs ListProvisionedConcurrencyConfigs ListVersionsByFunction PublishVersion
        PutFunctionCodeSigningConfig PutFunctionConcurrency PutFunctionEventInvokeConfig PutFunctionRecursionConfig
        PutFunctionScalingConfig PutRuntimeManagementConfig RemovePermission UpdateAlias UpdateFunctionCode
        UpdateFunctionConfiguration UpdateFunctionEventInvokeConfig UpdateFunctionUrlConfig
        DeleteProvisionedConcurrencyConfig GetProvisionedConcurrencyConfig PutProvisionedConcurrencyConfig""",
    "ResourceArn": "DeleteResourcePolicy GetResourcePolicy PutResourcePolicy",
    "Resource": "ListTags TagResource UntagResource",
    "CodeSigningConfigArn": """
        DeleteCodeSigningConfig GetCodeSigningConfig ListFunctionsByCodeSigningConfig UpdateCodeSigningConfig""",
    "capacity-provider": """
        CreateCapacityProvider DeleteCapacityProvider GetCapacityProvider ListFunctionVersionsByCapacityProvider
        UpdateCapacityProvider""",
    "event-source-mapping": "DeleteEventSourceMapping GetEventSourceMapping UpdateEventSourceMapping",
    # The reference has no type for ListLayerVersions; its denials were seen to name the layer.
    "layer": "ListLayerVersions PublishLayerVersion",
    "layer version": """
        AddLayerVersionPermission DeleteLayerVersion GetLayerVersion GetLayerVersionPolicy RemoveLayerVersionPermission""",
    "Arn": "GetLayerVersionByArn",
    "*": """
        CreateCodeSigningConfig CreateEventSourceMapping GetAccountSettings ListCapacityProviders ListCodeSigningConfigs
        ListEventSourceMappings ListFunctions ListLayers""",
}
IAM_TYPES = {
    "role": """
        AttachRolePolicy CreateRole DeleteRole DeleteRolePolicy DetachRolePolicy GetRole GetRolePolicy
        ListAttachedRolePolicies ListInstanceProfilesForRole ListRolePolicies ListRoleTags PutRolePolicy TagRole
        UntagRole UpdateAssumeRolePolicy UpdateRole UpdateRoleDescription""",
    "PolicyArn": """
        CreatePolicyVersion DeletePolicy DeletePolicyVersion GetPolicy GetPolicyVersion ListEntitiesForPolicy
        ListPolicyTags ListPolicyVersions SetDefaultPolicyVersion TagPolicy UntagPolicy""",
    "policy": "CreatePolicy",
    "user": "GetUser",
    "*": "ListAccountAliases ListPolicies ListRoles",
}
STS_TYPES = {"RoleArn": "AssumeRole", "*": "GetAccessKeyInfo GetCallerIdentity GetSessionToken"}
SCHEDULER_TYPES = {
    "schedule": "CreateSchedule DeleteSchedule GetSchedule UpdateSchedule",
    "schedule-group": "CreateScheduleGroup DeleteScheduleGroup GetScheduleGroup",
    "ResourceArn": "ListTagsForResource TagResource UntagResource",
    "*": "ListScheduleGroups ListSchedules",
}
TYPES = {
    (service, operation): kind
    for service, types in (("lambda", LAMBDA_TYPES), ("iam", IAM_TYPES), ("sts", STS_TYPES), ("scheduler", SCHEDULER_TYPES))
    for kind, operations in types.items()
    for operation in operations.split()
}

# For these AWS asks for no permission: whoever is known may.
OPEN = {"GetCallerIdentity", "GetSessionToken"}

# What else an operation needs whatever its input; what needs more for some inputs has tests of its own.
ALSO = {
    "CreateFunction": ["iam:PassRole"],
    "CreateCapacityProvider": ["iam:PassRole"],
    "PutResourcePolicy": ["lambda:AddPermission", "lambda:RemovePermission"],
    "GetResourcePolicy": ["lambda:GetPolicy"],
    "DeleteResourcePolicy": ["lambda:RemovePermission"],
    "CreateSchedule": ["iam:PassRole"],
    "UpdateSchedule": ["iam:PassRole"],
    "DeleteScheduleGroup": ["scheduler:DeleteSchedule"],
}


def action(service, operation):
    return f"{service}:{ACTIONS.get(operation, operation)}"


def resource(service, operation, values):
    """The ARN an operation is on, from its input."""
    kind = TYPES[service, operation]
    if kind in values:
        return values[kind]

    def named(member, prefix):
        return values[member] if values[member].startswith("arn:") else prefix + values[member]

    if kind == "function":
        # The reference names versions and aliases as types of their own; a policy is held against both the name and
        # the qualifier of a request.
        qualifier = values.get("Qualifier")
        return named("FunctionName", LAMBDA + "function:") + (f":{qualifier}" if qualifier else "")
    if kind == "capacity-provider":
        return named("CapacityProviderName", LAMBDA + "capacity-provider:")
    if kind == "event-source-mapping":
        return f"{LAMBDA}event-source-mapping:{values['UUID']}"
    if kind.startswith("layer"):
        layer = named("LayerName", LAMBDA + "layer:")
        return f"{layer}:{values['VersionNumber']}" if kind == "layer version" else layer
    if kind in ("role", "policy", "user"):
        name = values[f"{kind.capitalize()}Name"]
        return f"{IAM}{kind}{values.get('Path', '/')}{name}"
    if kind == "schedule":
        return f"{SCHEDULER}schedule/{values.get('GroupName', 'default')}/{values['Name']}"
    if kind == "schedule-group":
        return f"{SCHEDULER}schedule-group/{values['Name']}"
    assert kind == "*", kind
    return "*"


def denial(who, action, resource, why):
    """AWS's sentence."""
    policy = {
        "identity": f"because no identity-based policy allows the {action} action",
        "resource": f"because no resource-based policy allows the {action} action",
        "trust": f"because no role trust policy allows the {action} action",
        "session": f"because no session policy allows the {action} action",
        "explicit": "with an explicit deny in an identity-based policy",
    }[why]
    return f"User: {who} is not authorized to perform: {action} on resource: {resource} {policy}"
