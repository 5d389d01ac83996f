"""The Python client etcd3 with a user: `users.py PORT USER PASSWORD`.

Ends with code 1 if a story does not hold.
"""

import sys
import threading

import etcd3


def main():
    port, user, password = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    client = etcd3.client(port=port, user=user, password=password)
    client.put("py/user", "1")
    value, _ = client.get("py/user")
    assert value == b"1", value
    lease = client.lease(60)
    client.put("py/leased", "2", lease)
    assert lease.refresh()[0].TTL == 60
    events, cancel = client.watch("py/user")
    seen = []
    reader = threading.Thread(target=lambda: seen.append(next(events).value), daemon=True)
    reader.start()
    client.put("py/user", "3")
    reader.join(30)
    cancel()
    assert seen == [b"3"], seen
    with client.lock("py/lock", ttl=30):
        client.delete("py/user")
    try:
        etcd3.client(port=port, user=user, password=password + "x")
    except Exception as refused:  # Which one depends on the version of the client.
        assert "authentication failed" in str(refused), refused
    else:
        raise AssertionError("a wrong password was taken")


main()
