# in: ROOT PYTHON CLIENT BOTO3 INTERPRETER (seen from inside)
set -eu
digits=$(printf %s "$PYTHON" | tr -d .)
mkdir -p "$ROOT/var/runtime"
python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-compile --target "$ROOT/var/runtime" \
    --python-version "$PYTHON" --implementation cp --abi "cp$digits" --platform manylinux2014_x86_64 --only-binary=:all: \
    "awslambdaric==$CLIENT" "boto3==$BOTO3"
cat > "$ROOT/var/runtime/bootstrap" <<BOOTSTRAP
#!/bin/sh
cd "\$LAMBDA_TASK_ROOT" || exit 1
export PYTHONPATH="\$LAMBDA_TASK_ROOT:/opt/python/lib/python$PYTHON/site-packages:/opt/python:\$LAMBDA_RUNTIME_DIR\${PYTHONPATH:+:\$PYTHONPATH}"
exec $INTERPRETER -m awslambdaric "\$_HANDLER"
BOOTSTRAP
chmod 755 "$ROOT/var/runtime/bootstrap"
