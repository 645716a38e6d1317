# A volume that one initiator may use, when it proves itself by CHAP; and mutual CHAP.
iqn=${targets}locked

# What iscsiadm ends with: the target refused the proof, or iscsid that of the target.
proof_refused=24
target_refused=19

# The initiator that is let in.
know_initiator() {
  iscsiadm -m iface -I known -o new &&
    iscsiadm -m iface -I known -o update -n iface.transport_name -v tcp &&
    iscsiadm -m iface -I known -o update -n iface.initiatorname -v iqn.2026-11.endisk.test:known
}

# chap SECRET COMMAND PORTAL [SETTING=VALUE...]
chap() {
  with=$1
  what=$2
  at=$3
  shift 3
  "$what" "$at" node.session.auth.authmethod=CHAP node.session.auth.username=guest \
    "node.session.auth.password=$with" "$@"
}

# mutual SECRET COMMAND PORTAL: the target must prove itself by SECRET.
mutual() {
  chap "$secret" "$2" "$3" node.session.auth.username_in=disks "node.session.auth.password_in=$1"
}

# refused PORTAL [SETTING=VALUE...]: ends with `refusal`.
refusal=$proof_refused
refused() {
  add_node "$@" || return 1
  node "$1" --login
  status=$?
  node "$1" -o delete
  [ "$status" = "$refusal" ] && no_session
}

# Some bytes on the disk and back, and out again.
use_and_leave() {
  dd if=/dev/urandom of=/tmp/written bs=64k count=4 2>/dev/null &&
    dd if=/tmp/written of="$device" bs=64k oflag=direct 2>/dev/null &&
    dd if="$device" of=/tmp/read bs=64k count=4 iflag=direct 2>/dev/null &&
    cmp /tmp/written /tmp/read && logout 1
}

step "CHAP: an initiator that nobody knows is refused" chap "$secret" refused 1
step "CHAP: be another initiator" know_initiator
iface=known
step "CHAP: no proof, no log-in" refused 1
step "CHAP: a wrong secret is refused" chap wrong-secret-of-16 refused 1
for algorithm in MD5 SHA1 SHA256 SHA3-256; do
  step "CHAP: log in by $algorithm" chap "$secret" login 1 \
    "node.session.auth.chap_algs=$algorithm"
  step "CHAP: use the disk" use_and_leave
done
step "CHAP: log in by the strongest of all" chap "$secret" login 1 \
  node.session.auth.chap_algs=SHA3-256,SHA256,SHA1,MD5
step "CHAP: use the disk" use_and_leave
step "mutual CHAP: the target proves itself" mutual "$target_secret" login 1
step "mutual CHAP: use the disk" use_and_leave
refusal=$target_refused
step "mutual CHAP: a target with another secret is refused by the initiator" \
  mutual another-secret-16 refused 1
iface=default
# Discovery asks in the name of every interface that there is.
step "CHAP: be the first initiator again" iscsiadm -m iface -I known -o delete
