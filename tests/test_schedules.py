"""Schedules: EventBridge Scheduler's API, and scaling by the clock as users see it."""

import json
import os
import subprocess
import time
from datetime import datetime, timedelta, timezone

import boto3
import pytest

from conftest import ACCOUNT, BIN, LATEST_PUBLISHED, Server, wait_until
from test_api import fault

TARGET = "arn:aws:scheduler:::aws-sdk:lambda:putFunctionScalingConfig"
GROUP_ARN = f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule-group/"
SCALER = f"arn:aws:iam::{ACCOUNT}:role/scaler"
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "scheduler.amazonaws.com"}, "Action": "sts:AssumeRole", "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}}}]}
MAY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "lambda:PutFunctionScalingConfig", "Resource": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:*"}]}
OFF = {"Mode": "OFF"}
INVALID = "ValidationException"
PAST = "at(2020-01-01T00:00:00)"
# So many seconds of the calendar pass in one of the clock's.
SCALE = 600


def role(server, name, trust=TRUST, may=MAY):
    iam = server.make_client("iam")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    if may:
        iam.put_role_policy(RoleName=name, PolicyName="may", PolicyDocument=json.dumps(may))
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


def prepared(*flags):
    """A server with a role for schedules. What its functions run doesn't matter: their versions keep what is asked."""
    server = Server(None, *flags)
    server.provider("cp")
    role(server, "scaler")
    server.scheduler = server.make_client("scheduler")
    return server


def function(server, name):
    server.create(name, {"app.py": "def handler(event, context):\n    return event\n"})
    server.publish(name)
    return name


@pytest.fixture(scope="module")
def server():
    server = prepared()
    function(server, "f")
    yield server
    server.remove()


@pytest.fixture(scope="module")
def fast():
    """One whose calendar goes faster."""
    server = prepared(f"--time-scale={SCALE}")
    yield server
    server.remove()


def target(name="f", low=2, high=None, role_arn=SCALER, **more):
    scaling = {"MinExecutionEnvironments": low} | ({"MaxExecutionEnvironments": high} if high is not None else {})
    asked = {"FunctionName": name, "Qualifier": LATEST_PUBLISHED, "FunctionScalingConfig": scaling}
    return {"Arn": TARGET, "RoleArn": role_arn, "Input": json.dumps(asked)} | more


def create(server, name, expression="cron(0 8 * * ? *)", **settings):
    return server.scheduler.create_schedule(**{"Name": name, "ScheduleExpression": expression, "FlexibleTimeWindow": OFF, "Target": target()} | settings)


def update(server, name, **settings):
    """Gives everything anew, with some of it changed, as this API wants it."""
    there = server.scheduler.get_schedule(Name=name)
    for answered in ("Arn", "CreationDate", "LastModificationDate", "ResponseMetadata"):
        there.pop(answered)
    return server.scheduler.update_schedule(**there | settings)


def ondol(server, *arguments):
    return subprocess.run([BIN, *arguments, "--port", str(server.port)], capture_output=True, text=True)


def shown(server, name):
    """What `ondol schedule show` tells; nothing if there is no such schedule."""
    out = ondol(server, "schedule", "show", name, "--json")
    return json.loads(out.stdout) if out.returncode == 0 else None


def last(server, name):
    return (shown(server, name) or {}).get("last")


def scaling(server, name, qualifier=LATEST_PUBLISHED):
    found = server.client.get_function_scaling_config(FunctionName=name, Qualifier=qualifier)
    return found.get("RequestedFunctionScalingConfig") or found["AppliedFunctionScalingConfig"]


def becomes(server, name, low):
    wait_until(lambda: scaling(server, name)["MinExecutionEnvironments"] == low, f"{name} to have a minimum of {low}")


def by_hand(server, name, low):
    server.client.put_function_scaling_config(FunctionName=name, Qualifier=LATEST_PUBLISHED, FunctionScalingConfig={"MinExecutionEnvironments": low})


def at(seconds=0, since=None):
    """So many seconds from now; a little ago unless given, which is due at once."""
    moment = datetime.fromtimestamp((since or time.time()) + seconds, timezone.utc)
    return moment.strftime("at(%Y-%m-%dT%H:%M:%S)")


