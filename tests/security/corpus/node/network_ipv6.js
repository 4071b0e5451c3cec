// tries: IPv6 and UDP
// passes: there is no way out
// fails: a connection opens, or a datagram is sent to another machine
const net = require('net');
const dgram = require('dgram');
const os = require('os');
const worked = [], reasons = new Set();
const outside = Object.values(os.networkInterfaces()).flat().filter(address => !address.internal);
if (outside.length) worked.push('addresses ' + outside.map(address => address.address).join(' '));
const connect = host => new Promise(done => {
  const socket = net.connect({ host, port: 80, timeout: 3000 });
  socket.on('connect', () => { worked.push(host); socket.destroy(); done(); });
  socket.on('timeout', () => { reasons.add('timeout'); socket.destroy(); done(); });
  socket.on('error', error => { reasons.add(error.code); done(); });
});
const send = (type, host) => new Promise(done => {
  const socket = dgram.createSocket(type);
  socket.on('error', error => { reasons.add(error.code); done(); });
  socket.send('x', 53, host, error => {
    if (error) reasons.add(error.code); else worked.push(`datagram to ${host}`);
    socket.close();
    done();
  });
});
(async () => {
  for (const host of ['2606:4700:4700::1111', 'fe80::1%lo', 'fd00::1', 'ff02::1%lo']) await connect(host);
  await send('udp4', '8.8.8.8');
  await send('udp6', '2001:4860:4860::8888');
  await send('udp4', '255.255.255.255');
  console.log(worked.length ? `ISOLATION fail: ${worked.join(', ')}` : `ISOLATION pass: ${[...reasons].sort().join(', ')}`);
})();
