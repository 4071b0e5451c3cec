// Standard input at once, through a descriptor, and a child's.
const fs = require('fs');
console.log([fs.readFileSync(0, 'utf8')]);
const buffer = Buffer.alloc(6);
fs.readSync(0, buffer, 0, 6, 0);
console.log(buffer.toString(), fs.fstatSync(0).size);
console.log(require('child_process').spawnSync('cat', { stdio: ['inherit', 'pipe', 'inherit'] }).stdout.toString());
