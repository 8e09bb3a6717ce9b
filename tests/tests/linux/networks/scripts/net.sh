# What scripts about network adapters have. They get as variables where the disk with the $tools is (its
# slot), the $driver that is to bind and the $module that it is in, the adapter's $slot, its address
# $mac, the $number of its network, by what $vectors it is to get interrupts (msix or intx), and how many
# pairs of $queues it has.

load virtio_pci virtio_blk ext4 af_packet "$module"
# Nothing is said that the scripts did not ask for.
for file in /proc/sys/net/ipv6/conf/*/router_solicitations; do echo 0 > "$file"; done

host=10.9.$number.1
guest=10.9.$number.2
host6=fd00:9:$number::1
guest6=fd00:9:$number::2

tools_disk() {
    for block in "$(pci "$tools")"/virtio*/block/*; do
        [ ! -d "$block" ] || { echo "${block##*/}"; return 0; }
    done
    return 1
}

mount_tools() {
    [ -n "$tools" ] || return 0
    soon tools_disk
    mount_root "$(tools_disk)"
}

# What the driver of an interface in a slot is called; of virtio's, the one on its own bus.
driver_in() {
    for device in "$(pci "$1")"/virtio* "$(pci "$1")"; do
        [ ! -e "$device/driver" ] || { basename "$(readlink "$device/driver")"; return 0; }
    done
    return 1
}

# Prints the name of the interface in a slot.
interface_in() { interface "0000:00:$1.0"; }

carrier() { [ "$(cat "/sys/class/net/$eth/carrier" 2> /dev/null)" = 1 ]; }
no_carrier() { [ "$(cat "/sys/class/net/$eth/carrier")" = 0 ]; }

# Whether the host answers.
reachable() { ping -q -c 1 -W 1 "$host" > /run/pings; }

# Gives the adapter in $slot its addresses, and sets it up.
set_up() {
    soon interface_in "$slot"
    eth=$(interface_in "$slot")
    ip link set "$eth" mtu 1500 up
    ip addr add "$guest/24" dev "$eth" 2> /dev/null || :
    tool ip -6 addr add "$guest6/64" dev "$eth" nodad 2> /dev/null || :
    soon carrier
    soon reachable
}

# Pings the host with so many packets of each size; none may be lost. More arguments are ping's.
pings() { pings_to /run/pings "$@"; }

# The same, with a $file for what ping says, for several at once.
pings_to() {
    file=$1 count=$2 size=$3
    shift 3
    ping -q -i 0.01 -c "$count" -s "$size" -W 5 "$@" > "$file" || {
        cat "$file"
        fail "no answer to pings of $size bytes"
    }
    grep -q ' 0% packet loss' "$file" || fail "pings of $size bytes: $(cat "$file")"
}

# Gets the program that talks to the test.
fetch() {
    mkdir -p /run/peer
    ask fetch
    port=${answer%% *}
    for file in ${answer#* }; do
        nc "$host" "$port" < /dev/null > "/run/peer/$file"
        chmod +x "/run/peer/$file"
    done
    ask served
    [ "$answer" = right ] || fail "the program was not sent: $answer"
}

peer() { (peer_instead "$@"); }

# The same, in this process: in the background, so that it is this that is killed.
peer_instead() { exec /run/peer/ld-linux-*.so.* --library-path /run/peer /run/peer/peer "$@"; }

# The test is content.
served() {
    ask served
    [ "$answer" = right ] || fail "$1: the test says: $answer"
}

# So many connections at once, to an address of the host, with so many bytes to the guest and from it,
# all of which are verified.
streams() {
    ask "streams $2 $3 $4"
    peer streams "$1:$answer" "$2" > /run/said || { cat /run/said; failed=yes; }
    served "$1, $2 streams"
    [ -z "$failed" ] || fail "$1, $2 streams: $(cat /run/said)"
}

# Datagrams of many lengths, verified.
datagrams() {
    ask datagrams
    peer datagrams "$1:$answer" > /run/said || failed=yes
    served "$1, datagrams"
    [ -z "$failed" ] || fail "$1, datagrams: $(cat /run/said)"
}
failed=

# A little of everything, verified.
works() {
    pings 3 56 "$host"
    streams "$host" 2 1000000 1000000
}

# Time that has passed, in hundredths of a second.
now() {
    read -r up _ < /proc/uptime
    echo "${up%.*}${up#*.}"
}

# So much per second, of bytes since $1.
rate() {
    spent=$(($(now) - $1))
    echo "$(($2 / (spent + 1) / 10)) kB/s, $((spent / 100)) s"
}

# Interrupts of all vectors whose names match, summed over processors.
interrupts_of() {
    awk -v "name=$1" 'NR > 1 && $0 ~ name { for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum + 0 }' /proc/interrupts
}

count_of() { cat "/sys/class/net/$eth/statistics/$1"; }

mount_tools
# The adapter may have been told of more.
ask "ip link set DEV mtu 1500"
set_up
