# Makes /boot/initramfs of the emulated host: it loads what the first disk needs, makes that disk writable by an overlay in
# memory, and hands over to the program on the second. Runs inside the host's new root filesystem.
set -eu
release=$(ls /lib/modules)
cd "$(mktemp -d)"
mkdir bin dev proc sys modules lower writable newroot
cp /bin/busybox bin/
for module in virtio_mmio virtio_blk virtio_console squashfs overlay ext4 crc32c_generic; do
    modprobe --set-version "$release" --show-depends "$module"
done | while read -r kind path _; do
    name=$(basename "$path")
    # What is built in, or was there before, is not loaded.
    if [ "$kind" = insmod ] && [ ! -e "modules/$name" ]; then
        cp "$path" modules/
        echo "$name" >>modules/order
    fi
done
cat >init <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r name; do insmod "/modules/$name"; done </modules/order
mount -t squashfs -o ro /dev/vda /lower
mount -t tmpfs -o size=100% tmpfs /writable
mkdir /writable/upper /writable/work
mount -t overlay -o lowerdir=/lower,upperdir=/writable/upper,workdir=/writable/work overlay /newroot
mkdir -p /newroot/metal
mount -t ext4 /dev/vdb /newroot/metal
for directory in dev sys proc; do mount --move "/$directory" "/newroot/$directory"; done
exec switch_root /newroot /metal/init
INIT
chmod +x init
find . | cpio --quiet --create --format=newc >/boot/initramfs
