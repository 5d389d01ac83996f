"""The Python client etcd3 logs in: `users.py PORT USER PASSWORD`.

It sends the token that it gets over TLS alone. Ends with code 1 if a story does not hold.
"""

import sys

import etcd3


def main():
    port, user, password = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    client = etcd3.client(port=port, user=user, password=password)
    assert client.call_credentials is not None
    try:
        etcd3.client(port=port, user=user, password=password + "x")
    except Exception as refused:  # Which one depends on the version of the client.
        assert "authentication failed" in str(refused), refused
    else:
        raise AssertionError("a wrong password was taken")


main()
