# An adapter, measured by fio over a TCP connection to the host at $far. It is told whether fio is to
# $rw, how many bytes at once ($bs) and what $more; how long in milliseconds ($warm, $time); and the host's
# ports: one to $work with, one that will $give contents with the $sum that they have, unless that is empty,
# and one that will $take the same.

has_carrier() { [ "$(cat "/sys/class/net/$name/carrier")" = 1 ]; }

soon interface "0000:00:$slot.0"
name=$(interface "0000:00:$slot.0")
ip address add "$near" dev "$name"
ip link set "$name" up
soon has_carrier
# Both know each other's address, and a first answer may take longer than any other.
soon ping -c 1 -W 1 "$far"

# fio, for nothing but that it succeeds. One connection has no end.
measured() {
    work_name=$1
    shift
    tool /usr/bin/fio --name="$work_name" --ioengine=net --protocol=tcp --hostname="$far" --port="$work" \
        --thread --clocksource=clock_gettime --eta=never --size=1t --time_based --rw="$rw" --bs="$bs" $more "$@" \
        > /run/fio 2>&1 || fail "fio: $(tail -n 5 /run/fio | tr '\n' ' ')"
}

if [ "$warm" -gt 0 ]; then
    measured warm --runtime="${warm}ms"
fi
measured measured --runtime="${time}ms" --lat_percentiles=1 --clat_percentiles=0 \
    --exec_prerun="/bin/sh /run/bench/mark measure" --exec_postrun="/bin/sh /run/bench/mark done" \
    --output=measured.json --output-format=json+
tell

if [ -n "$sum" ]; then
    nc "$far" "$give" < /dev/null > /run/contents
    found=$(crc32 < /run/contents)
    [ "$found" = "$sum" ] || fail "$(wc -c < /run/contents) bytes came that are not those which were sent"
    nc "$far" "$take" < /run/contents
fi
