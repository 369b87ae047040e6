# Makes a root ready to be mounted read-only: small, without set-user-id files, with the mount points.
# in: ROOT
set -eu
rm -rf "$ROOT"/var/cache/apt/* "$ROOT"/var/cache/debconf/* "$ROOT"/var/lib/apt/lists/* "$ROOT"/var/log/* "$ROOT"/tmp/* \
    "$ROOT"/var/tmp/* "$ROOT"/run/* "$ROOT"/dev/* "$ROOT"/usr/share/man/* "$ROOT"/usr/share/info/* "$ROOT"/usr/share/locale/* \
    "$ROOT"/usr/share/lintian "$ROOT"/usr/share/bash-completion "$ROOT"/usr/share/bug "$ROOT"/usr/sbin/policy-rc.d
[ ! -d "$ROOT/usr/share/doc" ] || find "$ROOT/usr/share/doc" ! -type d ! -name copyright -delete
find "$ROOT" -xdev -type f -perm /6000 -exec chmod ug-s {} +
rm -f "$ROOT"/etc/machine-id "$ROOT"/etc/passwd- "$ROOT"/etc/group- "$ROOT"/etc/shadow- "$ROOT"/etc/gshadow-
for folder in var/lang/bin var/lang/lib var/runtime/lib var/task opt/extensions sys proc dev run tmp; do mkdir -p "$ROOT/$folder"; done
: > "$ROOT/etc/resolv.conf"
: > "$ROOT/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' > "$ROOT/etc/hosts"
echo 'sbx_user1051:x:993:990::/tmp:/bin/sh' >> "$ROOT/etc/passwd"
echo 'sbx_user1051:x:990:' >> "$ROOT/etc/group"
# LANG is en_US.UTF-8 as on AWS; without a locale of that name programs warn or fail.
if [ -d "$ROOT/usr/lib/locale" ] && [ ! -e "$ROOT/usr/lib/locale/en_US.utf8" ]; then ln -sfn C.utf8 "$ROOT/usr/lib/locale/en_US.utf8"; fi
