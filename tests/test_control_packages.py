"""Packages: links to them, packages from S3, code signing, and the storage they share."""

import hashlib
import time
import urllib.error
import urllib.request
from urllib.parse import parse_qs, urlsplit

import pytest

from conftest import ACCOUNT, ROLE, Server, zip_of
from on_demand import LATEST, create
from stubs import s3
from test_api import PYTHON, fault
from test_layers import publish_layer

INVALID = "InvalidParameterValueException"


def download(link):
    """(status, bytes)"""
    try:
        with urllib.request.urlopen(link) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def location(server, name, **settings):
    code = server.client.get_function(FunctionName=name, **settings)["Code"]
    assert code["RepositoryType"] == "S3"
    return code["Location"]


def test_links_lead_to_the_package_of_each_version(server):
    first, second = (zip_of({"app.py": f"def handler(event, context):\n    return {n}\n"}) for n in (1, 2))
    create(server, "linked", Code={"ZipFile": first}, Publish=True)
    server.client.update_function_code(FunctionName="linked", ZipFile=second)
    server.settled("linked", LATEST)
    server.client.create_alias(FunctionName="linked", Name="live", FunctionVersion="1")
    assert download(location(server, "linked")) == (200, second)
    for qualifier, package in (("1", first), ("live", first), (LATEST, second)):
        assert download(location(server, "linked", Qualifier=qualifier)) == (200, package)


def test_links_to_layers(server):
    package = zip_of({"in-the-layer": "x"})
    published = server.client.publish_layer_version(LayerName="linked", Content={"ZipFile": package})
    arn = published["LayerVersionArn"]
    read = server.client.get_layer_version(LayerName="linked", VersionNumber=published["Version"])
    by_arn = server.client.get_layer_version_by_arn(Arn=arn)
    for content in (published["Content"], read["Content"], by_arn["Content"]):
        assert download(content["Location"]) == (200, package)
        assert content["CodeSize"] == len(package)


def test_links_that_were_not_made_here_lead_nowhere(server):
    create(server, "guarded")
    create(server, "other", {"app.py": "def handler(event, context):\n    return 'other'\n"})
    link, other = location(server, "guarded"), location(server, "other")
    parts = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
    left = int(parts["until"]) - time.time()
    assert 0 < left <= 600, "a link holds for ten minutes, as on AWS"
    hash_of = lambda link: urlsplit(link).path.rsplit("/", 1)[1]
    flipped = ("0" if parts["signature"][0] != "0" else "1") + parts["signature"][1:]
    forged = [
        link.replace(parts["until"], str(int(parts["until"]) + 3600)),
        link.replace(parts["until"], "1"),
        link.replace(parts["signature"], flipped),
        link.replace(parts["signature"], ""),
        link.replace(hash_of(link), hash_of(other)),
        link.replace(hash_of(link), "../" * 3 + hash_of(link)),
        link.split("?")[0],
    ]
    for one in forged:
        status, body = download(one)
        assert status in (400, 403, 404) and body[:2] != b"PK", one
    assert download(link)[0] == 200


def test_another_server_s_links_are_refused(server):
    another = Server()
    try:
        for one in (server, another):
            create(one, "linked-here")
        link = urlsplit(location(another, "linked-here"))
        assert download(link._replace(netloc=f"127.0.0.1:{server.port}").geturl())[0] == 403
    finally:
        another.remove()


@pytest.fixture(scope="module")
def with_s3():
    """A server that knows where S3 is, and what is there."""
    old, new = (zip_of({"app.py": f"def handler(event, context):\n    return {word!r}\n"}) for word in ("old", "new"))
    layer = zip_of({"python/shared.py": "NAME = 'from a bucket'\n"})
    objects = {
        "code": {"dir/my package+1.zip": {"v1": old, "v2": new}, "broken.zip": {"v1": b"this is no archive"}},
        "layers": {"layer.zip": {"v1": layer}},
    }
    with s3(objects) as place:
        server = Server(None, "--service-endpoint", f"s3={place.url}")
        server.s3, server.objects = place, objects
        yield server
        server.remove()


KEY = "dir/my package+1.zip"


def test_code_from_s3(with_s3):
    server = with_s3
    create(server, "bucket", Code={"S3Bucket": "code", "S3Key": KEY})
    assert server.invoke("bucket") == (None, "new")
    package = server.objects["code"][KEY]["v2"]
    assert server.client.get_function_configuration(FunctionName="bucket")["CodeSize"] == len(package)
    assert download(location(server, "bucket")) == (200, package)
    server.client.update_function_code(FunctionName="bucket", S3Bucket="code", S3Key=KEY, S3ObjectVersion="v1")
    server.settled("bucket", LATEST)
    assert server.invoke("bucket") == (None, "old")
    asked = server.s3.requests[-1]
    assert (asked["path"], asked["query"]) == (f"/code/{KEY}", {"versionId": ["v1"]})
    assert asked["headers"]["x-amz-content-sha256"] == hashlib.sha256(b"").hexdigest()
    assert "/us-east-1/s3/aws4_request" in asked["headers"]["authorization"]


def test_layers_from_s3(with_s3):
    arn = with_s3.client.publish_layer_version(LayerName="bucket", Content={"S3Bucket": "layers", "S3Key": "layer.zip"})["LayerVersionArn"]
    create(with_s3, "layered", {"app.py": "from shared import NAME\ndef handler(event, context):\n    return NAME\n"}, Layers=[arn])
    assert with_s3.invoke("layered") == (None, "from a bucket")


