# Several pairs of queues.

ethtool() { tool ethtool "$@"; }

# Interrupts of each receive queue, a line each.
per_queue() {
    for index in $(seq 0 $((queues - 1))); do
        case $driver in
        virtio_net) interrupts_of "virtio[0-9]*-input.$index\$" ;;
        vmxnet3) interrupts_of "$eth-rx(tx)?-$index\$" ;;
        esac
    done
}

# Packets that came by each receive queue, a line each. A vector may be for transmission too.
packets() {
    ethtool -S "$eth" > /run/statistics
    case $driver in
    virtio_net) awk '/rx_queue_[0-9]+_packets/ { print $2 }' /run/statistics ;;
    vmxnet3) awk '/Rx Queue#/ { rx = 1 } /ucast pkts rx/ && rx { print $NF }' /run/statistics ;;
    esac
}

# How many interrupts each receive queue takes during many streams, and how many queues do.
spread() {
    per_queue > /run/before
    packets > /run/packets
    # Which queue a stream goes to is one bit of its hash, which is the sum of some bits of its ports, by a
    # key that the kernel has made up. So that the streams differ, all those bits must.
    for ports in "10000 10099" "21000 21099" "33000 33099" "45000 45099" "61000 61099"; do
        echo "$ports" > /proc/sys/net/ipv4/ip_local_port_range
        streams "$host" 4 160000 160000
    done
    per_queue > /run/after
    came=$(packets | paste /run/packets - | awk '{ printf "%d ", $2 - $1 }')
    took=$(paste /run/before /run/after | awk '{ printf "%d ", $2 - $1 }')
    busy=$(for count in $took; do [ "$count" -lt 4 ] || echo "$count"; done | wc -l)
}

step "channels"
ethtool -l "$eth" > /run/channels
if [ "$driver" = virtio_net ]; then
    for count in $(seq 1 "$queues") 1 "$queues"; do
        ethtool -L "$eth" combined "$count"
        spread
        echo "$count of $queues pairs: $took"
        [ "$busy" -le "$count" ] || fail "$busy queues take interrupts of $count"
        [ "$count" = 1 ] || [ "$busy" -gt 1 ] || fail "one queue of $count takes all interrupts: $took"
    done
fi
spread
fact spread "$took"
[ "$busy" -gt 1 ] || fail "one queue takes all interrupts: $took"

step "receive-side scaling"
if ethtool -x "$eth" > /run/scaling; then
    grep -q 'RX flow hash indirection table' /run/scaling || fail "no table: $(cat /run/scaling)"
    # All to the first, all to the last, to all.
    for weights in "1 0" "0 1" "1 1"; do
        [ "$queues" = 2 ] || break
        ethtool -X "$eth" weight $weights
        usleep 100000
        spread
        echo "weights $weights: $came packets"
        for part in 1 2; do
            weight=$(echo "$weights" | cut -d' ' -f$part)
            packets_of_it=$(echo "$came" | cut -d' ' -f$part)
            # What is hashed is not all that comes.
            if [ "$weight" = 0 ]; then
                [ "$packets_of_it" -lt 16 ] || fail "queue $part of weight 0 gets $packets_of_it packets"
            else
                [ "$packets_of_it" -gt 100 ] || fail "queue $part of weight 1 gets $packets_of_it packets"
            fi
        done
    done
    fact scaling "$came"
fi
works
