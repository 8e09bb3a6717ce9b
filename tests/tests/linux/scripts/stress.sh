# The disk after a reset of the machine, and its driver's comings and goings.

step "what was written before the reset"
mount_main
cp /t/run/data/sums /run/sums
check_tree
umount /t/run/data
tool e2fsck -fn "$main_disk" > /run/fsck || fail "$(cat /run/fsck)"

function=$(pci "$(slot_of $scratch)")
# Functions of virtio are bound to virtio-pci; what drives them is bound to the device on its bus.
bound=$function
for device in "$function"/virtio*; do [ ! -d "$device" ] || bound=$device; done
name=${bound##*/}
driver_dir=$(readlink -f "$bound/driver")

# Reads and writes that may fail but must end.
load() {
    dd if="$scratch_disk" of=/dev/null bs=4k iflag=direct &
    readers=$!
    dd if=/dev/zero of="$scratch_disk" bs=64k oflag=direct &
    readers="$readers $!"
    usleep 200000
}

# The disks are there again, and still right.
intact() {
    find_disks
    mount_main
    check_tree
    umount /t/run/data
}

gone() { ! disk $scratch > /dev/null; }

step "unbind and bind under load"
for round in 1 2; do
    load
    echo "$name" > "$driver_dir/unbind"
    wait $readers || :
    soon gone
    echo "$name" > "$driver_dir/bind"
    find_disks
done
intact

step "the module comes and goes"
for round in 1 2 3; do
    soon rmmod "$module"
    soon gone
    modprobe "$module"
    find_disks
done
intact

step "remove and rescan under load"
load
echo 1 > "$function/remove"
wait $readers || :
[ ! -e "$function" ] || fail "the function is still there"
echo 1 > /sys/bus/pci/rescan
intact

step "function level reset"
if [ -e "$function/reset" ]; then
    fact reset "$(cat "$function/reset_method")"
    # Not every driver expects it.
    echo "${function##*/}" > "/sys/bus/pci/drivers/$driver/unbind"
    echo 1 > "$function/reset"
    echo "${function##*/}" > "/sys/bus/pci/drivers/$driver/bind"
    intact
fi
