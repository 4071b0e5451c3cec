// Packages as npm lays them out: main, exports, scopes, ESM and CommonJS, dependencies of dependencies.
'use strict';
const assert = require('assert');
const { createRequire } = require('module');

async function tour() {
  assert.strictEqual(require('left').pad('7', 3), '007');
  assert.strictEqual(require('@scope/tool')('x'), '[00x]');
  assert.strictEqual(require('mixed').kind, 'commonjs');
  assert.strictEqual((await import('mixed')).kind, 'module');
  assert.strictEqual((await import('right')).default(2), 4);
  assert.strictEqual(require('right/package.json').name, 'right');
  assert.strictEqual(createRequire(__filename)('./data/settings.json').depth, 3);
  assert.throws(() => require('absent'), { code: 'MODULE_NOT_FOUND' });
  assert.strictEqual(require.resolve('left'), `${__dirname}/node_modules/left/index.js`);
  console.log('done');
}
tour();
