# In a guest that is saved while it does this: writes to both its disks for a while, and then looks at what is
# there.

coldplug
settle
port=$(basename "$(ls -d /sys/bus/pci/devices/0000:00:1f.0/ata*/host*/target*/*/block/*)")
data() { yes "round $1 of what the guest writes" | head -c 1048576; }

for round in 1 2 3 4 5 6 7 8 9 10 11 12; do
    [ "$round" != 4 ] || mark writing
    for disk in vda "$port"; do
        data "$round" | dd of="/dev/$disk" bs=16k seek=$((64 * round)) conv=fsync 2>/dev/null
    done
done

echo 3 >/proc/sys/vm/drop_caches
for round in 1 2 3 4 5 6 7 8 9 10 11 12; do
    wanted=$(data "$round" | md5sum)
    for disk in vda "$port"; do
        found=$(dd if="/dev/$disk" bs=16k skip=$((64 * round)) count=64 2>/dev/null | md5sum)
        [ "$found" = "$wanted" ] || echo "round $round is not on $disk"
    done
done
echo "looked at 12 rounds"
