# Linux's initiator: discovery, log-in and log-out. `iqn` names the target, `iface` the settings of
# this side.
iface=default

# port_of PORTAL
port_of() {
  echo "$ports" | cut -d' ' -f"$1"
}

forget_nodes() {
  rm -rf /etc/iscsi/nodes /etc/iscsi/send_targets /var/lib/iscsi/nodes /var/lib/iscsi/send_targets
}

discover() {
  iscsiadm -m discovery -t sendtargets -p "$host:$(port_of "$1")" >/tmp/targets || return 1
  cat /tmp/targets
  grep -q "$iqn" /tmp/targets || return 1
  # Discovery announces the portals as the host sees them; the guest has its own way to them.
  forget_nodes
}

# node PORTAL OPTION...
node() {
  portal=$1
  shift
  iscsiadm -m node -T "$iqn" -p "$host:$(port_of "$portal")" "$@"
}

# add_node PORTAL [SETTING=VALUE...]
add_node() {
  portal=$1
  shift
  node "$portal" -o new -I "$iface" || return 1
  for setting in "$@"; do
    node "$portal" -o update -n "${setting%%=*}" -v "${setting#*=}" || return 1
  done
}

disks() {
  for disk in /sys/block/sd*; do [ ! -e "$disk" ] || basename "$disk"; done
}

disk_count_is() {
  [ "$(disks | wc -l)" = "$1" ]
}

disk_is_ready() {
  disk=$(disks | tail -n 1)
  [ -n "$disk" ] && [ "$(cat "/sys/block/$disk/size")" != 0 ] && [ -e "/dev/$disk" ]
}

# Logs in, with the settings of add_node, and sets `disk` and `device`.
login() {
  portal=$1
  before=$(disks | wc -l)
  add_node "$@" && node "$portal" --login || return 1
  until_true 10 disk_count_is $((before + 1)) && until_true 10 disk_is_ready || return 1
  device=/dev/$disk
}

logout() {
  before=$(disks | wc -l)
  node "$1" --logout && until_true 10 disk_count_is $((before - 1)) && node "$1" -o delete
}

session_is_up() {
  iscsiadm -m session -P 1 | grep -q 'iSCSI Session State: LOGGED_IN'
}

connection_broke() {
  dmesg | grep -q 'detected conn error'
}

no_trouble_in_the_kernel_log() {
  ! dmesg | grep -iE 'i/o error|conn error|aborting|timing out'
}

no_io_error_in_the_kernel_log() {
  ! dmesg | grep -iE 'i/o error|aborting journal|corrupt|shut down'
}
