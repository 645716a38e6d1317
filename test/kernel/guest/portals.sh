# ext4 and XFS through three portals of one disk, one after the other; no trouble is expected.
iqn=${targets}disk0

is_thin() {
  queue=/sys/block/$disk/queue
  thin=$(cat "/sys/block/$disk"/device/scsi_disk/*/thin_provisioning)
  grep . "$queue/discard_max_bytes" "$queue/write_cache"
  [ "$thin" = 1 ] && [ "$(cat "$queue/discard_max_bytes")" -gt 0 ]
}

negotiated_digests() {
  iscsiadm -m session -P 2 | grep Digest
  [ "$(iscsiadm -m session -P 2 | grep -c 'Digest: CRC32C')" = 2 ]
}

use() {
  step "$1: mkfs" make_fs "$1"
  step "$1: mount" mount -t "$1" "$device" /mnt
  step "$1: write files" fill 16
  step "$1: remount" remount "$1"
  step "$1: files are as written" verify /tmp/sums
  step "$1: remove half of them" remove_half 16
  step "$1: fstrim" fstrim -v /mnt
  step "$1: remount after fstrim" remount "$1"
  step "$1: the other half is as written" verify /tmp/sums-left
  step "$1: umount" umount /mnt
  step "$1: fsck" check_fs "$1"
}

zeros_after_discard() {
  dd if=/dev/urandom of="$device" bs=1M count=8 oflag=direct || return 1
  blkdiscard -o 2097152 -l 4194304 "$device" || return 1
  echo 3 >/proc/sys/vm/drop_caches
  left=$(dd if="$device" bs=1M skip=2 count=4 2>/dev/null | tr -d '\0' | wc -c)
  kept=$(dd if="$device" bs=1M count=2 2>/dev/null | tr -d '\0' | wc -c)
  echo "$left bytes left, $kept kept"
  [ "$left" = 0 ] && [ "$kept" -gt 2000000 ]
}

step "discovery at portal 1" discover 1
step "log in at portal 1" login 1
step "the disk is thin" is_thin
use ext4
step "log out of portal 1" logout 1
step "log in at portal 2, with digests" login 2 \
  "node.conn[0].iscsi.HeaderDigest=CRC32C" "node.conn[0].iscsi.DataDigest=CRC32C"
step "both digests were agreed on" negotiated_digests
step "ext4, written through portal 1, is sound at portal 2" check_fs ext4
use xfs
step "log out of portal 2" logout 2
step "log in at portal 3" login 3
step "xfs, written through portal 2, is sound at portal 3" check_fs xfs
step "discard reads as zeros" zeros_after_discard
step "log out of portal 3" logout 3
step "no trouble in the kernel log" no_trouble_in_the_kernel_log
