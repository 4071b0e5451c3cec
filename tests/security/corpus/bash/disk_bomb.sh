# tries: to fill the disk
# passes: the disk is full after less than 64 GiB
# fails: 64 GiB fit, or the machine does not answer any more
# ends: disk_full
# timeout: 120
for n in {1..1024}; do
  if ! fallocate -l 64M "bomb$n" 2>/dev/null && ! dd if=/dev/zero of="bomb$n" bs=1M count=64 2>/dev/null; then
    echo "ISOLATION pass: the disk was full after $((n * 64)) MiB"
    exit
  fi
done
echo "ISOLATION fail: 64 GiB were written"
