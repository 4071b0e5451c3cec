// Child processes: fork, spawn, exec, node as a child, a cluster.
const { fork, spawn, execFileSync, spawnSync } = require('child_process');
const cluster = require('cluster');
if (cluster.isWorker) process.exit(6);
fork(`${__dirname}/child.js`, ['x']).on('message', (message) => console.log(message)).on('exit', (code) => {
  console.log('fork', code);
  const cat = spawn('cat');
  cat.stdout.on('data', (data) => console.log('cat', data.toString()));
  cat.on('close', (code, signal) => {
    console.log('closed', code, signal);
    cluster.fork().on('exit', (code) => console.log('cluster', code));
  });
  cat.stdin.end('through cat');
});
console.log(execFileSync(process.execPath, ['-e', 'console.log(process.argv, Object.keys(process.env).sort(), process.execArgv)', 'x']).toString());
console.log(spawnSync('sh', ['-c', 'ls /proc/self/fd; kill -9 $$']).stdout.toString());
