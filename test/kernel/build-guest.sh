#!/bin/sh
# build-guest.sh DIR: makes DIR/vmlinuz and DIR/initrd.gz, a Linux guest without a disk that knows
# iSCSI: Debian's cloud kernel (downloaded and unpacked, not installed), busybox, open-iscsi,
# multipath-tools, and the programs of ext4 and XFS from this machine; the exerciser and the
# scenarios from here. DIR keeps the kernel for the next time.
set -eu
PATH=$PATH:/usr/sbin:/sbin
here=$(dirname "$(readlink -f "$0")")
mkdir -p "$1"
dir=$(readlink -f "$1")

if [ ! -s "$dir/vmlinuz" ]; then
  package=$(apt-cache depends --important linux-image-cloud-amd64 | sed -n 's/.*Depends: *//p' | head -n 1)
  [ -n "$package" ] || { echo "apt knows no linux-image-cloud-amd64" >&2; exit 1; }
  rm -rf "$dir/kernel" "$dir/download"
  mkdir -p "$dir/download"
  # apt drops its rights for downloads; the folder must be open to that user.
  chmod 777 "$dir/download"
  (cd "$dir/download" && apt-get download -q "$package" >/dev/null)
  dpkg-deb -x "$dir"/download/*.deb "$dir/kernel"
  rm -rf "$dir/download"
  cp "$dir"/kernel/boot/vmlinuz-* "$dir/vmlinuz"
fi
version=$(ls "$dir/kernel/lib/modules")
[ -s "$dir/kernel/lib/modules/$version/modules.dep" ] || depmod -b "$dir/kernel" "$version"

root=$dir/root
rm -rf "$root"
mkdir -p "$root/bin" "$root/sbin" "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/mnt" \
  "$root/run/lock/iscsi" "$root/etc/iscsi" "$root/etc/multipath" "$root/var/lib/iscsi" \
  "$root/usr/sbin" "$root/usr/lib" "$root/modules" "$root/scenarios"
ln -s /run "$root/var/run"

# The modules, in the order in which they must be loaded.
for module in virtio_pci virtio_net crc32c_generic sd_mod iscsi_tcp ext4 xfs dm_multipath dm_round_robin dm_service_time; do
  modprobe -d "$dir/kernel" -S "$version" --show-depends "$module" | sed -n 's/^insmod *//p'
done | awk '!seen[$1]++ { print $1 }' >"$dir/module-paths"
grep -q 'iscsi_tcp' "$dir/module-paths" || {
  echo "no iscsi_tcp among the modules of $version" >&2
  exit 1
}
while read -r path; do
  cp "$path" "$root/modules/"
  basename "$path" >>"$root/modules/order"
done <"$dir/module-paths"

add_libraries() {
  # Lines of ldd: "name => /path (address)" or "/path (address)".
  ldd "$1" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' |
    while read -r library; do
      mkdir -p "$root$(dirname "$library")"
      cp -L "$library" "$root$library"
    done
}

add_program() {
  real=$(readlink -f "$1")
  cp "$real" "$root/usr/sbin/$(basename "$1")"
  add_libraries "$real"
}
for program in iscsid iscsiadm mkfs.ext4 e2fsck mkfs.xfs xfs_repair fstrim blkdiscard multipathd; do
  path=$(command -v "$program") || {
    echo "$program is missing" >&2
    exit 1
  }
  add_program "$path"
done
# Parts of multipathd that it loads by name; the C library itself loads libgcc_s to end threads.
mkdir -p "$root/lib/multipath"
cp -L "$(gcc -print-file-name=libgcc_s.so.1)" "$root/usr/lib/"
for part in libchecktur libcheckdirectio libprioalua libprioconst; do
  cp "/lib/multipath/$part.so" "$root/lib/multipath/"
  add_libraries "/lib/multipath/$part.so"
done
cp "$here/guest/multipath.conf" "$root/etc/"
gcc -static -O2 -Wall -Wextra -Werror -o "$root/usr/sbin/exerciser" "$here/exerciser.c"
cp "$(command -v busybox)" "$root/bin/busybox"
[ ! -e /etc/mke2fs.conf ] || cp /etc/mke2fs.conf "$root/etc/"

echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
echo 'InitiatorName=iqn.2026-11.endisk.test:guest' >"$root/etc/iscsi/initiatorname.iscsi"
cat >"$root/etc/iscsi/iscsid.conf" <<'CONF'
node.startup = manual
node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.login_timeout = 30
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 20
node.session.cmds_max = 128
node.session.queue_depth = 32
CONF
cp "$here/guest/init.sh" "$root/init"
chmod 755 "$root/init"
cp "$here"/guest/*.sh "$root/scenarios/"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$dir/initrd.gz"
