# A disk, measured by fio. It is told how ($rw, $bs, $depth, $span, $seed), how long in milliseconds ($warm,
# $time), and what else to do: $fill the disk before, $check in what way what arrives is right, with the
# $sums of what it holds.

modprobe sd_mod
soon disk_in $slot
name=$(disk_in $slot)
capacity=$(($(cat "/sys/block/$name/size") * 512))
fact capacity $capacity
# As much of it as there is, in whole blocks of any size.
[ "$span" -le $capacity ] || span=$((capacity / 131072 * 131072))
[ "$span" -ge $((bs * depth)) ] || fail "the disk has $capacity bytes; $((bs * depth)) are needed"

fio_on_disk() {
    work=$1
    shift
    tool /usr/bin/fio --name="$work" --filename="/dev/$name" --thread --ioengine=libaio --direct=1 \
        --randseed="$seed" --clocksource=clock_gettime --eta=never "$@"
}
# fio, for nothing but that it succeeds.
silently() {
    "$@" > /run/fio 2>&1 || fail "fio: $(tail -n 5 /run/fio | tr '\n' ' ')"
}
# Random offsets may come again, as they do elsewhere.
measured() {
    fio_on_disk "$@" --rw="$rw" --bs="$bs" --iodepth="$depth" --size="$span" --norandommap --time_based
}

if [ -n "$fill" ]; then
    silently fio_on_disk fill --rw=write --bs=128k --iodepth=8 --size="$span"
fi
if [ "$warm" -gt 0 ]; then
    silently measured warm --runtime="${warm}ms"
fi
silently measured measured --runtime="${time}ms" --lat_percentiles=1 --clat_percentiles=0 \
    --exec_prerun="/bin/sh /run/bench/mark measure" --exec_postrun="/bin/sh /run/bench/mark done" \
    --output=measured.json --output-format=json+
tell

case $check in
written)
    # Written at random, and read back.
    silently fio_on_disk verify --rw=randwrite --bs="$bs" --iodepth="$depth" --size="$check_bytes" \
        --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0
    ;;
held)
    # Pieces at once, as many as operations were, within reason.
    for part in $sums; do
        (
            # Where it starts and how long it is, in blocks, and its sum.
            IFS=: read -r skip count sum << END
$part
END
            found=$(dd if="/dev/$name" bs="$bs" skip="$skip" count="$count" iflag=direct 2> /dev/null | crc32)
            [ "$found" = "$sum" ] || echo "$skip" >> /run/wrong
        ) &
    done
    wait
    [ ! -e /run/wrong ] || fail "what is read is not what the disk holds, from blocks" $(cat /run/wrong)
    ;;
esac
