# An almost empty root; the host's own /usr is mounted into it, read-only.
# in: ROOT
set -eu
mkdir -p "$ROOT/etc/ssl" "$ROOT/etc/alternatives" "$ROOT/usr"
for name in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$name" ]; then ln -sfn "$(readlink "/$name")" "$ROOT/$name"; elif [ -d "/$name" ]; then mkdir -p "$ROOT/$name"; fi
done
printf 'root:x:0:0:root:/:/bin/sh\n' > "$ROOT/etc/passwd"
printf 'root:x:0:\n' > "$ROOT/etc/group"
printf 'hosts: files dns\n' > "$ROOT/etc/nsswitch.conf"
for file in ld.so.cache ld.so.conf; do [ ! -f "/etc/$file" ] || cp "/etc/$file" "$ROOT/etc/"; done
