# The driver is bound, and gets its interrupts as it should.

for slot in $(for place in "$main" "$scratch" "$small" "$read_only"; do slot_of $place; done | sort -u); do
    [ "$(driver_of "$slot")" = "$driver" ] || fail "slot $slot has the driver $(driver_of "$slot")"
    if [ "$vectors" = intx ]; then
        [ -z "$(ls "$(pci "$slot")/msi_irqs" 2> /dev/null)" ] || fail "slot $slot has MSI"
    else
        for file in "$(pci "$slot")"/msi_irqs/*; do
            [ "$(cat "$file")" = "$vectors" ] || fail "$file is $(cat "$file")"
        done
    fi
    fact "vectors_$slot" $(vectors "$slot" | wc -w)
done

step "interrupts"
for place in "$main" "$scratch" "$small" "$read_only"; do
    [ -n "$place" ] || continue
    slot=$(slot_of $place)
    before=$(interrupts "$slot")
    dd if="/dev/$(disk $place)" of=/dev/null bs=4096 count=64 iflag=direct
    after=$(interrupts "$slot")
    [ $((after - before)) -ge 64 ] || fail "64 reads of $place: $((after - before)) interrupts"
done
