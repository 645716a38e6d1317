#!/bin/busybox sh
# The guest's first process: comes up, plays the scenarios it is told to, and stops.
# Kernel arguments: end.scenarios (comma-separated names of files beside this one), end.host,
# end.ports (of portals 1, 2, ...), end.targets (prefix of the targets' names), and what a scenario
# asks for. Prints "GUEST ok STEP" for each step and "GUEST done" at the end, or "GUEST failed STEP"
# with what is known; "GUEST asks ..." tells whoever reads the console what to do now.
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for word in $(cat /proc/cmdline); do
  case $word in
    end.scenarios=*) scenarios=$(echo "${word#*=}" | tr , ' ') ;;
    end.host=*) host=${word#*=} ;;
    end.ports=*) ports=$(echo "${word#*=}" | tr , ' ') ;;
    end.targets=*) targets=${word#*=} ;;
    end.secret=*) secret=${word#*=} ;;
    end.target-secret=*) target_secret=${word#*=} ;;
  esac
done

fail() {
  echo "GUEST failed $*"
  dmesg | grep -iE 'sd[a-z]|iscsi|ext4|xfs|i/o error|connection|device-mapper' | tail -n 40
  for log in /tmp/output /tmp/*.log; do [ ! -s "$log" ] || tail -n 25 "$log"; done
  poweroff -f
}

# step NAME COMMAND...
step() {
  name=$1
  shift
  "$@" >/tmp/output 2>&1 || fail "$name"
  echo "GUEST ok $name ($(cut -d' ' -f1 /proc/uptime) s)"
}

# until_true SECONDS COMMAND...
until_true() {
  ends=$(($(cut -d. -f1 /proc/uptime) + $1))
  shift
  until "$@"; do
    [ "$(cut -d. -f1 /proc/uptime)" -lt "$ends" ] || return 1
    usleep 200000
  done
}

load_modules() {
  while read -r module; do insmod "/modules/$module" 2>/dev/null; done </modules/order
  [ -d /sys/module/iscsi_tcp ] && [ -d /sys/module/sd_mod ] && [ -d /sys/module/dm_multipath ]
}

start_network() {
  ip link set lo up && ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 &&
    ip route add default via 10.0.2.2
}

no_session() {
  iscsiadm -m session 2>&1 | grep -q 'No active sessions'
}

start_iscsid() {
  iscsid && until_true 20 no_session
}

. /scenarios/initiator.sh
. /scenarios/file-systems.sh

step "load modules" load_modules
step "network" start_network
step "iscsid" start_iscsid
for scenario in $scenarios; do . "/scenarios/$scenario.sh"; done
echo "GUEST done"
poweroff -f
