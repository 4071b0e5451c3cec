// Files in every way that Node.js knows.
'use strict';
const assert = require('assert');
const crypto = require('crypto');
const fs = require('fs');
const os = require('os');
const path = require('path');
const { pipeline } = require('stream/promises');
const zlib = require('zlib');

async function tour() {
  const work = fs.mkdtempSync(path.join(os.tmpdir(), 'tour-'));
  const at = (name) => path.join(work, name);
  fs.writeFileSync(at('text'), 'line\n'.repeat(1000), { mode: 0o640 });
  fs.appendFileSync(at('text'), 'last');
  fs.linkSync(at('text'), at('hard'));
  fs.symlinkSync('text', at('soft'));
  fs.renameSync(at('hard'), at('renamed'));
  fs.copyFileSync(at('text'), at('copy'));
  fs.chmodSync(at('copy'), 0o600);
  fs.utimesSync(at('copy'), 1, 2);
  fs.truncateSync(at('copy'), 10);
  assert.strictEqual(fs.statSync(at('copy')).size, 10);
  assert.strictEqual(fs.realpathSync(at('soft')), fs.realpathSync(at('text')));
  fs.mkdirSync(at('a/b/c'), { recursive: true });
  fs.accessSync(at('a'), fs.constants.W_OK);
  fs.statfsSync(work);
  fs.cpSync(at('a'), at('tree'), { recursive: true });
  assert.deepStrictEqual(fs.readdirSync(at('tree'), { withFileTypes: true }).map((entry) => entry.name), ['b']);

  const file = await fs.promises.open(at('data'), 'w+');
  await file.writev([Buffer.from('abc'), Buffer.from('def')], 10);
  await file.sync();
  await file.datasync();
  assert.strictEqual((await file.read(Buffer.alloc(6), 0, 6, 10)).buffer.toString(), 'abcdef');
  await file.truncate(5000);
  await file.close();
  for await (const entry of await fs.promises.opendir(work)) assert(entry.name);
  const lines = [];
  for await (const line of require('readline').createInterface({ input: fs.createReadStream(at('text')) })) lines.push(line);
  assert.strictEqual(lines.length, 1001);

  for (const [pack, unpack] of [[zlib.createGzip, zlib.createGunzip], [zlib.createBrotliCompress, zlib.createBrotliDecompress]]) {
    await pipeline(fs.createReadStream(at('text')), pack(), fs.createWriteStream(at('packed')));
    await pipeline(fs.createReadStream(at('packed')), unpack(), fs.createWriteStream(at('unpacked')));
    assert(fs.readFileSync(at('unpacked')).equals(fs.readFileSync(at('text'))));
  }
  await pipeline(fs.createReadStream(at('text')), crypto.createHash('sha256'), fs.createWriteStream(at('sum')));
  assert.strictEqual(fs.statSync(at('sum')).size, 32);

  const seen = new Promise((resolve) => {
    const watcher = fs.watch(work, () => { watcher.close(); resolve(); });
  });
  await fs.promises.writeFile(at('new'), 'x');
  await seen;
  fs.watchFile(at('new'), { interval: 50 }, () => {});
  fs.unwatchFile(at('new'));
  fs.rmSync(work, { recursive: true });
  console.log('done');
}
tour();
