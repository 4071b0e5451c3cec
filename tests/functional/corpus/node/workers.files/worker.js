const { parentPort, workerData, isMainThread, threadId } = require('worker_threads');
const Module = require('module');
parentPort.postMessage({
  workerData, isMainThread, threadId, main: require.main === module, argv: process.argv, execArgv: process.execArgv,
  cache: Object.keys(require.cache), paths: Object.keys(Module._pathCache), env: Object.keys(process.env),
  parent: module.parent, children: module.children.length,
});
