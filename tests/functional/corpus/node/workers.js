// Workers: from a file, from text, with an environment and arguments of their own.
const { Worker, isMainThread, threadId } = require('worker_threads');
const vm = require('vm');
console.log(isMainThread, threadId);
const run = (...options) => new Promise((resolve, reject) => {
  new Worker(...options).on('message', (message) => { console.log(message); }).on('exit', resolve).on('error', reject);
});
(async () => {
  console.log(await run(`${__dirname}/worker.js`, { workerData: 1, argv: ['x'] }));
  console.log(await run(`${__dirname}/worker.js`, { env: { ONLY: '1' } }));
  console.log(await run('require("worker_threads").parentPort.postMessage(Math.random() !== Math.random()); process.exit(4)', { eval: true }));
  console.log(vm.runInNewContext('Math.random() !== Math.random()'), Math.random() !== Math.random());
  await run('throw new Error("in a worker")', { eval: true }).catch((error) => console.log(error.message));
})();
