# Whole functions come and go while Linux runs. It is told by hand, since nothing else tells it. The script gets
# as variables $disks, each as SLOT:SECTORS, and as those of networks' scripts what the adapter is.

modprobe -a sd_mod ahci vmw_pvscsi

size_of() {
    for place in $disks; do [ "${place%:*}" != "$1" ] || echo "${place#*:}"; done
}
disk() { block_device "0000:00:$1.0" "$(size_of "$1")"; }
disk_gone() { ! disk "$1" > /dev/null; }
gone() { ! interface_in "$1" > /dev/null; }

# What is in the first MiB of a disk.
write_to() {
    pattern 1048576 "$1 $2" > /run/image
    dd if=/run/image of="/dev/$(disk "$1")" bs=64k oflag=direct
}
verify() {
    pattern 1048576 "$1 $2" > /run/image
    dd if="/dev/$(disk "$1")" bs=64k count=16 iflag=direct | cmp - /run/image || fail "slot $1, round $2"
}
pattern() { yes "$2 of the pattern" | head -c "$1"; }

# Something to do for a disk, which may fail when it goes but must end.
load() {
    name=/dev/$(disk "$1")
    dd if="$name" of=/dev/null bs=4k iflag=direct &
    loads="$loads $!"
    dd if=/dev/zero of="$name" bs=64k seek=64 oflag=direct &
    loads="$loads $!"
}

# Linux lets go of a function, which is then taken out.
out() {
    echo 1 > "$(pci "$1")/remove"
    ask "out $1"
    [ "$answer" = done ] || fail "slot $1: $answer"
}
rescan() { echo 1 > /sys/bus/pci/rescan; }

for place in $disks; do
    soon disk "${place%:*}"
    write_to "${place%:*}" 0
done
pings 3 56 "$host"
fetch
works
ask "count"

for round in 1 2; do
    step "all are taken out, round $round"
    loads=
    for place in $disks; do load "${place%:*}"; done
    usleep 200000
    for place in $disks; do out "${place%:*}"; done
    wait $loads || :
    # One that came too late has made a file of that name.
    find /dev -type f -exec rm {} \;
    out "$slot"
    soon gone "$slot"
    rescan
    for place in $disks $slot; do
        [ ! -e "$(pci "${place%:*}")" ] || fail "slot ${place%:*} is still there"
    done
    ask "count"
    fact "without_$round" "$answer"

    step "and come back"
    for place in $disks $slot; do ask "in ${place%:*}"; done
    for place in $disks $slot; do
        [ ! -e "$(pci "${place%:*}")" ] || fail "slot ${place%:*} was found without a look"
    done
    rescan
    for place in $disks; do
        soon disk "${place%:*}"
        verify "${place%:*}" $((round - 1))
        before=$(interrupts "${place%:*}")
        write_to "${place%:*}" "$round"
        verify "${place%:*}" "$round"
        after=$(interrupts "${place%:*}")
        [ "$after" -gt "$before" ] || fail "slot ${place%:*} has no interrupts"
    done
    set_up
    works
done

step "taken out without a word"
# Nothing is left to be written when they go.
for file in /sys/class/scsi_disk/*/cache_type; do echo "temporary write through" > "$file"; done
sync
for pulled in $pulled; do
    step "slot $pulled"
    ask "out $pulled"
    # What is there has nothing to say.
    printf '\377\377\377\377\377\377\377\377' > /run/ones
    dd if="$(pci "$pulled")/config" bs=8 count=1 | cmp - /run/ones || fail "slot $pulled answers"
done
step "and the drivers are told"
for pulled in $told; do
    step "slot $pulled"
    echo 1 > "$(pci "$pulled")/remove"
    [ ! -e "$(pci "$pulled")" ] || fail "slot $pulled is still there"
done
soon gone "$slot"
for pulled in $told; do ask "in $pulled"; done
rescan
for pulled in $told; do
    [ "$pulled" != "$slot" ] || continue
    soon disk "$pulled"
    verify "$pulled" 2
done
set_up
works

# A virtio driver that is still bound to what has gone waits for its reset for ever, when Linux powers off too.
trap - EXIT
set +x
complaints
echo "paraslot: exit 0"
ask stop
