// An ES module as the main script, by the package.json next to it.
import fs, { readFileSync } from 'fs';
import { createRequire } from 'module';
import { value } from './other.js';

console.log(import.meta.url, import.meta.filename, typeof require, typeof module, this);
console.log(value, await Promise.resolve(1), readFileSync === fs.readFileSync, process.argv);
const require2 = createRequire(import.meta.url);
console.log(Object.keys(require2.cache), require2.main);
await import('./absent.js');