@pytest.mark.parametrize(
    "bucket, key, settings, code, message",
    [
        ("code", "none.zip", {}, "NoSuchKey", "The specified key does not exist."),
        ("none", KEY, {}, "NoSuchBucket", "The specified bucket does not exist"),
        ("code", KEY, {"S3ObjectVersion": "v9"}, "NoSuchVersion", "The specified version does not exist."),
    ],
)
def test_what_s3_says_is_told(with_s3, bucket, key, settings, code, message):
    source = {"S3Bucket": bucket, "S3Key": key} | settings
    text = f"Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {message}"
    assert fault(create, with_s3, "refused", Code=source) == (INVALID, text, 400)
    assert fault(with_s3.client.publish_layer_version, LayerName="refused", Content=source) == (INVALID, text, 400)
    assert fault(with_s3.client.get_function, FunctionName="refused")[0] == "ResourceNotFoundException"
    create(with_s3, "kept-" + code)
    before = with_s3.client.get_function_configuration(FunctionName="kept-" + code)
    assert fault(with_s3.client.update_function_code, FunctionName="kept-" + code, **source) == (INVALID, text, 400)
    assert with_s3.client.get_function_configuration(FunctionName="kept-" + code)["CodeSha256"] == before["CodeSha256"]


def test_what_comes_from_s3_is_checked_as_all_packages_are(with_s3):
    code, text, status = fault(create, with_s3, "broken", Code={"S3Bucket": "code", "S3Key": "broken.zip"})
    assert (code, status) == (INVALID, 400) and "unzip" in text.lower(), text
    both = {"S3Bucket": "code", "S3Key": KEY, "ZipFile": zip_of(PYTHON)}
    assert fault(create, with_s3, "both", Code=both)[0] == INVALID


def test_without_an_endpoint_it_is_said_how_to_give_one(server):
    code, text, status = fault(create, server, "no-s3", Code={"S3Bucket": "code", "S3Key": KEY})
    assert (code, status) == (INVALID, 400) and "--service-endpoint s3=" in text


def test_an_endpoint_that_does_not_answer_is_named():
    server = Server(None, "--service-endpoint", "s3=http://127.0.0.1:1")
    try:
        code, text, _ = fault(create, server, "deaf", Code={"S3Bucket": "code", "S3Key": KEY})
        assert code == INVALID and "127.0.0.1:1" in text
    finally:
        server.remove()


PROFILE = f"arn:aws:signer:us-east-1:{ACCOUNT}:/signing-profiles/p/0123456789"


def signing(server, policy):
    made = server.client.create_code_signing_config(
        AllowedPublishers={"SigningProfileVersionArns": [PROFILE]}, CodeSigningPolicies={"UntrustedArtifactOnDeployment": policy}
    )
    return made["CodeSigningConfig"]["CodeSigningConfigArn"]


def test_enforced_signatures_refuse_what_cannot_be_checked(server):
    client = server.client
    enforce, warn = signing(server, "Enforce"), signing(server, "Warn")
    assert fault(create, server, "unsigned", CodeSigningConfigArn=enforce)[0] == "CodeVerificationFailedException"
    assert fault(client.get_function, FunctionName="unsigned")[0] == "ResourceNotFoundException"
    create(server, "warned", CodeSigningConfigArn=warn)
    update = lambda word: client.update_function_code(FunctionName="warned", ZipFile=zip_of({"app.py": f"x = {word!r}\n"}))
    update("under Warn")
    server.settled("warned", LATEST)
    client.put_function_code_signing_config(FunctionName="warned", CodeSigningConfigArn=enforce)
    assert fault(update, "under Enforce")[0] == "CodeVerificationFailedException"
    client.update_function_configuration(FunctionName="warned", Description="no package, nothing to check")
    server.settled("warned", LATEST)
    assert fault(client.delete_code_signing_config, CodeSigningConfigArn=enforce)[0] == "ResourceConflictException"
    client.update_code_signing_config(CodeSigningConfigArn=enforce, CodeSigningPolicies={"UntrustedArtifactOnDeployment": "Warn"})
    update("the config relents")
    server.settled("warned", LATEST)
    client.delete_function_code_signing_config(FunctionName="warned")
    client.delete_code_signing_config(CodeSigningConfigArn=enforce)
    assert fault(client.put_function_code_signing_config, FunctionName="warned", CodeSigningConfigArn=enforce)[0] == "CodeSigningConfigNotFoundException"


def test_storage_is_bounded_for_functions_and_layers_alike():
    noise = [hashlib.shake_256(bytes([n])).digest(40_000) for n in range(4)]
    server = Server(None, "--quota", "code-storage-bytes=100000")
    try:
        for n in range(2):
            create(server, f"f{n}", {"noise": noise[n]})
        assert fault(create, server, "f2", {"noise": noise[2]})[0] == "CodeStorageExceededException"
        assert fault(publish_layer, server, "l", {"noise": noise[3]})[0] == "CodeStorageExceededException"
        assert fault(server.client.update_function_code, FunctionName="f0", ZipFile=zip_of({"a": noise[2], "b": noise[3]}))[0] == "CodeStorageExceededException"
        server.client.delete_function(FunctionName="f1")
        create(server, "f2", {"noise": noise[2]})
    finally:
        server.remove()
