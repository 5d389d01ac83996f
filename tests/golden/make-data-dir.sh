#!/bin/bash
# Makes a data directory that tests/it/data_dirs.rs opens, with the given server: one of the version that is to be kept.
# Usage: make-data-dir.sh SERVER ETCDCTL ARCHIVE. An archive that exists is not replaced: each version keeps its own.
set -eu
server=$1 ctl=$2 archive=$3
[ -e "$archive" ] && { echo "$archive exists: a version's directory is kept as it is" >&2; exit 1; }
work=$(mktemp -d)
client=127.0.0.1:$((RANDOM % 10000 + 40000)) peer=127.0.0.1:$((RANDOM % 10000 + 50000))
pid=
touch "$work/log"

start() {
    "$server" --name pillar --data-dir "$work/data" --listen-client-urls "http://$client" \
        --advertise-client-urls http://127.0.0.1:12379 --listen-peer-urls "http://$peer" \
        --initial-advertise-peer-urls http://127.0.0.1:12380 \
        --initial-cluster pillar=http://127.0.0.1:12380 "$@" 2>>"$work/log" &
    pid=$!
    until grep -q "ready to serve client requests" "$work/log"; do
        kill -0 $pid && sleep 0.1
    done
}
stop() {
    kill "-$1" $pid
    wait $pid || true
    mv "$work/log" "$work/log.$1"
    touch "$work/log"
}
etcdctl() {
    "$ctl" --endpoints "$client" "$@" >/dev/null
}
post() {
    curl -sf "http://$client/v3/$1" -d "$2" >/dev/null
}
large() {
    printf "$1%.0s" $(seq 2000)
}

start
for i in $(seq 40); do
    etcdctl put "key/$(printf %02d $i)" "first $i"
done
etcdctl del key/07
etcdctl put large "$(large a)"
etcdctl put large "$(large b)"
post lease/grant '{"TTL":"86400000","ID":"4242"}'
post lease/grant '{"TTL":"86400001","ID":"4243"}'
etcdctl put --lease=1092 leased/a "by 4242"
etcdctl put --lease=1092 leased/b "by 4242"
etcdctl compact 20
etcdctl member add gone --learner --peer-urls=http://127.0.0.1:12381
gone=$("$ctl" --endpoints "$client" member list | grep 12381 | cut -d, -f1)
etcdctl member remove "$gone"
stop TERM
# From here on everything is written to the log alone.
start
for i in $(seq 10); do
    etcdctl put "key/$(printf %02d $i)" "second $i"
done
etcdctl del key/09
etcdctl put large "$(large c)"
etcdctl txn <<'TXN'
mod("key/01") > "2"

put txn/then yes
del key/02

put txn/else no

TXN
post lease/revoke '{"ID":"4243"}'
post lease/grant '{"TTL":"86400002","ID":"4244"}'
etcdctl put --lease=1094 leased/c "by 4244"
etcdctl member add waits --learner --peer-urls=http://127.0.0.1:12382
etcdctl compact 44
etcdctl put last "of all"
own=$("$ctl" --endpoints "$client" member list -w json | grep -o '"ID":[0-9]*,"name"' | grep -o '[0-9]*')
post maintenance/alarm "{\"action\":\"ACTIVATE\",\"memberID\":\"$own\",\"alarm\":\"NOSPACE\"}"
"$ctl" --endpoints "$client" endpoint hashkv -w json
"$ctl" --endpoints "$client" member list
"$ctl" --endpoints "$client" alarm list
"$ctl" --endpoints "$client" get "" --prefix -w fields | grep -v -e '"Value"' | head -200
stop KILL
# Blocks of zeros become holes, which are holes again when it is unpacked.
rm -f "$work/data/member/reserve" "$work"/data/member/wal/*.tmp
cp -r --sparse=always "$work/data" "$work/holes"
tar --sparse --transform='s/^holes/data/' --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
    -C "$work" -cf - holes | gzip -9n >"$archive"
ls -l "$archive"
rm -rf "$work"
