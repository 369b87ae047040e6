# The OS-only runtime: the function brings /var/task/bootstrap.
# in: BASE ROOT
set -eu
cp -a --reflink=auto "$BASE" "$ROOT"
