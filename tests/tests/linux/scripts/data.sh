# A file system with a tree in it, and much else that disks are used for.

step "a file system"
tool mkfs.ext4 -q -F "$main_disk"
mount_main
(cd /t && find usr/bin usr/sbin sbin -type f -size +3k | sort | head -n 150) > /run/names
mkdir /t/run/data/tree
(cd /t && cpio -o -H newc) < /run/names | (cd /t/run/data/tree && cpio -i -d)
(cd /t && xargs md5sum) < /run/names > /run/sums
cp /run/sums /t/run/data/sums
fact files $(wc -l < /run/sums)
step "its sums"
check_tree
umount /t/run/data
tool e2fsck -fn "$main_disk" > /run/fsck || fail "$(cat /run/fsck)"

step "blocks of any size"
# What was written in pieces of one size is read in those of another.
pattern 196608 one > /run/image
for size in 512 4096 12288 196608; do
    dd if=/run/image of="$scratch_disk" bs=$size oflag=direct
    for other in 1536 196608; do
        dd if="$scratch_disk" bs=$other count=$((196608 / other)) iflag=direct | cmp - /run/image
    done
    dd if=/dev/zero of="$scratch_disk" bs=196608 count=1 oflag=direct
done
# More in one go than a request can have.
pattern 8388608 large > /run/image
dd if=/run/image of="$scratch_disk" bs=8M count=1 oflag=direct
dd if="$scratch_disk" bs=8M count=1 iflag=direct | cmp - /run/image
# Sectors that share no page, at odd places.
for place in 1 7 8 63 1023; do
    pattern 3584 "$place" > /run/image
    dd if=/run/image of="$scratch_disk" bs=3584 seek=$((place * 512)) oflag=direct,seek_bytes
    dd if="$scratch_disk" bs=512 count=7 skip=$place iflag=direct | cmp - /run/image
done

step "blocks of 4096 bytes"
[ "$(cat "/sys/block/${small_disk#/dev/}/queue/logical_block_size")" = 4096 ] || fail "no 4096-byte blocks"
pattern 1048576 two > /run/image
for size in 4096 1048576; do
    dd if=/run/image of="$small_disk" bs=$size seek=$((1048576 / size)) oflag=direct
    dd if="$small_disk" bs=4096 count=256 skip=256 iflag=direct | cmp - /run/image
done

if [ -n "$read_only" ]; then
    step "a read-only disk"
    [ "$(cat "/sys/block/${read_only_disk#/dev/}/ro")" = 1 ] || fail "it can be written"
    if dd if=/dev/zero of="$read_only_disk" bs=4096 count=1; then fail "it was written"; fi
    dd if="$read_only_disk" of=/dev/null bs=1M
fi
