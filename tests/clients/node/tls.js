// Node's etcd3 over TLS with a certificate and a user: `tls.js URL CA CERT KEY USER PASSWORD`.
'use strict';

const assert = require('node:assert');
const { readFileSync } = require('node:fs');
const { Etcd3 } = require('etcd3');

const [url, ca, certificate, key, username, password] = process.argv.slice(2);
const credentials = {
  rootCertificate: readFileSync(ca),
  certChain: readFileSync(certificate),
  privateKey: readFileSync(key),
};
const connect = (secret) => new Etcd3({ hosts: url, credentials, auth: { username, password: secret } });

async function main() {
  const client = connect(password);
  const watcher = await client.watch().key('node/a').create();
  const seen = new Promise((done) => watcher.on('put', (event) => done(event.value.toString())));
  await client.put('node/a').value('1');
  assert.strictEqual(await client.get('node/a').string(), '1');
  assert.strictEqual(await seen, '1');
  await watcher.cancel();
  const lease = client.lease(60);
  await lease.put('node/b').value('x'.repeat(100_000));
  assert.strictEqual((await client.get('node/b').string()).length, 100_000);
  await lease.revoke();
  assert.strictEqual(await client.get('node/b').string(), null);
  const stranger = connect(`${password}x`);
  await assert.rejects(stranger.get('node/a').string(), /authentication failed/);
  console.log('put, get, watch, lease over TLS');
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
