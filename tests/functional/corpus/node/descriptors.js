// Open descriptors and threads: as many as ever, and the first to be opened has the same number.
const fs = require('fs');
console.log(fs.openSync('/dev/null'), fs.readdirSync('/proc/self/fd').map(Number).sort((a, b) => a - b));
console.log(fs.readFileSync('/proc/self/status', 'utf8').split('\n').filter((line) => /^(Threads|Sig|Shd|NoNew)/.test(line)));
const link = (number) => { try { return fs.readlinkSync(`/proc/self/fd/${number}`).replace(/\d+/g, 'N'); } catch { return null; } };
console.log([...Array(30).keys()].map(link));
require('net').createServer().listen(0, '127.0.0.1', function () { console.log(this._handle.fd); this.close(); });
