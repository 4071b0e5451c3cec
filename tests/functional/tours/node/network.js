// The network that there is: this machine's own.
'use strict';
const assert = require('assert');
const dgram = require('dgram');
const dns = require('dns');
const http = require('http');
const http2 = require('http2');
const net = require('net');
const os = require('os');
const { once } = require('events');
const tls = require('tls');

async function talk(address) {
  const server = net.createServer((socket) => socket.pipe(socket)).listen(address);
  await once(server, 'listening');
  const client = net.connect(typeof address === 'string' ? address : server.address());
  client.setNoDelay?.(true);
  client.end('echo');
  let said = '';
  for await (const chunk of client) said += chunk;
  assert.strictEqual(said, 'echo');
  server.close();
}

async function tour() {
  await talk({ host: '127.0.0.1', port: 0 });
  await talk('/tmp/tour-node.sock');
  const receiver = dgram.createSocket('udp4').bind(0, '127.0.0.1');
  await once(receiver, 'listening');
  const sender = dgram.createSocket('udp4');
  sender.send('datagram', receiver.address().port, '127.0.0.1');
  assert.strictEqual((await once(receiver, 'message'))[0].toString(), 'datagram');
  sender.close();
  receiver.close();
  assert((await dns.promises.lookup('localhost')).address);
  assert('lo' in os.networkInterfaces());

  const server = http.createServer((request, response) => response.end(request.url)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${server.address().port}`;
  assert.strictEqual(await (await fetch(`${url}/fetched`)).text(), '/fetched');
  const [response] = await once(http.get(`${url}/got`), 'response');
  let body = '';
  for await (const chunk of response) body += chunk;
  assert.strictEqual(body, '/got');
  server.closeAllConnections();
  server.close();

  const modern = http2.createServer((request, response) => response.end('two')).listen(0, '127.0.0.1');
  await once(modern, 'listening');
  const session = http2.connect(`http://127.0.0.1:${modern.address().port}`);
  const stream = session.request({ ':path': '/' });
  body = '';
  for await (const chunk of stream) body += chunk;
  assert.strictEqual(body, 'two');
  session.close();
  modern.close();
  tls.createSecureContext();
  console.log('done');
}
tour();
