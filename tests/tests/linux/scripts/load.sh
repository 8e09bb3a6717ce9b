# Many requests at once, whose data is verified; flushes, discards, zeroes.

step "verified random access"
verify() {
    tool fio --minimal --thread --verify_state_save=0 --direct=1 --verify_fatal=1 --verify=crc32c --group_reporting \
        --filename="$scratch_disk" "$@" > /run/fio || fail "fio: $(cat /run/fio)"
}
engine=libaio
verify --name=deep --ioengine=$engine --rw=randrw --bsrange=512-64k --bs_unaligned=0 --blockalign=512 --iodepth=32 \
    --size=8m --offset_increment=8m --numjobs=2 --do_verify=1

step "flushes beside writes"
ask flushes
flushed=$answer
verify --name=storm --ioengine=psync --rw=randwrite --bs=4k --size=1m --offset=32m --fsync=1 \
    --name=load --ioengine=libaio --rw=write --bs=32k --iodepth=16 --size=8m --offset=40m
ask flushes
[ $((answer - flushed)) -ge 100 ] || fail "$((answer - flushed)) flushes for 256 of fsync"

step "discard"
limit=$(cat "/sys/block/${scratch_disk#/dev/}/queue/discard_max_bytes")
if [ "$limit" != 0 ]; then
    ask full
    tool blkdiscard "$scratch_disk"
    forget
    head -c 4194304 /dev/zero | cmp -n 4194304 - "$scratch_disk"
    ask discarded
fi
step "zeroes"
pattern 2097152 three | dd of="$scratch_disk" bs=1M oflag=direct iflag=fullblock
tool blkdiscard -z -o 4096 -l 1048576 "$scratch_disk"
pattern 2097152 three > /run/image
dd if=/dev/zero of=/run/image bs=4096 seek=1 count=256 conv=notrunc
cmp -n 2097152 "$scratch_disk" /run/image
ask zeroed

step "trim"
mount_main
cp -a /t/run/data/tree /t/run/data/copy
sync
rm -r /t/run/data/copy
sync
ask filled
if [ "$limit" != 0 ]; then tool fstrim /run/data; fi
ask trimmed
check_tree
umount /t/run/data
