# Data of all kinds, verified, both ways.

step "pings"
for size in 0 1 17 18 19 46 512 1471 1472; do
    pings 20 $size "$host"
    pings 5 $size "$host6"
done
# In fragments.
for size in 1473 4000 20000 65507; do pings 3 $size "$host"; done

step "datagrams"
datagrams "$host"

# A guest as slow as this would send a few kilobytes at a time, and the time would go by in exits.
echo 44 > /proc/sys/net/ipv4/tcp_min_tso_segs

# Long streams called $1, of $2 bytes in all; three quarters go to the guest, which sends slower than it
# receives.
long() {
    down=$(($2 * 3 / 4))
    step "$1 to the guest"
    start=$(now)
    streams "$host" 1 $down 0
    fact "$1_down" "$(rate "$start" $down)"
    step "$1 from the guest"
    start=$(now)
    streams "$host" 1 0 $(($2 - down))
    fact "$1_up" "$(rate "$start" $(($2 - down)))"
}

long stream $((bytes / 8))
step "streams both ways"
streams "[$host6]" 4 4000000 4000000

step "jumbo frames"
ip link set "$eth" mtu 9000
ask "ip link set DEV mtu 9000"
soon carrier
soon reachable
for size in 1473 8000 8972; do pings 20 $size "$host"; done
streams "$host" 2 8000000 8000000
long jumbo $((bytes - bytes / 8))
ask "ip link set DEV mtu 1500"
ip link set "$eth" mtu 1500
soon carrier
works
