#!/bin/sh
# PID 1 of the emulated host: runs the command that the kernel's command line has the number of, with its output on the first
# virtio port, writes the exit status to the second, and ends the machine.
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
    sh "/metal/command-$metal_command"
    result=$?
    # What tests write there.
    [ ! -e skips ] || sed 's/^/SKIP: /' skips
    # A process that the kernel killed, for want of memory or for a fault, does not say so itself.
    [ "$result" = 0 ] || dmesg | grep -i 'out of memory\|oom-kill\|segfault\|traps:\|BUG:'
} </dev/null >"$output" 2>&1
echo $result >"$status"
sync
echo b >/proc/sysrq-trigger
sleep 60
