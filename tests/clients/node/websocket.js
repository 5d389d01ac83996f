// The client `ws` against the gateway: `websocket.js PORT`. Prints the events of each conversation, a line each.
'use strict';

const http = require('http');
const { once } = require('events');
const WebSocket = require('ws');

const port = process.argv[2];
/** Nothing is said for so long: nothing will be. */
const QUIET_MS = 400;
const PATIENCE_MS = 20_000;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const base64 = (text) => Buffer.from(text).toString('base64');
const say = (what, ...more) => console.log([what, ...more].join(' '));

/** JSON without blanks, and without what belongs to the process. */
const evened = (text) =>
  JSON.stringify(JSON.parse(text), (name, value) => (name === 'raft_term' ? undefined : value));

async function post(path, body) {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
    method: 'POST',
    body: JSON.stringify(body),
  });
  return answer.json();
}

/**
 * Opens, does the steps, and closes unless the server has. A step is a text or bytes to send, a number of messages
 * to wait for, or a function.
 */
async function talk(title, path, steps, { protocols, headers } = {}) {
  say(`## ${title}`);
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, protocols, { headers });
  let heard = 0;
  socket.on('message', (data, isBinary) => {
    heard += 1;
    say(isBinary ? 'bytes' : 'text', evened(data.toString()));
  });
  socket.on('pong', (data) => say('pong', data));
  socket.on('error', (error) => say('error', error.message));
  const closed = new Promise((done) => socket.on('close', done)).then((code) => say('closed', code));
  const open = new Promise((done) => {
    socket.on('open', () => {
      // At once: a message may have come with the response.
      say('open', JSON.stringify(socket.protocol));
      done(true);
    });
  });
  const opened = await Promise.race([open, closed]);
  for (const step of opened ? steps : []) {
    if (typeof step === 'function') await step(socket);
    else if (typeof step !== 'number') socket.send(step);
    else {
      const until = Date.now() + PATIENCE_MS;
      while (heard < step && Date.now() < until) await sleep(5);
      if (heard < step) say('still waits for message', step);
    }
  }
  await Promise.race([closed, sleep(QUIET_MS)]);
  if (socket.readyState === WebSocket.OPEN) socket.close(1000);
  await closed;
}

/** Asks for an upgrade with these headers; what is said if it is refused. */
async function upgrade(title, method, headers) {
  say(`## ${title}`);
  const request = http.request({ port, host: '127.0.0.1', method, path: '/v3/watch', headers });
  request.end();
  const [kind, answer] = await Promise.race(
    ['response', 'upgrade'].map((kind) => once(request, kind).then(([answer]) => [kind, answer])),
  );
  say(kind, answer.statusCode, answer.headers['sec-websocket-version'], answer.headers['content-type']);
  if (kind === 'upgrade') return answer.socket.destroy();
  answer.setEncoding('utf8');
  for await (const text of answer) say('body', JSON.stringify(text));
}

const watch = (key) => JSON.stringify({ create_request: { key: base64(key) } });
const put = (key, value) => () => post('/v3/kv/put', { key: base64(key), value: base64(value) });

async function main() {
  await talk('a watch', '/v3/watch', [watch('a'), 1, put('a', '1'), 2, put('b', '2'), put('a', '<3>'), 3]);
  await talk('two watches and an end', '/v3/watch', [
    watch('a'), 1, watch('b'), 2, put('b', '4'), 3, '{"cancel_request":{"watch_id":0}}', 4, put('a', '5'), put('b', '6'), 5,
  ]);
  await talk('progress', '/v3/watch', [watch('a'), 1, '{"progress_request":{}}', 2]);
  await talk('the past', '/v3/watch', ['{"create_request":{"key":"YQ==","start_revision":"2"}}', 2]);
  await talk('bytes', '/v3/watch', [Buffer.from(watch('a')), 1]);
  await talk('a request in two messages', '/v3/watch', ['{"create_request":{', '"key":"YQ=="}}', 1]);
  await talk('two requests in one message', '/v3/watch', [watch('a') + watch('b'), 2]);
  await talk('a message in three frames', '/v3/watch', [
    (socket) => {
      socket.send('{"create_request"', { fin: false });
      socket.send(':{"key":', { fin: false });
      socket.send('"YQ=="}}', { fin: true });
    },
    1,
  ]);
  await talk('a ping', '/v3/watch', [watch('a'), 1, (socket) => socket.ping('there?')]);
  await talk('a large value', '/v3/watch', [watch('large'), 1, put('large', 'x'.repeat(300_000)), 2]);
  await talk('a lease that is kept alive', '/v3/lease/keepalive', [
    () => post('/v3/lease/grant', { ID: '77', TTL: '600' }),
    '{"ID":"77"}', 1, '{"ID":"77"}', 2, '{"ID":"78"}', 3,
  ]);
  await talk('an old path', '/v3beta/watch', [watch('a'), 1]);
  await talk('another method', '/v3/watch?method=GET', [watch('a'), 1]);
  await talk('no path', '/v3/nothing', []);
  // A call that takes one request is left out: etcd makes it, or not, when the connection ends.
  await talk('a protocol', '/v3/watch', [watch('a'), 1], { protocols: ['chat'] });
  await talk('a token without need', '/v3/watch', [watch('a'), 1], { protocols: ['Bearer', 'token'] });

  const key = 'dGhlIHNhbXBsZSBub25jZQ==';
  const good = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': key };
  await upgrade('an upgrade', 'GET', good);
  await upgrade('an upgrade of a POST', 'POST', good);
  await upgrade('an old version', 'GET', { ...good, 'Sec-WebSocket-Version': '8' });
  await upgrade('a short key', 'GET', { ...good, 'Sec-WebSocket-Key': 'eA==' });
  const { 'Sec-WebSocket-Key': _, ...keyless } = good;
  await upgrade('no key', 'GET', keyless);
  await upgrade('to something else', 'GET', { ...good, Upgrade: 'h2c' });
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
