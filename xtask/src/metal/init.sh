#!/bin/sh
# PID 1 of the emulated host: runs /metal/command with its output on the first virtio port, writes the exit status to the
# second, and ends the machine.
export PATH=/metal/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
modprobe kvm-amd
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
hostname metal
output=$(echo /dev/vport*p1)
status=$(echo /dev/vport*p2)
cd /metal
{
    sh /metal/command
    result=$?
    # What tests write there.
    [ ! -e skips ] || sed 's/^/SKIP: /' skips
} </dev/null >"$output" 2>&1
echo $result >"$status"
sync
echo b >/proc/sysrq-trigger
sleep 60
