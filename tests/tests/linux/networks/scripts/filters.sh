# Which frames the adapter lets through.

# Prints how many of 20 datagrams to an address of the host's choice arrived.
arrived() {
    before=$(count_of rx_packets)
    ask "send 20 $1"
    # Those counters that come from the adapter.
    sleep 1
    got=$(($(count_of rx_packets) - before))
}
some() { arrived "$1"; [ $got -ge 20 ] || fail "$2: $got of 20 arrived"; }
none() { arrived "$1"; [ $got -lt 20 ] || fail "$2: $got of 20 arrived"; }

step "promiscuous"
stranger=10.9.$number.77:9
ask "ip neigh replace 10.9.$number.77 lladdr 02:00:00:00:77:77 dev DEV"
none $stranger "another's frames"
ip link set "$eth" promisc on
some $stranger "another's frames, promiscuous"
ip link set "$eth" promisc off
none $stranger "another's frames, no longer promiscuous"

step "multicast"
ask "ip route replace 239.0.0.0/8 dev DEV"
group=239.1.2.3:9
none $group "a group's frames"
tool ip maddr add 01:00:5e:01:02:03 dev "$eth"
some $group "a group's frames, having joined"
tool ip maddr del 01:00:5e:01:02:03 dev "$eth"
none $group "a group's frames, having left"
tool ip link set "$eth" allmulticast on
some $group "a group's frames, all"
tool ip link set "$eth" allmulticast off
# More than any table holds.
for low in $(seq 1 70); do tool ip maddr add "01:00:5e:01:02:$(printf %02x "$low")" dev "$eth"; done
some $group "a group's frames, of seventy"
for low in $(seq 1 70); do tool ip maddr del "01:00:5e:01:02:$(printf %02x "$low")" dev "$eth"; done
none $group "a group's frames, of none"

step "another address"
ip link set "$eth" address 02:00:00:00:55:55
ask "ip neigh flush dev DEV"
works
ip link set "$eth" address "$mac"
ask "ip neigh flush dev DEV"
works

step "a VLAN"
modprobe 8021q
ask "vlan 5"
if [ "$answer" = yes ]; then
    ask "ip addr add 10.19.$number.1/24 dev DEV.5"
    ask "ip link set DEV.5 up"
    ip link add link "$eth" name vlan5 type vlan id 5
    ip addr add "10.19.$number.2/24" dev vlan5
    ip link set vlan5 up
    pings 20 56 "10.19.$number.1"
    pings 5 1472 "10.19.$number.1"
    streams "10.19.$number.1" 2 3000000 3000000
    for feature in rxvlan txvlan; do
        for state in off on; do
            tool ethtool -K "$eth" $feature $state 2> /dev/null || continue
            soon carrier
            soon ping -q -c 1 -W 1 "10.19.$number.1"
            streams "10.19.$number.1" 2 1000000 1000000
        done
    done
    works
    ip link del vlan5
    ask "ip link del DEV.5"
fi
works
