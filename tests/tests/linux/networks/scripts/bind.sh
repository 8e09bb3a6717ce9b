# The driver is bound, gets its interrupts as it should, and knows what the adapter is.

step "the driver"
[ "$(driver_in "$slot")" = "$driver" ] || fail "the driver is $(driver_in "$slot")"
[ "$(cat "/sys/class/net/$eth/address")" = "$mac" ] || fail "the address is $(cat "/sys/class/net/$eth/address")"
msi=$(pci "$slot")/msi_irqs
if [ "$vectors" = msix ]; then
    for file in "$msi"/*; do
        [ "$(cat "$file")" = msix ] || fail "$file is $(cat "$file")"
    done
else
    [ -z "$(ls "$msi" 2> /dev/null)" ] || fail "there are message signalled interrupts"
fi

step "the first packets"
pings 20 56 "$host"
fetch
step "interrupts"
before=$(interrupts "$slot")
pings 50 56 "$host"
after=$(interrupts "$slot")
[ $((after - before)) -ge 50 ] || fail "50 pings, $((after - before)) interrupts"
fact interrupts $((after - before))
