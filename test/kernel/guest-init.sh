#!/bin/busybox sh
# The guest's first process. Kernel arguments: end.host, end.ports (comma-separated), end.iqn,
# end.mib (file data for each file system). Prints "GUEST ok STEP" for each step and "GUEST done"
# at the end; or "GUEST failed STEP" with what is known, and stops.
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for word in $(cat /proc/cmdline); do
  case $word in
    end.host=*) host=${word#*=} ;;
    end.ports=*) ports=$(echo "${word#*=}" | tr , ' ') ;;
    end.iqn=*) iqn=${word#*=} ;;
    end.mib=*) mib=${word#*=} ;;
  esac
done

fail() {
  echo "GUEST failed $*"
  dmesg | grep -iE 'scsi|sd[a-z]|iscsi|ext4|xfs|i/o error' | tail -n 25
  [ ! -s /tmp/output ] || tail -n 25 /tmp/output
  poweroff -f
}

# step NAME COMMAND...
step() {
  name=$1
  shift
  "$@" >/tmp/output 2>&1 || fail "$name"
  echo "GUEST ok $name ($(cut -d' ' -f1 /proc/uptime) s)"
}

load_modules() {
  while read -r module; do insmod "/modules/$module" 2>/dev/null; done </modules/order
  [ -d /sys/module/iscsi_tcp ] && [ -d /sys/module/sd_mod ]
}

start_network() {
  ip link set lo up && ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 &&
    ip route add default via 10.0.2.2
}

start_iscsid() {
  iscsid || return 1
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    iscsiadm -m session 2>&1 | grep -q 'No active sessions' && return 0
    sleep 1
  done
  return 1
}

discover() {
  iscsiadm -m discovery -t sendtargets -p "$host:$1" >/tmp/targets || return 1
  cat /tmp/targets
  grep -q "$iqn" /tmp/targets || return 1
  # Discovery announces the portals as the host sees them; the guest has its own way to them.
  rm -rf /etc/iscsi/nodes /etc/iscsi/send_targets /var/lib/iscsi/nodes /var/lib/iscsi/send_targets
}

disks() {
  for disk in /sys/block/sd*; do [ ! -e "$disk" ] || basename "$disk"; done
}

# Logs in and sets `disk`. Digests are named in $2.
login() {
  iscsiadm -m node -o new -T "$iqn" -p "$host:$1" || return 1
  for digest in HeaderDigest DataDigest; do
    iscsiadm -m node -T "$iqn" -p "$host:$1" -o update -n "node.conn[0].iscsi.$digest" -v "$2" ||
      return 1
  done
  iscsiadm -m node -T "$iqn" -p "$host:$1" --login || return 1
  for _ in $(seq 100); do
    disk=$(disks | head -n 1)
    [ -n "$disk" ] && [ "$(cat "/sys/block/$disk/size")" != 0 ] && [ -e "/dev/$disk" ] && return 0
    usleep 100000
  done
  return 1
}

logout() {
  iscsiadm -m node -T "$iqn" -p "$host:$1" --logout || return 1
  for _ in $(seq 100); do
    [ -z "$(disks)" ] && return 0
    usleep 100000
  done
  return 1
}

is_thin() {
  grep . "/sys/block/$disk/queue/discard_max_bytes" "/sys/block/$disk/queue/write_cache" \
    "/sys/block/$disk"/device/scsi_disk/*/thin_provisioning
  [ "$(cat "/sys/block/$disk"/device/scsi_disk/*/thin_provisioning)" = 1 ] &&
    [ "$(cat "/sys/block/$disk/queue/discard_max_bytes")" -gt 0 ]
}

make_fs() {
  case $1 in
    ext4) mkfs.ext4 -q -F "/dev/$disk" ;;
    xfs) mkfs.xfs -q -f "/dev/$disk" ;;
  esac
}

check_fs() {
  case $1 in
    ext4) e2fsck -f -n "/dev/$disk" ;;
    xfs) xfs_repair -n "/dev/$disk" ;;
  esac
}

# Large files, many small ones, and the sums of all.
fill() {
  mkdir /mnt/large /mnt/small || return 1
  for n in $(seq "$mib"); do
    dd if=/dev/urandom of="/mnt/large/$n" bs=64k count=16 2>/dev/null || return 1
  done
  for n in $(seq 200); do
    echo "small file $n, written $(cat /proc/uptime)" >"/mnt/small/$n" || return 1
  done
  (cd /mnt && find . -type f -exec sha256sum {} +) >/tmp/sums && sync
}

remount() {
  umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount -t "$1" "/dev/$disk" /mnt
}

verify() {
  [ -s "$1" ] && (cd /mnt && sha256sum -c -s "$1")
}

remove_half() {
  for n in $(seq 1 2 "$mib"); do rm "/mnt/large/$n" || return 1; done
  sync
  (cd /mnt && for path in $(find . -type f); do grep " $path\$" /tmp/sums; done) >/tmp/sums-left
}

exercise() {
  step "$1: mkfs" make_fs "$1"
  step "$1: mount" mount -t "$1" "/dev/$disk" /mnt
  step "$1: write files" fill
  step "$1: remount" remount "$1"
  step "$1: files are as written" verify /tmp/sums
  step "$1: remove half of them" remove_half
  step "$1: fstrim" fstrim -v /mnt
  step "$1: remount after fstrim" remount "$1"
  step "$1: the other half is as written" verify /tmp/sums-left
  step "$1: umount" umount /mnt
  step "$1: fsck" check_fs "$1"
}

zeros_after_discard() {
  dd if=/dev/urandom of="/dev/$disk" bs=1M count=8 oflag=direct || return 1
  blkdiscard -o 2097152 -l 4194304 "/dev/$disk" || return 1
  echo 3 >/proc/sys/vm/drop_caches
  left=$(dd if="/dev/$disk" bs=1M skip=2 count=4 2>/dev/null | tr -d '\0' | wc -c)
  kept=$(dd if="/dev/$disk" bs=1M count=2 2>/dev/null | tr -d '\0' | wc -c)
  echo "$left bytes left, $kept kept"
  [ "$left" = 0 ] && [ "$kept" -gt 2000000 ]
}

step "load modules" load_modules
step "network" start_network
step "iscsid" start_iscsid
set -- $ports
step "discovery at portal 1" discover "$1"
step "log in at portal 1" login "$1" None
step "the disk is thin" is_thin
exercise ext4
step "log out of portal 1" logout "$1"
step "log in at portal 2, with digests" login "$2" CRC32C
step "ext4, written through portal 1, is sound at portal 2" check_fs ext4
exercise xfs
step "log out of portal 2" logout "$2"
step "log in at portal 3" login "$3" None
step "xfs, written through portal 2, is sound at portal 3" check_fs xfs
step "discard reads as zeros" zeros_after_discard
step "log out of portal 3" logout "$3"
dmesg | grep -iE 'i/o error|conn error|aborting|timing out' >/tmp/output && fail "clean kernel log"
echo "GUEST done"
poweroff -f
