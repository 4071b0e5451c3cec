// Random numbers: as many different ones as are drawn.
const crypto = require('crypto');
const draws = [Math.random(), Math.random(), crypto.randomUUID(), crypto.randomUUID(), crypto.randomBytes(8).toString('hex'),
  crypto.randomBytes(8).toString('hex'), crypto.webcrypto.getRandomValues(new Uint32Array(2)).join()];
console.log(new Set(draws).size);
crypto.randomBytes(8, (error, bytes) => console.log(error, bytes.length));
crypto.generateKeyPair('ec', { namedCurve: 'P-256' }, (error, key) => console.log(error, key.type));
