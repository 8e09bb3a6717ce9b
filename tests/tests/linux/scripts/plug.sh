# A unit that comes and goes while Linux runs.

if [ -n "$plugged" ]; then
    step "a unit is attached"
    if disk $plugged > /dev/null; then fail "it is there already"; fi
    ask attach
    soon disk $plugged
    name=/dev/$(disk $plugged)
    pattern 1048576 plugged > /run/image
    dd if=/run/image of="$name" bs=64k oflag=direct
    dd if="$name" bs=1M count=1 iflag=direct | cmp - /run/image
    step "and detached"
    ask detach
    soon_not disk $plugged
    ask attach
    soon disk $plugged
    dd if="/dev/$(disk $plugged)" bs=1M count=1 iflag=direct | cmp - /run/image
    ask detach
    soon_not disk $plugged
fi

step "a disk grows"
grown="${scratch%% *} $((${scratch#* } + 8192))"
ask grow
# Not every adapter tells of it.
[ -z "$rescan" ] || echo 1 > "/sys/block/${scratch_disk#/dev/}/device/rescan"
soon disk $grown
# Where it is another disk by that, the name may be another.
scratch_disk=/dev/$(disk $grown)
pattern 65536 grown > /run/image
dd if=/run/image of="$scratch_disk" bs=64k seek=$((${scratch#* } * 512)) oflag=direct,seek_bytes
dd if="$scratch_disk" bs=64k count=1 skip=$((${scratch#* } * 512)) iflag=direct,skip_bytes | cmp - /run/image
scratch=$grown
