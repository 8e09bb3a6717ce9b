# The driver and its interface come and go while data flows both ways.

# Datagrams to the guest and from it, whatever becomes of them.
loaded() {
    ask "ip neigh replace $guest lladdr $mac dev DEV"
    ask "flood $guest:9"
    peer_instead flood "$host:9" 600 > /run/flood &
    flood=$!
    usleep 200000
}
# Nothing may be sent any more, not by the time that the machine reboots at least: Linux 6.1 breaks
# virtio's queues then, and its virtio_net loops for ever in start_xmit if there is something in one.
unloaded() {
    kill $flood
    wait $flood || :
    if pgrep -f "peer flood" > /dev/null; then fail "there is still a flood"; fi
    ask calm
    [ "$answer" = right ] || fail "the test could not send: $answer"
    # What comes after this has the host ask where the guest is.
    ask "ip neigh flush dev DEV nud permanent"
}
gone() { ! interface_in "$slot" > /dev/null; }
# It is there again, and right.
again() {
    set_up
    works
}

step "down and up under load"
loaded
for round in 1 2 3 4 5; do
    ip link set "$eth" down
    ip link set "$eth" up
    usleep 100000
done
unloaded
again

step "unbind and bind under load"
bound=$(pci "$slot")
for device in "$bound"/virtio*; do [ ! -d "$device" ] || bound=$device; done
name=${bound##*/}
driver_dir=$(readlink -f "$bound/driver")
loaded
for round in 1 2 3; do
    echo "$name" > "$driver_dir/unbind"
    soon gone
    echo "$name" > "$driver_dir/bind"
    set_up
    usleep 200000
done
unloaded
again

step "the module comes and goes under load"
loaded
for round in 1 2 3; do
    soon rmmod "$module"
    soon gone
    load "$module"
    set_up
    usleep 200000
done
unloaded
again

step "the function is removed and found again under load"
loaded
for round in 1 2; do
    echo 1 > "$(pci "$slot")/remove"
    soon gone
    [ ! -e "$(pci "$slot")" ] || fail "the function is still there"
    echo 1 > /sys/bus/pci/rescan
    set_up
    usleep 200000
done
unloaded
again

step "a reset of the function"
if [ -e "$(pci "$slot")/reset" ]; then
    # Whoever is bound to it would not know of it.
    driver_dir=$(readlink -f "$(pci "$slot")/driver")
    echo "0000:00:$slot.0" > "$driver_dir/unbind"
    echo 1 > "$(pci "$slot")/reset"
    echo "0000:00:$slot.0" > "$driver_dir/bind"
    again
    fact reset yes
fi
