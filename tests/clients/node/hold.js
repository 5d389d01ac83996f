// Node's etcd3 contends for a lock or an election: `hold.js lock|election NAME TTL URL[,...]`.
// Reports to the judge of tests/it/lease_holders/judge.rs on standard output and input until that answers stop.
'use strict';

const readline = require('readline');
const { Etcd3 } = require('etcd3');

const MOMENT_MS = 20;
// A campaign whose first request was sent twice waits for the keys created after its own, whose owners wait for it: this
// client takes the revision of the second response for the one of its key. The campaign is given up and repeated.
const PATIENCE_MS = 10_000;
const [kind, name, ttl, endpoints] = process.argv.slice(2);
const client = new Etcd3({ hosts: endpoints.split(',') });
const judge = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const pause = () => new Promise((done) => setTimeout(done, Math.random() * MOMENT_MS));

function tooLong() {
  return new Promise((_, fail) => setTimeout(() => fail(new Error('too long')), PATIENCE_MS).unref());
}

/** Says a line to the judge; whether to go on is the judge's answer. */
async function tell(line) {
  process.stdout.write(`${line}\n`);
  const { done, value } = await judge.next();
  if (done) throw new Error('the judge is gone');
  return value.trim() === 'go';
}

/** Asks until there is an answer: the server may be away for a moment. */
async function surely(ask) {
  for (;;) {
    try {
      return await ask();
    } catch {
      await pause();
    }
  }
}

/** A lock is one key, which is there while somebody holds it. */
async function takeLock() {
  const key = `/locks/${name}`;
  const lock = client.lock(key).ttl(Number(ttl));
  try {
    await lock.acquire();
    return { key, lease: await lock.leaseId(), give: () => lock.release() };
  } catch {
    // Another session holds it, or the server is down; the attempt may leave its lease behind.
    await lock.release().catch(() => undefined);
    return undefined;
  }
}

/** Candidates queue up below a prefix. */
async function takeOffice() {
  const campaign = client.election(name, Number(ttl)).campaign(String(process.pid));
  campaign.on('error', () => undefined);
  try {
    await Promise.race([campaign.wait(), tooLong()]);
    const key = await campaign.getCampaignKey();
    return { key, lease: key.slice(key.lastIndexOf('/') + 1), give: () => resign(campaign) };
  } catch {
    await resign(campaign).catch(() => undefined);
    return undefined;
  }
}

/** The campaign says that it resigned even if its lease could not be revoked: that is done here. */
async function resign(campaign) {
  await campaign.resign().catch(() => undefined);
  await campaign.lease.revoke();
}

/** A number is read and written one higher, on condition that our key is still there. */
async function hold({ key, lease }) {
  const own = (await surely(() => client.get(key).exec())).kvs[0];
  if (!own || own.lease !== lease) return tell('missed');
  const revision = own.create_revision;
  if (!(await tell(`enter ${revision}`))) return false;
  const counter = `count/${name}`;
  const count = Number((await surely(() => client.get(counter).string())) || 0) + 1;
  const written = await surely(() =>
    client
      .if(key, 'Create', '==', revision)
      .and(key, 'Lease', '==', lease)
      .then(client.put(counter).value(String(count)))
      .commit(),
  );
  return tell(written.succeeded ? `leave ${count}` : 'lost');
}

async function main() {
  for (let goesOn = true; goesOn; ) {
    const held = await (kind === 'lock' ? takeLock() : takeOffice());
    if (held) {
      goesOn = await hold(held);
      await surely(held.give);
    }
    if (kind === 'lock') await pause();
  }
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
