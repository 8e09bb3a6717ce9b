# What the programs of sg3-utils find at a SCSI disk, and what becomes of it. With $full,
# also what other hypervisors' disks lack.

step "what it is"
tool sg_turs "$scratch_disk"
tool sg_inq "$scratch_disk" > /run/inquiry
grep -q 'Peripheral device type: disk' /run/inquiry
tool sg_vpd -p sv "$scratch_disk" > /run/pages
for page in sn di bl lbpv; do
    tool sg_vpd -p $page "$scratch_disk" > /run/page || fail "VPD page $page: $(cat /run/page)"
done
tool sg_readcap --16 "$scratch_disk" > /run/capacity
grep -q "Number of logical blocks=${scratch#* }" /run/capacity || fail "$(cat /run/capacity)"
tool sg_readcap "$small_disk" > /run/capacity
grep -q 'Logical block length=4096' /run/capacity || fail "$(cat /run/capacity)"
tool sg_luns "$scratch_disk" > /run/luns
grep -q '0000000000000000' /run/luns || fail "$(cat /run/luns)"
tool sg_modes "$scratch_disk" > /run/modes
[ -z "$full" ] || tool sg_opcodes "$scratch_disk" > /run/opcodes
tool sg_requests "$scratch_disk" > /run/sense

step "what it does"
pattern 65536 sg > /run/image
dd if=/run/image of="$scratch_disk" bs=64k oflag=direct
tool sg_dd if="$scratch_disk" of=/run/copy bs=512 count=128 blk_sgio=1 > /run/out 2>&1 || fail "$(cat /run/out)"
cmp /t/run/copy /run/image
tool sg_verify --lba=0 --count=128 "$scratch_disk"
tool sg_sync "$scratch_disk"
tool sg_start --stop "$scratch_disk"
tool sg_start --start "$scratch_disk"
tool sg_write_same --16 --lba=8 --num=16 --xferlen=512 --in=/dev/zero "$scratch_disk"
dd if=/dev/zero of=/run/image bs=512 seek=8 count=16 conv=notrunc
tool sg_unmap --force --lba=64 --num=32 "$scratch_disk"
dd if=/dev/zero of=/run/image bs=512 seek=64 count=32 conv=notrunc
dd if="$scratch_disk" bs=64k count=1 iflag=direct | cmp - /run/image
if [ -n "$full" ]; then
    step "beyond the end"
    if tool sg_verify --lba="${scratch#* }" --count=1 "$scratch_disk"; then fail "that was verified"; fi
    step "persistent reservations"
    tool sg_persist --out --register --param-sark=abc "$scratch_disk" > /run/out
    tool sg_persist --out --reserve --param-rk=abc --prout-type=3 "$scratch_disk" > /run/out
    tool sg_persist --in --read-keys "$scratch_disk" > /run/keys
    grep -q 0xabc /run/keys || fail "$(cat /run/keys)"
    tool sg_persist --in --read-reservation "$scratch_disk" > /run/held
    grep -q 'Exclusive Access' /run/held || fail "$(cat /run/held)"
    tool sg_persist --out --release --param-rk=abc --prout-type=3 "$scratch_disk" > /run/out
    tool sg_persist --out --register --param-rk=abc --param-sark=0 "$scratch_disk" > /run/out
fi

step "resets under load"
generic=$(ls "/sys/block/${scratch_disk#/dev/}/device/scsi_generic")
for kind in $resets; do
    # Linux repeats what a reset has ended.
    dd if="$scratch_disk" of=/dev/null bs=4k count=2048 iflag=direct &
    reader=$!
    usleep 100000
    tool sg_reset "--$kind" "/dev/$generic"
    wait $reader
    dd if="$scratch_disk" bs=64k count=1 iflag=direct | cmp - /run/image
done
