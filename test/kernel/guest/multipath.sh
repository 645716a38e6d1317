# One disk through two portals under dm-multipath, with priorities from REPORT TARGET PORT GROUPS:
# the brick of the path in use dies and stays away; I/O goes on through the other path.
iqn=${targets}disk0

# No udevd runs here: multipathd finds in udev's records that the disks are ready for use.
record_disks() {
  mkdir -p /run/udev/data
  for disk in $(disks); do
    # "naa.600..." of page 83h; scsi_id writes its kind, 3, before it.
    wwid=$(cut -c5- "/sys/block/$disk/device/wwid")
    printf 'I:1\nE:ID_SERIAL=3%s\nE:ID_WWN=0x%s\n' "$wwid" "$wwid" \
      >"/run/udev/data/b$(cat "/sys/block/$disk/dev")"
  done
}

paths() {
  multipathd show paths format "%d %t %T %p" | tail -n +2
}

# paths_are COUNT STATE
paths_are() {
  paths
  [ "$(paths | grep -c " $2 ")" = "$1" ]
}

start_multipathd() {
  record_disks
  DM_DISABLE_UDEV=1 multipathd -d -v2 >/tmp/multipathd.log 2>&1 &
  until_true 30 paths_are 2 "active ready" || return 1
  device=/dev/mapper/mpatha
  [ -b "$device" ]
}

# The path of the highest priority, and the portal it goes through.
portal_in_use() {
  multipathd show topology
  best=$(paths | sort -k4 -n | tail -n 1 | cut -d' ' -f1)
  session=$(readlink -f "/sys/block/$best/device" | grep -o 'session[0-9]*')
  port=$(cat "/sys/class/iscsi_connection/connection${session#session}:0/persistent_port")
  in_use=1
  [ "$port" = "$(port_of 1)" ] || in_use=2
}

# ALUA: the portal beside the volume's gateway is active/optimized, the other one is not.
priorities_differ() {
  paths
  [ "$(paths | awk '{ print $4 }' | sort -u | wc -l)" = 2 ]
}

for number in 1 2; do
  step "multipath: log in at portal $number" login "$number" \
    node.session.timeo.replacement_timeout=3
done
step "multipath: multipathd joins both paths" start_multipathd
step "multipath: one path is better than the other" until_true 20 priorities_differ
step "multipath: which path is in use" portal_in_use
step "multipath: mkfs" make_fs xfs
step "multipath: mount" mount -t xfs "$device" /mnt
step "multipath: write files" fill 16
step "multipath: 4,000 verified operations while the path's brick dies" \
  exercise 4000 3 "kill $in_use"
step "multipath: one path is left" until_true 30 paths_are 1 "active ready"
step "multipath: earlier files are as written" verify /tmp/sums
step "multipath: sum all files" sum_files
echo "GUEST asks start $in_use"
step "multipath: both paths are up again" until_true 60 paths_are 2 "active ready"
step "multipath: remount" remount xfs
step "multipath: all files are as written" verify /tmp/sums
step "multipath: umount" umount /mnt
step "multipath: fsck" check_fs xfs
