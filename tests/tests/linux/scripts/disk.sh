# What scripts about disks have. They get as variables where the disk with the $tools is, and the disks
# $main, $scratch, $small and $read_only: each a slot and how many sectors of 512 bytes it has, by which
# it is told from others there; $read_only may be empty. Also the $driver that is to bind in these slots, the $module that it is
# in, and by what $vectors it is to get interrupts: msix, msi or intx.

modprobe -a virtio_pci virtio_blk virtio_scsi ahci vmw_pvscsi sd_mod sr_mod sg ext4 isofs

# Prints the name of the disk in a slot that has so many sectors.
disk() { block_device "0000:00:$1.0" "$2"; }

mount_tools() {
    soon disk $tools
    mount_root "$(disk $tools)"
    mount -t tmpfs run /t/run
    mkdir /t/run/data
}

# Whether all the disks of the test are there.
all_there() {
    disk $main && disk $scratch && disk $small && { [ -z "$read_only" ] || disk $read_only; }
} > /dev/null

# Their names.
find_disks() {
    soon all_there
    main_disk=/dev/$(disk $main)
    scratch_disk=/dev/$(disk $scratch)
    small_disk=/dev/$(disk $small)
    [ -z "$read_only" ] || read_only_disk=/dev/$(disk $read_only)
}

# The slot that a disk is in.
slot_of() { echo "$1"; }

# Nothing of a disk is in memory any more.
forget() {
    sync
    echo 3 > /proc/sys/vm/drop_caches
}

# Prints $1 bytes that are the same whenever $2 is.
pattern() { yes "$2 of the pattern" | head -c "$1"; }

# Whether the tree on the main disk is intact.
check_tree() {
    forget
    (cd /t/run/data/tree && md5sum -c ../sums) > /run/checked || {
        grep -v ': OK$' /run/checked
        fail "the tree is damaged"
    }
}

mount_main() { mount -t ext4 "$main_disk" /t/run/data; }

mount_tools
find_disks
