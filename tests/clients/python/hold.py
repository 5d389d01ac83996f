"""Python's etcd3 contends for a lock: `hold.py lock NAME TTL URL[,...]`.

Talks to the judge of tests/it/holders.rs on standard output and input until that says stop.
"""

import os
import random
import sys
import time

import etcd3

MOMENT_SECONDS = 0.02


def tell(line):
    """Says a line to the judge; whether to go on is the judge's answer."""
    print(line, flush=True)
    answer = sys.stdin.readline().strip()
    if not answer:
        sys.exit("the judge is gone")
    return answer == "go"


class Contender:
    def __init__(self, name, ttl, endpoints):
        self.name, self.ttl = name, ttl
        self.endpoints = [url.removeprefix("http://").split(":") for url in endpoints.split(",")]
        # This client uses one address; another one is taken when it does not answer.
        self.next = os.getpid()
        self.client = None
        self.connect()

    def connect(self):
        if self.client is not None:
            self.client.close()
        host, port = self.endpoints[self.next % len(self.endpoints)]
        self.next += 1
        self.client = etcd3.client(host=host, port=int(port), timeout=2)

    def surely(self, ask):
        """Asks until there is an answer: the server may be away for a moment."""
        while True:
            try:
                return ask(self.client)
            except etcd3.exceptions.Etcd3Exception:
                time.sleep(MOMENT_SECONDS)
                self.connect()

    def contend(self):
        """Takes the lock once and gives it back; whether to go on."""
        lock = self.client.lock(self.name, ttl=self.ttl)
        try:
            # The client waits by a watch that begins after its read, and so may have missed the deletion.
            if not lock.acquire(timeout=0.5):
                return True
        except Exception:
            # The server is down. The wait of this client then fails in ways of its own, an
            # AttributeError among them.
            time.sleep(MOMENT_SECONDS)
            self.connect()
            return True
        goes_on = self.hold(lock)

        def release(client):
            lock.etcd_client = client
            lock.release()

        self.surely(release)
        return goes_on

    def hold(self, lock):
        """A number is read and written one higher, on condition that our key is still there."""
        value, own = self.surely(lambda client: client.get(lock.key))
        if value != lock.uuid:
            return tell("missed")
        revision = own.create_revision
        if not tell(f"enter {revision}"):
            return False
        counter = f"count/{self.name}"
        before, _ = self.surely(lambda client: client.get(counter))
        count = int(before or 0) + 1
        written, _ = self.surely(
            lambda client: client.transaction(
                compare=[
                    client.transactions.create(lock.key) == revision,
                    client.transactions.value(lock.key) == lock.uuid,
                ],
                success=[client.transactions.put(counter, str(count))],
                failure=[],
            )
        )
        return tell(f"leave {count}" if written else "lost")


def main():
    _lock, name, ttl, endpoints = sys.argv[1:]
    contender = Contender(name, int(ttl), endpoints)
    while contender.contend():
        # The last holder must not come first again.
        time.sleep(random.uniform(0, MOMENT_SECONDS))


if __name__ == "__main__":
    main()
