// What a script finds about itself and the process.
const Module = require('module');
console.log(__filename, __dirname, require.main === module, module.id, module.parent, module.children, module.paths);
console.log(process.argv, process.execArgv, process.argv0, process.execPath, process.title, process.cwd());
console.log(Object.keys(require.cache), Object.keys(Module._pathCache), Module.globalPaths);
console.log(Object.getOwnPropertyNames(globalThis).sort().join(' '));
console.log(Object.getOwnPropertyNames(process).sort().join(' '), process._preload_modules);
console.log(this === module.exports, typeof require, require.extensions, arguments.length);
console.log(process._getActiveHandles().length, process.getActiveResourcesInfo(), process.eventNames());
