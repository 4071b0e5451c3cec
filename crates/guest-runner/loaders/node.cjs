// Parks a Node.js process before its main script, and releases it with a job.
//
// NODE_OPTIONS preloads this file. When it returns, Node.js goes on to load the main script by itself. Everything that
// this file leaves behind would be seen by the job; what cannot be undone is in docs/parking.md.

'use strict';

const Module = require('module');

// What scripts commonly require. Nothing here may fill a cache of random numbers, or open anything (`assert` makes
// process.stderr).
const WARM = [
  'async_hooks', 'buffer', 'child_process', 'crypto', 'dns', 'events', 'fs', 'fs/promises', 'http', 'https',
  'net', 'os', 'path', 'perf_hooks', 'querystring', 'readline', 'stream', 'stream/promises', 'string_decoder', 'timers',
  'timers/promises', 'tty', 'url', 'util', 'vm', 'worker_threads', 'zlib',
];

const ADDON = `${__dirname}/node-reseed.node`;

/** Reseeds OpenSSL and V8 from the kernel and `seed`; throws where that cannot be done. */
function reseed(seed) {
  // The addon works when it is loaded, and finds the seed where its exports would go.
  process.dlopen({ exports: seed }, ADDON);
}

/** The strings of the release message; ends the process when the runner closes instead. */
function receive(runner) {
  const fs = require('fs');
  const chunk = Buffer.allocUnsafeSlow(65536);
  let data = Buffer.alloc(0);
  for (let length; (length = fs.readSync(runner, chunk)) !== 0; ) {
    data = Buffer.concat([data, chunk.subarray(0, length)]);
  }
  if (data.length === 0) process.reallyExit(0);
  const strings = data.toString('utf8').split('\0');
  if (strings.pop() !== '' || strings.pop() !== '.') throw new Error('the message was cut off');
  return strings;
}

/** What most jobs do not bring: another directory, arguments, variables. */
function differ(directory, strings) {
  const next = () => strings.splice(0, Number(strings.shift()));
  if (directory !== '') process.chdir(directory);
  process.argv.push(...next());
  for (const name of next()) delete process.env[name];
  for (const entry of next()) {
    const equals = entry.indexOf('=');
    process.env[entry.slice(0, equals)] = entry.slice(equals + 1);
  }
  if (strings.length !== 0) throw new Error('the message is malformed');
  // Below HOME there may be modules.
  Module._initPaths();
}

function park(runner) {
  const fs = require('fs');
  try {
    reseed(Buffer.alloc(32));
  } catch {
    fs.writeSync(runner, 'N');
    process.reallyExit(0);
  }
  for (const name of WARM) {
    try {
      require(name);
    } catch {
      // Absent in this Node.js: the job sees that for itself.
    }
  }
  // Not before this file was found: Node.js remembers where there was no package.json.
  process.chdir(process.env.PWD);
  delete process.env.NODE_OPTIONS;
  delete process.env.GUEST_RUNNER_PARK;
  // Without what it knows from NODE_OPTIONS.
  Module._initPaths();
  fs.writeSync(runner, 'P');

  // The host's name is asked for when it is needed.
  const [seed, , directory, ...strings] = receive(runner);
  if (!/^[0-9a-f]{64}$/.test(seed)) throw new Error('the message is malformed');
  reseed(Buffer.from(seed, 'hex'));
  if (directory !== '' || strings.join() !== '0,0,0') differ(directory, strings);

  fs.writeSync(runner, 'R');
  fs.closeSync(runner);
}

// A worker of the job comes here too: it only gets rid of this file.
if (require('worker_threads').isMainThread && process.env.GUEST_RUNNER_PARK !== undefined) {
  try {
    park(Number(process.env.GUEST_RUNNER_PARK));
  } catch (error) {
    require('fs').writeSync(2, `guest-runner: cannot release a parked Node.js: ${error}\n`);
    process.reallyExit(70);
  }
}

delete require.cache[__filename];
for (const [key, path] of Object.entries(Module._pathCache)) {
  if (path === __filename) delete Module._pathCache[key];
}
process._preload_modules?.splice(0);
