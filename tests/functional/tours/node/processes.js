// Processes and signals.
'use strict';
const assert = require('assert');
const childProcess = require('child_process');
const os = require('os');
const { once } = require('events');

async function tour() {
  assert.strictEqual(childProcess.execSync('echo $X; pwd', { env: { X: '1' }, cwd: '/tmp' }).toString(), '1\n/tmp\n');
  assert.strictEqual(childProcess.spawnSync('cat', { input: 'through' }).stdout.toString(), 'through');
  assert.strictEqual(childProcess.spawnSync('sh', ['-c', 'kill -TERM $$']).signal, 'SIGTERM');
  const child = childProcess.spawn('sleep', ['60'], { detached: true, stdio: 'ignore' });
  child.kill('SIGKILL');
  assert.deepStrictEqual(await once(child, 'exit'), [null, 'SIGKILL']);
  await assert.rejects(require('util').promisify(childProcess.exec)('exit 3'), { code: 3 });

  const forked = childProcess.fork(__filename, ['child']);
  forked.send({ question: 6 });
  const [[message], status] = await Promise.all([once(forked, 'message'), once(forked, 'exit')]);
  assert.deepStrictEqual([message, status], [{ answer: 42 }, [0, null]]);

  const heard = once(process, 'SIGUSR2');
  // A handler for a signal does not keep a process from ending.
  const alive = setInterval(() => {}, 1000);
  process.kill(process.pid, 'SIGUSR2');
  await heard;
  clearInterval(alive);
  os.setPriority(os.getPriority() + 1);
  assert(os.cpus().length && os.totalmem() && os.hostname() && os.userInfo().username && os.loadavg() && os.uptime());
  process.memoryUsage(); process.resourceUsage(); process.hrtime.bigint(); process.umask();
  assert(process.getuid() && process.getgroups());
  console.log('done');
}

if (process.argv[2] === 'child') {
  process.once('message', ({ question }) => { process.send({ answer: question * 7 }); process.disconnect(); });
} else {
  tour();
}
