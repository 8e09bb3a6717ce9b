# What every script has, beside the test bed's own library. It is run by busybox's sh, with -e.

# Has the test do what WORD means to it, and waits for its answer, which is then in $answer.
ask() {
    mark "$1"
    read -r answer
}

# Says what is being done.
step() {
    read -r up _ < /proc/uptime
    echo "-- $up $*"
}

# For `soon`: half a minute.
patience=300

# As soon, until it fails.
soon_not() { soon fails "$@"; }
fails() { ! "$@"; }

# Prints the kernel's complaints: level warning or above, or words that complain.
complaints() {
    dmesg -r | grep -iE '^<[0-4]>|error|fail|warn|time[d]?[ -]?out|reset|lost|abort|call trace|bug:|hung|stall|unexpected|nobody cared|exception|retry|offline' |
        sed 's/^/paraslot: dmesg /' || :
}

# The end of a script that fails says what it did last.
leave() {
    status=$?
    set +x
    [ $status = 0 ] || grep -v "paraslot: " /run/trace | tail -n 15
    complaints
    exit $status
}
trap leave EXIT
exec 2> /run/trace
set -x

# The end of a script after which the machine is reset.
restart() {
    trap - EXIT
    set +x
    complaints
    sync
    echo "paraslot: exit 0"
    reboot -f
    sleep 60
}

# The PCI function in a slot of the root bus.
pci() { echo "/sys/bus/pci/devices/0000:00:$1.0"; }

# The driver bound to the function in a slot.
driver_of() { driver "0000:00:$1.0"; }

# A command of the tools' own root file system. By its path: else it would be busybox's.
tool() {
    for dir in /usr/sbin /usr/bin /sbin /bin; do
        if [ -x "/t$dir/$1" ]; then
            program=$dir/$1
            shift
            chroot /t "$program" "$@"
            return
        fi
    done
    fail "no tool $1"
}

# Has that root file system, which is on the disk of this name, at /t.
mount_root() {
    mkdir -p /t
    mount -t ext4 -o ro "/dev/$1" /t
    for dir in proc sys dev; do mount --bind /$dir /t/$dir; done
}

# The vectors that the function in a slot has: MSI and MSI-X, or else its INTx.
vectors() {
    found=$(ls "$(pci "$1")/msi_irqs" 2> /dev/null) || :
    [ -n "$found" ] || found=$(cat "$(pci "$1")/irq")
    echo "$found"
}

# How many interrupts they have brought, all together.
interrupts() {
    total=0
    for vector in $(vectors "$1"); do
        for count in $(sed -n "s/^ *$vector: *\([0-9 ]*\)[^0-9 ].*/\1/p" /proc/interrupts); do
            total=$((total + count))
        done
    done
    echo $total
}
