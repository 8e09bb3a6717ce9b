# In the test bed: measures in Linux guests, whose parts are in the folder $2. $3 says what.

program=$1
files=$2

# measure NAME OPTION…: leaves the results in NAME.json.
measure() {
    name=$1
    shift
    "$program" run --guest linux --guest-files "$files" --guest-append "$QUICK" --quick --busy-poll 0 --out /run/out \
        --export-json "$name.json" "$@"
}

case $3 in
paths)
    measure paths --device virtio-blk,backend=null --device ahci,backend=null --filter randread/4k/qd1
    ;;
data)
    measure held --device virtio-scsi,backend=memory --filter event/randread/4k/qd32
    measure written --device pvscsi,path=disk.img,write=on --filter trap/randwrite/4k/qd32
    measure passed --device vfio,host=00:10.0,bind=on,overwrite=on --filter randread/4k/qd1
    ;;
networks)
    measure sent --device virtio-net --filter event/tcp-tx
    measure received --device e1000 --filter event/tcp-rx
    measure returned --device vmxnet3 --filter trap/tcp-rr
    ;;
esac
