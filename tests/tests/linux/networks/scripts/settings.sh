# Every setting that the driver has is changed while data flows, which stays right.

ethtool() { tool ethtool "$@"; }

# After a change that may have taken the adapter down.
still() {
    soon carrier
    soon reachable
    streams "$host" 2 1000000 1000000
}

step "offloads"
ethtool -k "$eth" | awk '$2 ~ /^(on|off)$/ && $0 !~ /fixed/ { sub(/:/, "", $1); print $1, $2 }' > /run/features
while read -r feature state <&3; do
    case $state in on) other=off ;; *) other=on ;; esac
    ethtool -K "$eth" "$feature" $other > /run/actual || { echo "$feature stays $state"; continue; }
    still
    ethtool -K "$eth" "$feature" $state > /run/actual
    echo "$feature $other and $state"
done 3< /run/features
still
fact features $(wc -l < /run/features)
step "all offloads off, and on"
while read -r feature _; do ethtool -K "$eth" "$feature" off > /run/actual || :; done < /run/features
still
datagrams "$host"
while read -r feature state; do ethtool -K "$eth" "$feature" "$state" > /run/actual || :; done < /run/features
still

step "coalescing"
ethtool -c "$eth" > /run/coalescing || :
case $driver in
# Its driver has parameters instead.
e1000) settings= ;;
vmxnet3) settings="rx-usecs=100 rx-usecs=0,rx-frames=16,tx-frames=16 rx-frames=0,tx-frames=0,adaptive-rx=on adaptive-rx=off rx-usecs=0" ;;
virtio_net) settings="rx-usecs=100,tx-usecs=100,tx-frames=1 rx-usecs=200,rx-frames=32,tx-usecs=200,tx-frames=32 rx-usecs=0,tx-usecs=0,rx-frames=0,tx-frames=1" ;;
esac
for setting in $settings; do
    if ethtool -C "$eth" $(echo "$setting" | tr ',=' '  ') 2> /run/error; then
        pings 5 56 "$host"
        still
        echo "coalescing $setting"
    else
        echo "coalescing $setting: $(cat /run/error)"
    fi
done
ethtool -c "$eth" > /run/coalescing || :
if [ "$driver" = e1000 ]; then
    for setting in InterruptThrottleRate=0 InterruptThrottleRate=1 InterruptThrottleRate=8000 \
        "InterruptThrottleRate=0 RxIntDelay=100 RxAbsIntDelay=500 TxIntDelay=100 TxAbsIntDelay=500" ""; do
        rmmod e1000
        modprobe e1000 $setting
        set_up
        pings 5 56 "$host"
        still
        echo "parameters $setting"
    done
fi

step "rings"
ethtool -g "$eth" > /run/rings
case $driver in
e1000) settings="rx=80,tx=80 rx=4096,tx=4096 rx=256,tx=256" ;;
vmxnet3) settings="rx=128,tx=128 rx=4096,tx=4096 rx-jumbo=512 rx-mini=1024 rx=1024,tx=512" ;;
virtio_net) settings="rx=64,tx=64 rx=128,tx=32 rx=256,tx=256" ;;
esac
for setting in $settings; do
    if ethtool -G "$eth" $(echo "$setting" | tr ',=' '  ') 2> /run/error; then
        still
        echo "rings $setting"
    else
        echo "rings $setting: $(cat /run/error)"
    fi
done
ethtool -g "$eth" > /run/rings

step "dumps and tests"
ethtool -i "$eth" > /run/information
ethtool -d "$eth" > /run/registers || :
ethtool -e "$eth" > /run/eeprom || :
ethtool "$eth" > /run/settings
grep -q 'Link detected: yes' /run/settings || fail "no link: $(cat /run/settings)"
ethtool -a "$eth" > /run/pause || :
if [ "$driver" = e1000 ]; then
    ethtool -t "$eth" online > /run/test || fail "the test fails: $(cat /run/test)"
    ethtool -t "$eth" offline > /run/test || fail "the test fails: $(cat /run/test)"
    soon carrier
    still
    ethtool -r "$eth"
    still
    for speed in 10 100; do
        ethtool -s "$eth" speed $speed duplex full autoneg off
        still
    done
    ethtool -s "$eth" autoneg on
    still
fi
