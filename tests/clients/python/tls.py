"""The Python client etcd3 over TLS with a certificate of its own: `tls.py PORT CA CERT KEY [USER PASSWORD]`."""

import sys

import etcd3

port, ca, cert, key = sys.argv[1:5]
user, password = sys.argv[5:] or (None, None)
client = etcd3.client(
    host="localhost",
    port=int(port),
    ca_cert=ca,
    cert_cert=cert,
    cert_key=key,
    timeout=30,
    user=user,
    password=password,
)
events, cancel = client.watch("py/a")
client.put("py/a", "1")
value, meta = client.get("py/a")
assert value == b"1" and meta.version == 1, (value, meta.version)
event = next(events)
assert (event.key, event.value) == (b"py/a", b"1"), event
cancel()
lease = client.lease(60)
client.put("py/b", "x" * 100_000, lease=lease)
assert client.get("py/b")[0] == b"x" * 100_000
lease.revoke()
assert client.get("py/b")[0] is None
print("put, get, watch, lease over TLS")
