# A disc of 3 MiB in a CD-ROM drive in slot $drive: files whose contents are known; then another one.

drive_there() {
    for block in /sys/block/sr*; do
        case $(readlink -f "$block") in */0000:00:"$drive".0/*) cdrom=/dev/${block##*/} && return 0 ;; esac
    done
    return 1
}
check_disc() {
    mkdir -p /run/disc
    mount -t iso9660 -o ro "$cdrom" /run/disc
    pattern 3145728 "$1" | cmp - /run/disc/data.txt
    umount /run/disc
}

step "a disc"
soon drive_there
if dd if=/dev/zero of="$cdrom" bs=2048 count=1; then fail "a disc was written"; fi
check_disc first
before=$(interrupts "$drive")
dd if="$cdrom" of=/dev/null bs=2048 count=64 iflag=direct
[ $(($(interrupts "$drive") - before)) -ge 8 ] || fail "reads without interrupts"
step "another"
ask take
if mount -t iso9660 -o ro "$cdrom" /run/disc; then fail "mounted nothing"; fi
ask insert
tries=0
until check_disc second; do
    tries=$((tries + 1))
    [ $tries -lt 50 ] || fail "the second disc is not there"
    usleep 200000
done
