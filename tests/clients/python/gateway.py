"""The Python client etcd3gw, which speaks JSON over HTTP, against a running server: `gateway.py PORT`.

Prints one line per story; the first one that does not hold ends the program with code 1.
"""

import sys
import threading

import etcd3gw


def key_value(client):
    client.put("gw/a", "1")
    assert client.get("gw/a") == [b"1"], client.get("gw/a")
    assert client.create("gw/b", "x")
    assert not client.create("gw/b", "y")
    assert client.replace("gw/a", "1", "2")
    assert not client.replace("gw/a", "1", "3")
    found = [(meta["key"], value) for value, meta in client.get_prefix("gw/")]
    assert found == [(b"gw/a", b"2"), (b"gw/b", b"x")], found
    assert client.delete("gw/a")
    assert not client.delete("gw/a")
    assert client.delete_prefix("gw/")
    assert client.get("gw/b") == []


def leases(client):
    lease = client.lease(ttl=60)
    client.put("leased", "x", lease=lease)
    assert lease.keys() == [b"leased"], lease.keys()
    assert 0 < lease.ttl() <= 60, lease.ttl()
    assert lease.refresh() == 60
    assert lease.revoke()
    assert client.get("leased") == []


def watches(client):
    events, cancel = client.watch("watched")
    writer = threading.Timer(0.3, write, [client])
    writer.start()
    seen = []
    for event in events:
        seen.append((event.get("type", "PUT"), event["kv"].get("value")))
        if len(seen) == 3:
            cancel()
            break
    writer.join()
    assert seen == [("PUT", b"1"), ("PUT", b"2"), ("DELETE", None)], seen


def write(client):
    client.put("watched", "1")
    client.put("watched", "2")
    client.delete("watched")


def locks(client):
    held = client.lock("locked", ttl=20)
    assert held.acquire()
    other = client.lock("locked", ttl=20)
    assert not other.acquire()
    assert held.release()
    assert other.acquire()
    assert other.release()


def errors(client):
    try:
        client.put("", "x")
    except etcd3gw.exceptions.Etcd3Exception as error:
        assert "key is not provided" in error.detail_text, error.detail_text
    else:
        raise AssertionError("an empty key was put")


def members(client):
    assert client.status()["version"].startswith("3."), client.status()
    assert len(client.members()) == 1, client.members()


def main():
    client = etcd3gw.client(host="127.0.0.1", port=int(sys.argv[1]), api_path="/v3/")
    for story in (key_value, leases, watches, locks, errors, members):
        story(client)
        print("ok", story.__name__)


if __name__ == "__main__":
    main()
