"""Makes `tests/data-folders/schema-N`: what a server of this version leaves behind after a clean stop."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import BIN, ROLE, ROOT, TRUST, Server, zip_of

out = ROOT / "tests/data-folders" / f"schema-{sys.argv[1]}"
server = Server()
server.provider("cp")
layer = server.client.publish_layer_version(LayerName="kept", Content={"ZipFile": zip_of({"kept": "kept"})})["LayerVersionArn"]
code = {"app.py": f"def handler(event, context):\n    return {{'schema': {sys.argv[1]}, 'event': event}}\n"}
server.create("kept", code, concurrency=4, Description="kept", Tags={"team": "floor"}, Environment={"Variables": {"COLOUR": "green"}}, Layers=[layer])
server.client.publish_version(FunctionName="kept")
server.settled("kept", "1")
server.client.put_function_scaling_config(FunctionName="kept", Qualifier="1", FunctionScalingConfig={"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 2})
server.publish("kept")
server.settled("kept")
# What came with schema 3: a Lambda (default) function with an alias, a policy and a role of its own.
server.make_client("iam").create_role(RoleName="kept", AssumeRolePolicyDocument=TRUST)
server.client.create_function(FunctionName="kept-on-demand", Runtime="python3.13", Handler="app.handler", Role=ROLE.replace("role/r", "role/kept"), Code={"ZipFile": zip_of(code)})
server.client.publish_version(FunctionName="kept-on-demand")
server.client.create_alias(FunctionName="kept-on-demand", Name="live", FunctionVersion="1")
server.client.add_permission(FunctionName="kept-on-demand", Qualifier="live", StatementId="s", Action="lambda:InvokeFunction", Principal="111122223333")
subprocess.run([BIN, "keys", "create", "--data-dir", server.folder], check=True, capture_output=True)
server.stop()
out.mkdir(parents=True)
for name in ("ondol.db", "artifacts"):
    source = Path(server.folder, name)
    (shutil.copytree if source.is_dir() else shutil.copy)(source, out / name)
# No real key belongs into a repository.
(out / "access-keys.json").write_text(f'{{"AKIAFIXTUREOFSCHEMA{sys.argv[1]}": "not-a-secret-but-a-fixture"}}\n')
os.chmod(out / "access-keys.json", 0o600)
server.remove()
