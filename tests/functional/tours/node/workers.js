// Threads of their own, and members of a cluster.
'use strict';
const assert = require('assert');
const cluster = require('cluster');
const { once } = require('events');
const { MessageChannel, Worker, isMainThread, parentPort, workerData } = require('worker_threads');

async function tour() {
  const shared = new Int32Array(new SharedArrayBuffer(4));
  const workers = [1, 2].map((id) => new Worker(__filename, { workerData: { shared, id } }));
  // Listened for at once: what ends while something else is awaited would not be heard.
  const exits = workers.map((worker) => once(worker, 'exit'));
  const { port1, port2 } = new MessageChannel();
  workers[0].postMessage({ port: port1 }, [port1]);
  assert.strictEqual((await once(port2, 'message'))[0], 'from a worker');
  await Promise.all(exits);
  assert.strictEqual(shared[0], 2000);

  cluster.setupPrimary({ exec: __filename, args: ['member'] });
  const member = cluster.fork();
  const [[message]] = await Promise.all([once(member, 'message'), once(member, 'exit')]);
  assert.strictEqual(message, 'joined');
  console.log('done');
}

if (!isMainThread) {
  for (let count = 0; count < 1000; count++) Atomics.add(workerData.shared, 0, 1);
  Atomics.wait(workerData.shared, 0, -1, 5);
  Atomics.notify(workerData.shared, 0);
  if (workerData.id === 1) parentPort.once('message', ({ port }) => { port.postMessage('from a worker'); port.close(); });
} else if (process.argv[2] === 'member') {
  process.send('joined', () => process.exit(0));
} else {
  tour();
}
