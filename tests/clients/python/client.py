"""The Python client etcd3 against a running server: `client.py PORT`.

Prints one line per story; the first one that does not hold ends the program with code 1.
"""

import sys
import threading
import time

import etcd3


def key_value(client):
    client.put("py/a", "1")
    client.put("py/b", "2")
    value, meta = client.get("py/a")
    assert value == b"1" and meta.version == 1, (value, meta.version)
    pairs = [(meta.key, value) for value, meta in client.get_prefix("py/")]
    assert pairs == [(b"py/a", b"1"), (b"py/b", b"2")], pairs
    down = [meta.key for _, meta in client.get_prefix("py/", sort_order="descend")]
    assert down == [b"py/b", b"py/a"], down
    assert client.replace("py/a", "1", "3")
    assert not client.replace("py/a", "1", "4")
    assert client.put_if_not_exists("py/c", "5")
    assert not client.put_if_not_exists("py/c", "6")
    assert client.delete("py/a")
    assert not client.delete("py/a")
    assert client.delete_prefix("py/").deleted == 2
    assert client.get("py/b") == (None, None)


def transactions(client):
    client.put("txn", "old")
    done, answers = client.transaction(
        compare=[
            client.transactions.value("txn") == "old",
            client.transactions.version("txn") > 0,
            client.transactions.create("none") == 0,
        ],
        success=[client.transactions.put("txn", "new"), client.transactions.get("txn")],
        failure=[client.transactions.delete("txn")],
    )
    assert done, answers
    assert answers[1][0][0] == b"new", answers


def watches(client):
    events, cancel = client.watch_prefix("watched/")
    seen = []

    def collect():
        for event in events:
            seen.append((type(event).__name__, event.key, event.value))
            if len(seen) == 21:
                return

    reader = threading.Thread(target=collect, daemon=True)
    reader.start()
    for number in range(20):
        client.put(f"watched/{number:02}", str(number))
    client.delete("watched/00")
    reader.join(10)
    cancel()
    puts = [("PutEvent", b"watched/%02d" % number, b"%d" % number) for number in range(20)]
    assert seen == puts + [("DeleteEvent", b"watched/00", b"")], seen


def the_past(client):
    first = client.put("history", "1").header.revision
    client.put("history", "2")
    events, cancel = client.watch("history", start_revision=first)
    values = [next(events).value, next(events).value]
    cancel()
    assert values == [b"1", b"2"], values


def leases(client):
    lease = client.lease(2)
    client.put("leased", "x", lease=lease)
    assert lease.keys == [b"leased"], lease.keys
    assert lease.granted_ttl == lease.ttl, (lease.granted_ttl, lease.ttl)
    assert lease.refresh()[0].TTL == lease.ttl
    until = time.time() + 10
    while client.get("leased")[0] is not None:
        assert time.time() < until, "the lease does not run out"
        time.sleep(0.1)
    revoked = client.lease(600)
    client.put("leased", "y", lease=revoked)
    revoked.revoke()
    assert client.get("leased")[0] is None


def locks(client):
    lock = client.lock("lock", ttl=10)
    assert lock.acquire(timeout=5)
    assert lock.is_acquired()
    other = client.lock("lock", ttl=10)
    assert not other.acquire(timeout=1)
    assert lock.release()
    assert other.acquire(timeout=5)
    assert other.release()


def errors(client):
    try:
        client.put("", "x")
    except Exception as error:
        assert "key is not provided" in str(error), error
    else:
        raise AssertionError("an empty key was taken")


def compaction(client):
    client.put("compacted", "1")
    revision = client.put("compacted", "2").header.revision
    client.compact(revision, physical=True)
    assert client.get("compacted")[0] == b"2"


def cluster(client):
    members = list(client.members)
    assert len(members) == 1 and members[0].name, members
    status = client.status()
    assert status.version == "3.7.1", status.version
    assert status.leader.id == members[0].id, status.leader
    assert client.hash() is not None
    assert list(client.list_alarms()) == []


STORIES = [
    key_value,
    transactions,
    watches,
    the_past,
    leases,
    locks,
    errors,
    compaction,
    cluster,
]


def main():
    client = etcd3.client(host="127.0.0.1", port=int(sys.argv[1]), timeout=15)
    for story in STORIES:
        try:
            story(client)
        except BaseException as error:
            print(f"{story.__name__}: {error!r}", file=sys.stderr)
            raise
        print("ok", story.__name__)
    client.close()


if __name__ == "__main__":
    main()
