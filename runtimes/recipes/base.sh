# Makes the root filesystem the Debian runtimes start from: Debian trixie, minimal.
# in: BASE
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
for tool in debootstrap chroot apt-get; do
    command -v "$tool" >/dev/null || { echo "$tool is missing; on Debian or Ubuntu: apt-get install debootstrap" >&2; exit 1; }
done
# The host's own Debian mirror where it has one.
mirror=$(apt-get indextargets --format '$(REPO_URI)|$(COMPONENT)|$(LABEL)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
    awk -F'|' '$2 == "main" && $3 == "Debian" { sub(/\/$/, "", $1); print $1; exit }')
debootstrap --variant=minbase --include=ca-certificates trixie "$BASE" "${mirror:-http://deb.debian.org/debian}"
printf '#!/bin/sh\nexit 101\n' > "$BASE/usr/sbin/policy-rc.d"
chmod 755 "$BASE/usr/sbin/policy-rc.d"
