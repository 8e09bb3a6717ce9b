# Without message signalled interrupts, and with a second adapter at the same pin: its $second slot,
# $second_driver, $second_module, $second_mac and $second_number.

step "two adapters on one pin"
first_eth=$eth
first_host=$host
irq=$(cat "$(pci "$slot")/irq")
load "$second_module"
slot=$second driver=$second_driver mac=$second_mac number=$second_number
host=10.9.$number.1 guest=10.9.$number.2 guest6=fd00:9:$number::2
set_up
# The kernel looks for a function's pin when a driver asks for the function.
[ "$(cat "$(pci "$slot")/irq")" = "$irq" ] || fail "they do not share a pin"
[ "$(driver_in "$slot")" = "$driver" ] || fail "the driver is $(driver_in "$slot")"
[ "$(cat "/sys/class/net/$eth/address")" = "$mac" ] || fail "the address is $(cat "/sys/class/net/$eth/address")"
works
for size in 56 1472; do
    pings_to /run/first 200 "$size" "$first_host" &
    pings 200 "$size" "$host"
    wait $! || fail "the first adapter: $(cat /run/first)"
done
# The first adapter's streams beside the second's.
second_host=$host
ask "streams 2 3000000 3000000"
peer streams "$first_host:$answer" 2 > /run/first &
first=$!
pings 20 56 "$second_host"
wait $first || fail "the first adapter: $(cat /run/first)"
served "the first adapter"
ip link set "$first_eth" down
works
ip link set "$first_eth" up
ip link set "$eth" down
host=$first_host
soon reachable
works
