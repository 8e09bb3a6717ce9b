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

step "streams to the guest"
start=$(now)
streams "$host" 1 $bytes 0
fact down "$(rate "$start" $bytes)"
step "streams from the guest"
start=$(now)
streams "$host" 1 0 $bytes
fact up "$(rate "$start" $bytes)"
step "streams both ways"
streams "[$host6]" 4 4000000 4000000

if [ -n "$jumbo" ]; then
    step "jumbo frames"
    ip link set "$eth" mtu 9000
    ask "ip link set DEV mtu 9000"
    soon carrier
    soon reachable
    for size in 1473 8000 8972; do pings 20 $size "$host"; done
    streams "$host" 2 8000000 8000000
    ask "ip link set DEV mtu 1500"
    ip link set "$eth" mtu 1500
    soon carrier
    works
fi
