#!/bin/sh
# Whether comparisons of two builds keep their promise on this machine: COUNT comparisons of a build with itself, and
# COUNT with the same build slowed down by 5 %, by turns. The machine should have nothing else to do.
#
#   docs/measurements/ab.sh [PROGRAM [DIRECTORY]]
#
# COUNT (20), WHAT (options of paraslot compare) and DRAG (nanoseconds; found out if not given) can be set in the
# environment. What is in DIRECTORY already is not done again.
set -eu

program=${1:-target/release/paraslot}
place=${2:-target/paraslot/ab}
count=${COUNT:-20}
what=${WHAT:---path event --filter randread/4k/qd1/poll --time 150 --warmup 30
    --device virtio-blk,backend=memory --device pvscsi,backend=memory}
mkdir -p "$place"

# compare NAME OPTION...: one comparison, with its status beside it.
compare() {
    name=$1
    shift
    [ -e "$place/$name.status" ] && return
    status=0
    # What has several words is meant to.
    # shellcheck disable=SC2086
    "$program" compare --builds "$program" $what --out "$place/work" \
        --export-json "$place/$name.json" "$@" >"$place/$name.txt" 2>"$place/$name.log" || status=$?
    case $status in
    0 | 3) echo "$status" >"$place/$name.status" ;;
    *)
        cat "$place/$name.log" >&2
        exit "$status"
        ;;
    esac
    echo "$name: $(grep '^Of ' "$place/$name.txt")"
}

# The least that any measurement is slowed down by a drag of 2000 ns, and from that the drag that makes it 5 %.
if [ -z "${DRAG:-}" ]; then
    compare calibration --rounds 31 --drag 2000
    DRAG=$(awk '
        /"ratio":/ { gsub(/[^0-9.e-]/, "", $2); if ($2 > most) most = $2 }
        END {
            if (most <= 0 || most >= 0.99) exit 1
            printf "%d\n", 2000 * 0.05 / (1 / most - 1) + 0.999
        }' "$place/calibration.json") || {
        echo "a drag of 2000 ns slows nothing down: set DRAG" >&2
        exit 1
    }
fi
echo "drag: $DRAG ns"

number=1
while [ "$number" -le "$count" ]; do
    compare "same-$number"
    compare "slowed-$number" --drag "$DRAG"
    number=$((number + 1))
done

# ended KIND: how many comparisons ended with status 3; found KIND FINDING: how many measurements were found so.
ended() { cat "$place/$1"-*.status | grep -c '^3$' || true; }
found() { cat "$place/$1"-*.json | grep -c "\"finding\": \"$2\"" || true; }
measured() { cat "$place/$1"-*.json | grep -c '"finding": ' || true; }
ratio() {
    cat "$place/$1"-*.json | awk '/"ratio":/ { gsub(/[^0-9.e-]/, "", $2); print $2 }' | sort -g |
        awk '{ all[NR] = $1 } END { print "ratios from " all[1] " by " all[int((NR + 1) / 2)] " to " all[NR] }'
}
for kind in same slowed; do
    echo "$kind: $(ended $kind) of $count comparisons with status 3;" \
        "$(found $kind slower) slower and $(found $kind faster) faster of $(measured $kind) measurements;" \
        "$(ratio $kind)"
done
