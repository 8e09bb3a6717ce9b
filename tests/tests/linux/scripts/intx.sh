# Without message signalled interrupts, with pins that functions share.

step "all at once, on shared pins"
readers=
for place in "$main" "$scratch" "$small" "$read_only"; do
    [ -n "$place" ] || continue
    dd if="/dev/$(disk $place)" of=/dev/null bs=4k count=256 iflag=direct &
    readers="$readers $!"
done
for reader in $readers; do wait "$reader"; done
mount_main
cp /t/run/data/sums /run/sums
check_tree
umount /t/run/data
tool e2fsck -fn "$main_disk" > /run/fsck || fail "$(cat /run/fsck)"
