# The brick whose portal the disk is attached at dies and is started again while a file system is
# in use: the session comes back by itself at the same address, and nobody sees an error.
iqn=${targets}disk1

step "log in at portal 2 for a brick's death" login 2
step "brick death: mkfs" make_fs ext4
step "brick death: mount" mount -t ext4 "$device" /mnt
step "brick death: write files" fill 16
step "brick death: 10,000 verified operations while brick 2 dies" exercise 10000 2 "kill 2"
step "brick death: the connection broke meanwhile" connection_broke
step "brick death: the session came back" until_true 60 session_is_up
step "brick death: earlier files are as written" verify /tmp/sums
step "brick death: sum all files" sum_files
step "brick death: remount" remount ext4
step "brick death: all files are as written" verify /tmp/sums
step "brick death: umount" umount /mnt
step "brick death: fsck" check_fs ext4
step "brick death: log out" logout 2
step "brick death: no I/O error in the kernel log" no_io_error_in_the_kernel_log
