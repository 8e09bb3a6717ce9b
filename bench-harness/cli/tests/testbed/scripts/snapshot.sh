# In the test bed: boots a guest, saves it while it writes, and has it go on. $2 is the kernel, $3 the initial
# RAM disk, $4 the image of the root disk.

# An attempt before may have left them.
rm -rf first.img second.img console saved
truncate -s 16M first.img second.img
devices="--device virtio-blk,path=first.img --device ahci,path=second.img,addr=1f
    --device virtio-scsi,readonly=on,path=$4 --device e1000 --device virtio-net"

# The devices are words.
"$1" boot --kernel "$2" --initrd "$3" --memory 300M --snapshot saved $devices \
    --append "console=ttyS0 quiet loglevel=1 panic=-1 $QUICK root=LABEL=paraslot" >console 2>&1 &
guest=$!
until grep -q 'paraslot: mark writing' console; do
    kill -0 "$guest"
    sleep 0.02
done
kill -USR2 "$guest"
status=0
wait "$guest" || status=$?
cat console
echo "saved with status $status"

status=0
"$1" boot --restore saved --path trap $devices </dev/null || status=$?
echo "restored with status $status"
status=0
"$1" boot --restore saved --device e1000 </dev/null 2>&1 || status=$?
echo "another with status $status"
