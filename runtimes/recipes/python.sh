# Python from Debian; the runtime interface client and the SDK of AWS from PyPI.
# in: BASE ROOT PYTHON (3.13) CLIENT and BOTO3 (their versions)
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
cp -a --reflink=auto "$BASE" "$ROOT"
chroot "$ROOT" apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "python$PYTHON"
for name in python python3; do ln -sfn "/usr/bin/python$PYTHON" "$ROOT/usr/local/bin/$name"; done
sh "$RECIPES/python-client.sh"
chroot "$ROOT" "python$PYTHON" -m compileall -q --invalidation-mode unchecked-hash /var/runtime
chroot "$ROOT" "python$PYTHON" -c "import sys; sys.path.insert(0, '/var/runtime'); import awslambdaric, runtime_client, boto3"
