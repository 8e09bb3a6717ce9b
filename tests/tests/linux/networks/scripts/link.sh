# The cable is pulled, and plugged in.

step "link"
for round in 1 2 3; do
    ask "link down"
    soon no_carrier
    if reachable; then fail "without a cable the host answers"; fi
    ask "link up"
    soon carrier
    soon reachable
    works
done