def test_the_life_of_a_schedule(server):
    scheduler = server.scheduler
    start = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=1)
    arn = f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule/default/life"
    made = create(
        server,
        "life",
        Description="wakes",
        ScheduleExpressionTimezone="Asia/Seoul",
        StartDate=start,
        EndDate=start + timedelta(days=9),
        FlexibleTimeWindow={"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15},
        ActionAfterCompletion="DELETE",
        Target=target(RetryPolicy={"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 600}),
    )
    assert made["ScheduleArn"] == arn
    found = scheduler.get_schedule(Name="life")
    assert (found["Arn"], found["Name"], found["GroupName"], found["State"]) == (arn, "life", "default", "ENABLED")
    assert (found["ScheduleExpression"], found["ScheduleExpressionTimezone"], found["Description"]) == ("cron(0 8 * * ? *)", "Asia/Seoul", "wakes")
    assert (found["StartDate"], found["EndDate"], found["ActionAfterCompletion"]) == (start, start + timedelta(days=9), "DELETE")
    assert found["FlexibleTimeWindow"] == {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15}
    assert found["Target"] == target(RetryPolicy={"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 600})
    assert found["CreationDate"] == found["LastModificationDate"]

    # An update gives everything anew: what it leaves out goes back to its default.
    assert scheduler.update_schedule(Name="life", ScheduleExpression="rate(2 hours)", FlexibleTimeWindow=OFF, Target=target(low=5), State="DISABLED")["ScheduleArn"] == arn
    changed = scheduler.get_schedule(Name="life")
    assert (changed["ScheduleExpression"], changed["ScheduleExpressionTimezone"], changed["State"]) == ("rate(2 hours)", "UTC", "DISABLED")
    assert changed["Target"]["RetryPolicy"] == {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 86400}
    assert (changed["FlexibleTimeWindow"], changed["ActionAfterCompletion"]) == (OFF, "NONE")
    assert not {"Description", "StartDate", "EndDate"} & set(changed)
    assert changed["CreationDate"] == found["CreationDate"] < changed["LastModificationDate"]

    listed = next(s for s in scheduler.list_schedules(NamePrefix="lif")["Schedules"])
    assert (listed["Arn"], listed["State"], listed["GroupName"], listed["Target"]) == (arn, "DISABLED", "default", {"Arn": TARGET})
    assert scheduler.list_schedules(NamePrefix="life", State="ENABLED")["Schedules"] == []
    scheduler.delete_schedule(Name="life")
    gone = ("ResourceNotFoundException", "Schedule life does not exist.", 404)
    assert fault(scheduler.get_schedule, Name="life") == gone
    assert fault(scheduler.delete_schedule, Name="life") == gone
    assert fault(scheduler.update_schedule, Name="life", ScheduleExpression="rate(1 day)", FlexibleTimeWindow=OFF, Target=target()) == gone


def test_the_same_request_again_has_the_same_answer(server):
    made = create(server, "twice", ClientToken="token-1")
    assert create(server, "twice", ClientToken="token-1")["ScheduleArn"] == made["ScheduleArn"]
    exists = ("ConflictException", "Schedule twice already exists.", 409)
    assert fault(create, server, "twice", ClientToken="token-2") == exists
    assert fault(create, server, "twice", ClientToken="token-1", Description="another") == exists
    group = server.scheduler.create_schedule_group(Name="twice", ClientToken="token-1")["ScheduleGroupArn"]
    assert server.scheduler.create_schedule_group(Name="twice", ClientToken="token-1")["ScheduleGroupArn"] == group
    assert fault(server.scheduler.create_schedule_group, Name="twice", ClientToken="token-2")[::2] == ("ConflictException", 409)


def with_input(**change):
    asked = json.loads(target()["Input"])
    for name, value in change.items():
        asked.pop(name, None) if value is None else asked.__setitem__(name, value)
    return {"Target": target() | {"Input": json.dumps(asked)}}


LIMITS = lambda **limits: with_input(FunctionScalingConfig=limits)
FUNCTION_ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:f"
REFUSED = {
    # Targets.
    "another function": ({"Target": target() | {"Arn": FUNCTION_ARN}}, "isn't supported by this version of Ondol"),
    "another operation": ({"Target": target() | {"Arn": "arn:aws:scheduler:::aws-sdk:lambda:invoke"}}, "isn't supported by this version of Ondol"),
    "another service": ({"Target": target() | {"Arn": "arn:aws:scheduler:::aws-sdk:sqs:sendMessage"}}, "putFunctionScalingConfig"),
    "all upper case": ({"Target": target() | {"Arn": TARGET.upper()}}, "correct format"),
    "no arn": ({"Target": target() | {"Arn": "f"}}, "Provided Arn is not in correct format."),
    "dead letters": ({"Target": target(DeadLetterConfig={"Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"})}, "Target.DeadLetterConfig isn't supported"),
    "another's parameters": ({"Target": target(SqsParameters={"MessageGroupId": "g"})}, "Target.SqsParameters isn't supported"),
    "a key": ({"KmsKeyArn": f"arn:aws:kms:us-east-1:{ACCOUNT}:key/k"}, "KmsKeyArn isn't supported"),
    "a role that isn't there": ({"Target": target(role_arn=f"arn:aws:iam::{ACCOUNT}:role/nobody")}, "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."),
    "a role for lambda": ({"Target": target(role_arn=f"arn:aws:iam::{ACCOUNT}:role/r")}, "must allow AWS EventBridge Scheduler"),
    # The operation's own request.
    "no json": ({"Target": target() | {"Input": "{"}}, "isn't JSON"),
    "too long": ({"Target": target() | {"Input": target()["Input"] + " " * 4_096}}, "longer than 4096 bytes"),
    "no object": ({"Target": target() | {"Input": "[]"}}, "isn't a JSON object"),
    "no input": ({"Target": {"Arn": TARGET, "RoleArn": SCALER}}, "Target.Input isn't a request of lambda:PutFunctionScalingConfig"),
    "an unknown member": (with_input(Colour="red"), "no member Colour"),
    "an unknown limit": (LIMITS(MinExecutionEnvironments=1, Maximum=3), "no member FunctionScalingConfig.Maximum"),
    "a small letter": (with_input(functionName="f"), "no member functionName"),
    "no function": (with_input(FunctionName=None), "functionName"),
    "no qualifier": (with_input(Qualifier=None), "qualifier"),
    "no limits": (with_input(FunctionScalingConfig=None), "FunctionScalingConfig is missing"),
    "an alias": (with_input(Qualifier="live"), "qualifier"),
    "a version in the name": (with_input(FunctionName="f:1"), "functionName"),
    "another account's": (with_input(FunctionName="arn:aws:lambda:us-east-1:111122223333:function:f"), "Function not found"),
    "a text": (LIMITS(MinExecutionEnvironments="2"), "invalid type"),
    "too many": (LIMITS(MinExecutionEnvironments=15_001), "15000"),
    "min over max": (LIMITS(MinExecutionEnvironments=3, MaxExecutionEnvironments=2), "must be less than or equal"),
    "nothing with a maximum": (LIMITS(MinExecutionEnvironments=0, MaxExecutionEnvironments=2), "can be 0 only"),
    # Times.
    "no expression": ({"ScheduleExpression": "daily"}, "Invalid Schedule Expression daily."),
    "no such day": ({"ScheduleExpression": "cron(0 0 30 2 ? *)"}, "still to come"),
    "no year to come": ({"ScheduleExpression": "cron(0 0 1 1 ? 2001)"}, "still to come"),
    "both days": ({"ScheduleExpression": "cron(0 0 1 * MON *)"}, "must be ?"),
    "seconds": ({"ScheduleExpression": "rate(30 seconds)"}, "Invalid Schedule Expression rate(30 seconds)."),
    "no zone": ({"ScheduleExpressionTimezone": "Mars/Olympus"}, "Invalid ScheduleExpressionTimezone Mars/Olympus."),
    "an end before the start": ({"StartDate": 4e9, "EndDate": 3.9e9}, "before the EndDate"),
    "an old start": ({"StartDate": 1.5e9}, "The StartDate you specify cannot be earlier than 5 minutes ago."),
    "an old end": ({"EndDate": 1.5e9}, "EndDate must be in the future"),
    "a window without a size": ({"FlexibleTimeWindow": {"Mode": "FLEXIBLE"}}, "MaximumWindowInMinutes is required"),
    "a size without a window": ({"FlexibleTimeWindow": {"Mode": "OFF", "MaximumWindowInMinutes": 5}}, "MaximumWindowInMinutes has no meaning"),
    # The model's own bounds.
    "a name": ({"Name": "a b"}, "Value 'a b' at 'name' failed to satisfy constraint"),
    "a window": ({"FlexibleTimeWindow": {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 1_441}}, "less than or equal to 1440"),
    "retries": ({"Target": target(RetryPolicy={"MaximumRetryAttempts": 186})}, "less than or equal to 185"),
    "an age": ({"Target": target(RetryPolicy={"MaximumEventAgeInSeconds": 59})}, "greater than or equal to 60"),
    "a state": ({"State": "ASLEEP"}, "ENABLED, DISABLED"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_nothing_would_act_on_is_refused_and_not_kept(server, why):
    settings, text = REFUSED[why]
    scheduler = server.make_client("scheduler", parameter_validation=False)
    asked = {"Name": "refused", "ScheduleExpression": "rate(1 day)", "FlexibleTimeWindow": OFF, "Target": target()} | settings
    code, message, status = fault(scheduler.create_schedule, **asked)
    assert (code, status) == (INVALID, 400) and text in message, message
    assert server.scheduler.list_schedules(NamePrefix="refused")["Schedules"] == []
    if "Name" not in settings:
        if not server.scheduler.list_schedules(NamePrefix="stays")["Schedules"]:
            create(server, "stays")
        before = server.scheduler.get_schedule(Name="stays")
        code, message, _ = fault(scheduler.update_schedule, **asked | {"Name": "stays"})
        assert code == INVALID and text in message, message
        assert server.scheduler.get_schedule(Name="stays") | {"ResponseMetadata": None} == before | {"ResponseMetadata": None}


def test_either_case_of_the_operation_is_read(server):
    arn = TARGET.replace("putF", "PutF")
    create(server, "either", Target=target() | {"Arn": arn})
    assert server.scheduler.get_schedule(Name="either")["Target"]["Arn"] == arn


def test_groups(server):
    scheduler = server.scheduler
    assert scheduler.get_schedule_group(Name="default")["State"] == "ACTIVE"
    arn = scheduler.create_schedule_group(Name="shop")["ScheduleGroupArn"]
    assert arn == GROUP_ARN + "shop"
    found = scheduler.get_schedule_group(Name="shop")
    assert (found["Arn"], found["Name"], found["State"], found["CreationDate"]) == (arn, "shop", "ACTIVE", found["LastModificationDate"])
    assert fault(scheduler.create_schedule_group, Name="default")[0] == "ConflictException"
    assert {g["Name"] for g in scheduler.list_schedule_groups()["ScheduleGroups"]} >= {"default", "shop"}
    assert [g["Name"] for g in scheduler.list_schedule_groups(NamePrefix="sh")["ScheduleGroups"]] == ["shop"]

    # A name in a group is its own.
    for group in ("shop", "default"):
        create(server, "same", GroupName=group, Description=group)
    assert scheduler.get_schedule(Name="same", GroupName="shop")["Description"] == "shop"
    assert scheduler.get_schedule(Name="same")["Description"] == "default"
    assert [s["GroupName"] for s in scheduler.list_schedules(GroupName="shop")["Schedules"]] == ["shop"]
    scheduler.delete_schedule(Name="same", GroupName="shop")
    assert scheduler.get_schedule(Name="same")["Description"] == "default"

    create(server, "with-it", GroupName="shop")
    scheduler.delete_schedule_group(Name="shop")
    gone = ("ResourceNotFoundException", "Schedule group shop does not exist.", 404)
    assert fault(scheduler.get_schedule_group, Name="shop") == gone
    assert fault(scheduler.delete_schedule_group, Name="shop") == gone
    assert fault(scheduler.get_schedule, Name="with-it", GroupName="shop") == gone
    assert fault(scheduler.list_schedules, GroupName="shop") == gone
    assert fault(create, server, "late", GroupName="shop") == gone
    assert fault(scheduler.delete_schedule_group, Name="default")[0] == INVALID
    scheduler.create_schedule_group(Name="shop")
    assert scheduler.list_schedules(GroupName="shop")["Schedules"] == [], "its schedules went with it"


def test_pages(server):
    scheduler = server.scheduler
    scheduler.create_schedule_group(Name="paged")
    names = [f"page-{n}" for n in range(5)]
    for name in names:
        create(server, name, GroupName="paged")
        scheduler.create_schedule_group(Name=name)
    for listing, key, settings in (
        ("list_schedules", "Schedules", {"GroupName": "paged"}),
        ("list_schedule_groups", "ScheduleGroups", {"NamePrefix": "page-"}),
    ):
        seen, token, pages = [], {}, 0
        while True:
            page = getattr(scheduler, listing)(MaxResults=2, **settings, **token)
            assert len(page[key]) <= 2
            seen += [one["Name"] for one in page[key]]
            pages += 1
            if "NextToken" not in page:
                break
            token = {"NextToken": page["NextToken"]}
        assert (seen, pages) == (names, 3)
        whole = scheduler.get_paginator(listing).paginate(PaginationConfig={"PageSize": 2}, **settings)
        assert [one["Name"] for page in whole for one in page[key]] == names


def test_tags_of_groups(server):
    scheduler = server.scheduler
    tags = lambda arn: {t["Key"]: t["Value"] for t in scheduler.list_tags_for_resource(ResourceArn=arn)["Tags"]}
    arn = scheduler.create_schedule_group(Name="tagged", Tags=[{"Key": "team", "Value": "a"}])["ScheduleGroupArn"]
    assert tags(arn) == {"team": "a"}
    scheduler.tag_resource(ResourceArn=arn, Tags=[{"Key": "team", "Value": "b"}, {"Key": "floor", "Value": "2"}])
    assert tags(arn) == {"team": "b", "floor": "2"}
    scheduler.untag_resource(ResourceArn=arn, TagKeys=["team", "none"])
    assert tags(arn) == {"floor": "2"}
    many = [{"Key": f"k{n}", "Value": "v"} for n in range(50)]
    for bad in (many, [{"Key": "aws:x", "Value": "v"}], [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]):
        assert fault(scheduler.tag_resource, ResourceArn=arn, Tags=bad)[0] == INVALID
    assert tags(arn) == {"floor": "2"}
    assert fault(scheduler.tag_resource, ResourceArn=GROUP_ARN + "none", Tags=many[:1])[::2] == ("ResourceNotFoundException", 404)
    foreign = "arn:aws:scheduler:eu-west-1:111122223333:schedule-group/default"
    assert fault(scheduler.list_tags_for_resource, ResourceArn=foreign)[0] in ("ResourceNotFoundException", "AccessDeniedException")
    # The default group has tags too, and is still always there.
    scheduler.tag_resource(ResourceArn=GROUP_ARN + "default", Tags=many[:1])
    assert tags(GROUP_ARN + "default") == {"k0": "v"}
    assert [g["Name"] for g in scheduler.list_schedule_groups(NamePrefix="default")["ScheduleGroups"]] == ["default"]


def test_a_quota(server):
    small = prepared("--quota=schedules=1", "--quota=schedule-groups=1")
    try:
        create(small, "one")
        assert fault(create, small, "two")[::2] == ("ServiceQuotaExceededException", 402)
        small.scheduler.create_schedule_group(Name="one")
        assert fault(small.scheduler.create_schedule_group, Name="two")[::2] == ("ServiceQuotaExceededException", 402)
    finally:
        small.remove()


def session(server, policy):
    """A client of a role that may do what the policy says."""
    name = f"caller-{os.urandom(4).hex()}"
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}]}
    arn = role(server, name, trust, {"Version": "2012-10-17", "Statement": policy})
    given = server.make_client("sts").assume_role(RoleArn=arn, RoleSessionName="caller")["Credentials"]
    keys = {"aws_access_key_id": given["AccessKeyId"], "aws_secret_access_key": given["SecretAccessKey"], "aws_session_token": given["SessionToken"]}
    return boto3.client("scheduler", endpoint_url=server.url, region_name="us-east-1", **keys)


def test_callers_need_permission_for_the_schedule_and_for_the_role(server):
    denied = ("AccessDeniedException", 403)
    allow = lambda action, resource: {"Effect": "Allow", "Action": action, "Resource": resource}
    schedule = f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule/default/allowed"
    asked = {"ScheduleExpression": "rate(1 day)", "FlexibleTimeWindow": OFF, "Target": target(), "State": "DISABLED"}
    without_role = session(server, [allow("scheduler:*", "*")])
    code, text, status = fault(without_role.create_schedule, Name="allowed", **asked)
    assert (code, status) == denied and "iam:PassRole" in text and SCALER in text
    to_lambda = allow("iam:PassRole", SCALER) | {"Condition": {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}}
    assert fault(session(server, [allow("scheduler:*", "*"), to_lambda]).create_schedule, Name="allowed", **asked)[::2] == denied

    to_scheduler = allow("iam:PassRole", SCALER) | {"Condition": {"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}}}
    one = session(server, [allow(["scheduler:CreateSchedule", "scheduler:GetSchedule"], schedule), to_scheduler])
    one.create_schedule(Name="allowed", **asked)
    assert one.get_schedule(Name="allowed")["State"] == "DISABLED"
    for call, settings in (
        (one.create_schedule, {"Name": "other", **asked}),
        (one.get_schedule, {"Name": "other"}),
        (one.get_schedule, {"Name": "allowed", "GroupName": "other"}),
        (one.update_schedule, {"Name": "allowed", **asked}),
        (one.delete_schedule, {"Name": "allowed"}),
        (one.list_schedules, {}),
        (one.create_schedule_group, {"Name": "g"}),
        (one.get_schedule_group, {"Name": "default"}),
        (one.delete_schedule_group, {"Name": "g"}),
        (one.list_schedule_groups, {}),
        (one.tag_resource, {"ResourceArn": GROUP_ARN + "default", "Tags": []}),
        (one.untag_resource, {"ResourceArn": GROUP_ARN + "default", "TagKeys": ["k"]}),
        (one.list_tags_for_resource, {"ResourceArn": GROUP_ARN + "default"}),
    ):
        code, text, status = fault(call, **settings)
        assert (code, status) == denied and "scheduler:" in text, text
    # By tags, of the request and of what is there.
    mine = [allow("scheduler:*", GROUP_ARN + "*") | {"Condition": {"StringEquals": {f"aws:{kind}Tag/team": "a"}}} for kind in ("Request", "Resource")]
    team = session(server, mine)
    assert fault(team.create_schedule_group, Name="theirs", Tags=[{"Key": "team", "Value": "b"}])[::2] == denied
    team.create_schedule_group(Name="ours", Tags=[{"Key": "team", "Value": "a"}])
    assert team.get_schedule_group(Name="ours")["State"] == "ACTIVE"
    assert fault(team.get_schedule_group, Name="default")[::2] == denied


def test_one_time_and_what_became_of_it(server):
    function(server, "once")
    create(server, "once", at(), Target=target("once", 7, 9))
    becomes(server, "once", 7)
    assert scaling(server, "once") == {"MinExecutionEnvironments": 7, "MaxExecutionEnvironments": 9}
    outcome = wait_until(lambda: last(server, "once"), "an outcome")
    assert (outcome["succeeded"], outcome["attempts"], outcome["error"]) == (True, 1, None)
    assert shown(server, "once")["next"] is None
    # It stays, as on AWS, and does nothing any more: also not when it is changed, unless its time is.
    assert server.scheduler.get_schedule(Name="once")["State"] == "ENABLED"
    by_hand(server, "once", 3)
    update(server, "once", Description="new")
    create(server, "after", at(), Target=target("once", 4))
    becomes(server, "once", 4)
    update(server, "once", ScheduleExpression=at(1))
    becomes(server, "once", 7)


def test_one_time_that_is_too_old(server):
    function(server, "old")
    create(server, "old", PAST, Target=target("old", 7))
    outcome = wait_until(lambda: last(server, "old"), "an outcome")
    assert not outcome["succeeded"] and outcome["attempts"] == 0 and "MaximumEventAgeInSeconds" in outcome["error"]
    assert scaling(server, "old").get("MinExecutionEnvironments") != 7


def test_after_completion_it_is_removed(server):
    function(server, "removed")
    create(server, "removed", at(), Target=target("removed", 6), ActionAfterCompletion="DELETE")
    becomes(server, "removed", 6)
    wait_until(lambda: shown(server, "removed") is None, "the schedule to be removed")
    assert fault(server.scheduler.get_schedule, Name="removed")[0] == "ResourceNotFoundException"
    # Also one that is over already.
    create(server, "removed", at(), Target=target("removed", 5))
    wait_until(lambda: last(server, "removed"), "an outcome")
    update(server, "removed", ActionAfterCompletion="DELETE")
    wait_until(lambda: shown(server, "removed") is None, "the schedule to be removed")


def test_disabled_does_nothing(server):
    function(server, "asleep")
    create(server, "asleep", at(), Target=target("asleep", 6), State="DISABLED", ActionAfterCompletion="DELETE")
    create(server, "awake", at(), Target=target("asleep", 4))
    becomes(server, "asleep", 4)
    asleep = shown(server, "asleep")
    assert (asleep["state"], asleep["next"], asleep["last"]) == ("DISABLED", None, None)
    update(server, "asleep", State="ENABLED")
    becomes(server, "asleep", 6)
    wait_until(lambda: shown(server, "asleep") is None, "the schedule to be removed")


def test_what_recurs_comes_again_and_again(fast):
    for name, expression in (("rate", "rate(10 minutes)"), ("cron", "cron(0/10 * * * ? *)")):
        function(fast, name)
        create(fast, name, expression, Target=target(name, 6))
        seen = set()
        for _ in range(3):
            becomes(fast, name, 6)
            seen.add(wait_until(lambda: last(fast, name), "an outcome")["scheduledTime"])
            by_hand(fast, name, 3)
        becomes(fast, name, 6)
        # A change counts from then on.
        update(fast, name, Target=target(name, 8))
        becomes(fast, name, 8)
        fast.scheduler.delete_schedule(Name=name)
        # One that begins later is over: the deleted one doesn't come again before it.
        by_hand(fast, name, 3)
        create(fast, f"{name}-later", "rate(1 day)", Target=target(name, 4), StartDate=calendar(fast) + 1_200)
        becomes(fast, name, 4)


def calendar(server):
    """The server's calendar now, by what it says itself of a rate that begins at once."""
    probe = f"probe-{os.urandom(4).hex()}"
    create(server, probe, "rate(365 days)", Target=target("none"))
    began = wait_until(lambda: last(server, probe), "an outcome")["scheduledTime"]
    server.scheduler.delete_schedule(Name=probe)
    return datetime.fromisoformat(began.replace("Z", "+00:00")).timestamp()


def test_start_and_end(fast):
    function(fast, "bounded")
    now = calendar(fast)
    # Ten of its minutes are a second here.
    create(fast, "bounded", "rate(10 minutes)", Target=target("bounded", 6), StartDate=now + 1_800, EndDate=now + 4_200)
    next_time = datetime.fromisoformat(shown(fast, "bounded")["next"].replace("Z", "+00:00")).timestamp()
    assert next_time >= int(now + 1_800)
    becomes(fast, "bounded", 6)
    over = wait_until(lambda: (found := shown(fast, "bounded"))["next"] is None and found, "the end")
    assert datetime.fromisoformat(over["last"]["scheduledTime"].replace("Z", "+00:00")).timestamp() <= now + 4_201
    update(fast, "bounded", ActionAfterCompletion="DELETE")
    wait_until(lambda: shown(fast, "bounded") is None, "the schedule to be removed")


def test_a_role_that_may_not(fast):
    function(fast, "forbidden")
    powerless = role(fast, "powerless", may=None)
    create(fast, "forbidden", at(), Target=target("forbidden", 6, role_arn=powerless))
    outcome = wait_until(lambda: last(fast, "forbidden"), "an outcome")
    assert not outcome["succeeded"]
    assert "AccessDeniedException" in outcome["error"] and "lambda:PutFunctionScalingConfig" in outcome["error"] and "powerless" in outcome["error"]
    # It is tried again, until it may.
    wait_until(lambda: last(fast, "forbidden")["attempts"] > 2, "more attempts")
    assert scaling(fast, "forbidden").get("MinExecutionEnvironments") != 6
    listed = ondol(fast, "schedule", "list").stdout
    assert "default/forbidden ENABLED" in listed and "being tried again" in listed and "failed at" in listed
    fast.make_client("iam").put_role_policy(RoleName="powerless", PolicyName="may", PolicyDocument=json.dumps(MAY))
    becomes(fast, "forbidden", 6)
    wait_until(lambda: last(fast, "forbidden")["succeeded"], "success")


def test_attempts_are_as_many_as_the_retry_policy_says(fast):
    retries = lambda **policy: target("nobody", RetryPolicy=policy)
    now = calendar(fast)
    create(fast, "none", at(), Target=retries(MaximumRetryAttempts=0))
    create(fast, "two", at(), Target=retries(MaximumRetryAttempts=2))
    create(fast, "short", at(600, now), Target=retries(MaximumEventAgeInSeconds=3_600))
    for name in ("none", "two", "short"):
        wait_until(lambda: shown(fast, name)["next"] is None and last(fast, name), "the last attempt")
        outcome = last(fast, name)
        assert not outcome["succeeded"] and "Function not found" in outcome["error"]
    assert (last(fast, "none")["attempts"], last(fast, "two")["attempts"]) == (1, 3)
    assert 3 < last(fast, "short")["attempts"] < 185


def test_a_role_that_is_gone_or_trusts_no_more():
    server = prepared(f"--time-scale={SCALE}")
    try:
        function(server, "f")
        for name in ("gone", "other"):
            create(server, name, "rate(10 minutes)", Target=target("f", 6, role_arn=role(server, name)))
            wait_until(lambda: (last(server, name) or {}).get("succeeded"), "success")
        iam = server.make_client("iam")
        iam.delete_role_policy(RoleName="gone", PolicyName="may")
        iam.delete_role(RoleName="gone")
        iam.update_assume_role_policy(RoleName="other", PolicyDocument=json.dumps(TRUST).replace("scheduler.", "lambda."))
        for name in ("gone", "other"):
            assert fault(update, server, name, Description="new")[0] == INVALID
            outcome = wait_until(lambda: (found := last(server, name)) and not found["succeeded"] and found, "a failure")
            assert "doesn't let scheduler.amazonaws.com assume it" in outcome["error"]
            wait_until(lambda: last(server, name)["scheduledTime"] > outcome["scheduledTime"], "another")
        # The operator is told once of each, however often it is tried.
        server.process.terminate()
        said = server.process.stdout.read()
        server.process.wait(30)
        assert said.count("the schedule default/gone failed") == said.count("the schedule default/other failed") == 1, said
    finally:
        server.remove()


def test_what_was_due_while_the_server_was_down():
    server = prepared()
    try:
        for name in ("late", "done", "hourly"):
            function(server, name)
        create(server, "done", at(), Target=target("done", 6))
        becomes(server, "done", 6)
        wait_until(lambda: last(server, "done"), "the outcome to be kept")
        by_hand(server, "done", 3)
        create(server, "hourly", "rate(1 minute)", Target=target("hourly", 6))
        becomes(server, "hourly", 6)
        wait_until(lambda: last(server, "hourly"), "the outcome to be kept")
        by_hand(server, "hourly", 3)
        due = int(time.time()) + 2
        moment = datetime.fromtimestamp(due, timezone.utc).strftime("at(%Y-%m-%dT%H:%M:%S)")
        create(server, "late", moment, Target=target("late", 6))
        server.kill()
        wait_until(lambda: time.time() > due, "the time that is missed")
        server.start()
        server.scheduler = server.make_client("scheduler")
        becomes(server, "late", 6)
        # What was carried out isn't again, and what recurs waits for its next time.
        assert scaling(server, "done")["MinExecutionEnvironments"] == 3
        assert scaling(server, "hourly")["MinExecutionEnvironments"] == 3
        coming = shown(server, "hourly")
        assert coming["next"] > coming["last"]["scheduledTime"]
        assert shown(server, "done")["next"] is None
    finally:
        server.remove()


def test_time_zones_and_windows(server):
    create(server, "seoul", "at(2099-07-01T08:00:00)", ScheduleExpressionTimezone="Asia/Seoul")
    assert shown(server, "seoul")["next"] == "2099-06-30T23:00:00Z"
    # That day's clocks go from two to three: there is no such time.
    code, text, _ = fault(create, server, "york", "cron(30 2 8 3 ? 2099)", ScheduleExpressionTimezone="America/New_York")
    assert code == INVALID and "still to come" in text
    create(server, "window", "at(2099-07-01T08:00:00)", FlexibleTimeWindow={"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 60})
    place = shown(server, "window")["next"]
    assert "2099-07-01T08:00:00Z" <= place < "2099-07-01T09:00:00Z" and shown(server, "window")["next"] == place


def test_schedules_are_in_backups(server, tmp_path):
    create(server, "kept", "rate(3 days)", Description="kept")
    server.scheduler.create_schedule_group(Name="kept", Tags=[{"Key": "a", "Value": "b"}])
    before = server.scheduler.get_schedule(Name="kept")
    file = tmp_path / "backup.zip"
    subprocess.run([BIN, "backup", str(file), "--data-dir", server.folder], check=True, capture_output=True)
    server.scheduler.delete_schedule(Name="kept")
    server.scheduler.delete_schedule_group(Name="kept")
    other = tmp_path / "other"
    subprocess.run([BIN, "restore", str(file), "--data-dir", str(other)], check=True, capture_output=True)
    restored = Server(str(other))
    try:
        scheduler = restored.make_client("scheduler")
        found = scheduler.get_schedule(Name="kept")
        assert found | {"ResponseMetadata": None} == before | {"ResponseMetadata": None}
        assert scheduler.list_tags_for_resource(ResourceArn=GROUP_ARN + "kept")["Tags"] == [{"Key": "a", "Value": "b"}]
    finally:
        restored.remove()


def test_the_command(server):
    function(server, "ordered")
    run = lambda *arguments: ondol(server, "schedule", *arguments)
    made = run("create", "morning", "--function", "ordered", "--min", "6", "--max", "20", "--cron", "0 8 ? * MON-FRI *", "--timezone", "Asia/Seoul")
    assert made.returncode == 0, made.stderr
    assert f"made for it: arn:aws:iam::{ACCOUNT}:role/ondol-scheduled-scaling" in made.stdout
    assert f"sets ordered:{LATEST_PUBLISHED} to min 6 max 20, next at " in made.stdout
    found = server.scheduler.get_schedule(Name="morning")
    assert (found["ScheduleExpression"], found["ScheduleExpressionTimezone"]) == ("cron(0 8 ? * MON-FRI *)", "Asia/Seoul")
    assert json.loads(found["Target"]["Input"])["FunctionScalingConfig"] == {"MinExecutionEnvironments": 6, "MaxExecutionEnvironments": 20}
    # The role is there now, and does what it is for. Nothing at all is a maximum of nothing.
    now = at()
    night = run("create", "night", "--function", f"ordered:{LATEST_PUBLISHED}", "--min", "0", "--at", now[3:-1], "--json")
    assert night.returncode == 0, night.stderr
    page = json.loads(night.stdout)
    assert (page["roleCreated"], page["minExecutionEnvironments"], page["maxExecutionEnvironments"], page["expression"]) == (False, 0, 0, now)
    becomes(server, "ordered", 0)
    own = run("create", "own", "--function", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:ordered", "--min", "4", "--rate", "1 day", "--role", SCALER, "--json")
    assert json.loads(own.stdout)["roleArn"] == SCALER and json.loads(own.stdout)["roleCreated"] is None
    becomes(server, "ordered", 4)

    listed = json.loads(run("list", "--json").stdout)["schedules"]
    assert {"morning", "night", "own"} <= {one["name"] for one in listed}
    wait_until(lambda: last(server, "night"), "an outcome")
    text = run("show", "night").stdout
    assert "default/night ENABLED: at(" in text and "never again" in text and "done at" in text
    assert run("delete", "night").returncode == 0
    assert json.loads(run("delete", "default/own", "--json").stdout) == {"deleted": "default/own"}
    gone = run("show", "night")
    assert gone.returncode == 1 and "there is no schedule default/night" in gone.stderr

    for arguments, text in (
        (("delete", "night"), "Schedule night does not exist."),
        (("create", "x", "--function", "ordered", "--min", "1"), "--at"),
        (("create", "x", "--function", "ordered", "--min", "1", "--rate", "1 day", "--cron", "0 8 * * ? *"), "cannot be used with"),
        (("create", "x", "--function", "nobody", "--min", "1", "--rate", "1 day"), "Function not found"),
        (("create", "x", "--function", "ordered:7", "--min", "1", "--rate", "1 day"), "Function not found"),
        (("create", "x", "--function", "ordered", "--min", "3", "--max", "2", "--rate", "1 day"), "must be less than or equal"),
        (("create", "x", "--function", "ordered", "--min", "1", "--rate", "1 year"), "Invalid Schedule Expression rate(1 year)."),
        (("create", "x", "--function", "ordered", "--min", "1", "--rate", "1 day", "--role", f"arn:aws:iam::{ACCOUNT}:role/r"), "must allow AWS EventBridge Scheduler"),
        (("create", "none/x", "--function", "ordered", "--min", "1", "--rate", "1 day"), "Schedule group none does not exist."),
        (("create", "morning", "--function", "ordered", "--min", "1", "--rate", "1 day"), "Schedule morning already exists."),
    ):
        refused = run(*arguments)
        assert refused.returncode in (1, 2) and text in refused.stderr, (arguments, refused.stderr)


def test_without_authorization_no_role_is_needed():
    server = prepared("--auth", "off")
    try:
        function(server, "open")
        create(server, "open", at(), Target=target("open", 6, role_arn=f"arn:aws:iam::{ACCOUNT}:role/nobody"))
        becomes(server, "open", 6)
    finally:
        server.remove()
