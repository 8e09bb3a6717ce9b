# What the scripts that measure have beside the test bed's library. They run in the initial RAM file
# system; the tools' own root file system is at /t. Each gets the numbers of its $slot on the root bus and
# of the $tools disk's, as PCI writes them, and the driver's $modules.

# For `soon`: a minute.
patience=600

# Prints the name of the disk in a slot.
disk_in() { block_device "0000:00:$1.0"; }

# Runs a command of the tools' root file system there, in a folder that can be written.
tool() {
    chroot /t /bin/sh -c 'cd /run/bench; exec "$@"' tool "$@"
}

modprobe -a virtio_pci virtio_blk ext4 $modules
soon disk_in $tools
mkdir -p /t
mount -t ext4 -o ro "/dev/$(disk_in $tools)" /t
for folder in proc sys dev; do mount --bind /$folder /t/$folder; done
mount -t tmpfs run /t/run
mkdir /t/run/bench

# `mark WORD`, for a tool to call just before and just after what is measured: the host takes note while
# the guest waits for its answer. The interrupts are counted outside of that.
cat > /t/run/bench/mark << END
function=/sys/bus/pci/devices/0000:00:$slot.0
END
cat >> /t/run/bench/mark << 'END'
count() {
    vectors=$(ls "$function/msi_irqs" 2> /dev/null)
    [ -n "$vectors" ] || vectors=$(cat "$function/irq")
    total=0
    for vector in $vectors; do
        for number in $(sed -n "s/^ *$vector: *\([0-9 ]*\)[^0-9 ].*/\1/p" /proc/interrupts); do
            total=$((total + number))
        done
    done
    echo $total
}
[ "$1" != measure ] || count > /run/bench/before
echo "paraslot: mark $1" > /dev/console
read -r answer < /dev/console
[ "$1" != done ] || count > /run/bench/after
END

# Tells the host what was measured, with what, and how many interrupts came between the marks.
tell() {
    fact kernel "$(uname -r)"
    fact build "$(uname -v)"
    fact interrupts $(($(cat /t/run/bench/after) - $(cat /t/run/bench/before)))
    # Before it stands what fio says of its commands.
    printf 'paraslot: fact fio '
    sed -n '/^{/,$p' /t/run/bench/measured.json | tr -d '\n' | tr -s ' '
    echo
}
