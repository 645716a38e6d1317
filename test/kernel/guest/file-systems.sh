# File systems on `device`, mounted at /mnt, and what is kept to know their files again.

make_fs() {
  case $1 in
    ext4) mkfs.ext4 -q -F "$device" ;;
    xfs) mkfs.xfs -q -f "$device" ;;
  esac
}

check_fs() {
  case $1 in
    ext4) e2fsck -f -n "$device" ;;
    xfs) xfs_repair -n "$device" ;;
  esac
}

sum_files() {
  (cd /mnt && find . -type f -exec sha256sum {} +) >/tmp/sums && sync
}

# fill MIB: large files, many small ones, and the sums of all.
fill() {
  mkdir /mnt/large /mnt/small || return 1
  for n in $(seq "$1"); do
    dd if=/dev/urandom of="/mnt/large/$n" bs=64k count=16 2>/dev/null || return 1
  done
  for n in $(seq 200); do
    echo "small file $n, written $(cat /proc/uptime)" >"/mnt/small/$n" || return 1
  done
  sum_files
}

remount() {
  umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount -t "$1" "$device" /mnt
}

verify() {
  [ -s "$1" ] && (cd /mnt && sha256sum -c -s "$1")
}

remove_half() {
  for n in $(seq 1 2 "$1"); do rm "/mnt/large/$n" || return 1; done
  sync
  (cd /mnt && for path in $(find . -type f); do grep " $path\$" /tmp/sums; done) >/tmp/sums-left
}

# exercise OPERATIONS SEED ASKED: every byte read is checked; a third of the way in, the console is
# ASKED.
exercise() {
  mkdir /mnt/exercised || return 1
  exerciser /mnt/exercised "$1" "$2" $(($1 / 3)) "GUEST asks $3" >/dev/console
}
