# What the driver has counted is what the host's end has.

step "statistics"
same() {
    ask counters
    set -- $answer
    frames=$1 bytes_up=$2 sent=$3 bytes_down=$4
    tx=$(count_of tx_packets) rx=$(count_of rx_packets)
    tx_bytes=$(count_of tx_bytes) rx_bytes=$(count_of rx_bytes)
    pings 50 400 "$host"
    # Counters that come from the adapter are asked for every other second.
    sleep 2
    ask counters
    set -- $answer
    # In frames that are only padded both say what they like of bytes.
    said="host: $(($1 - frames)) $(($3 - sent)); guest: $(($(count_of tx_packets) - tx)) $(($(count_of rx_packets) - rx)) frames"
    said="$said; host: $(($2 - bytes_up)) $(($4 - bytes_down)); guest: $(($(count_of tx_bytes) - tx_bytes)) $(($(count_of rx_bytes) - rx_bytes)) bytes"
    [ $(($1 - frames)) = $(($(count_of tx_packets) - tx)) ] &&
        [ $(($3 - sent)) = $(($(count_of rx_packets) - rx)) ] &&
        [ $(($1 - frames)) -ge 50 ] && [ $(($1 - frames)) -le 60 ]
}
# There may be something between two looks.
same || same || same || fail "counters: $said"
for count in tx_errors rx_errors tx_dropped rx_over_errors rx_crc_errors rx_frame_errors; do
    [ "$(count_of $count)" = 0 ] || fail "$count is $(count_of $count)"
done
tool ethtool -S "$eth" > /run/statistics
for name in $(awk '/err|drop|bad|fail|hang|timeout|csum_error/ && $NF != 0 { print $1 $NF }' /run/statistics); do
    echo "statistics: $name"
done
fact bad_counts $(awk '/err|bad|fail|hang|timeout/ && $NF != 0' /run/statistics | wc -l)
