// ES module syntax in a script that is CommonJS by its name.
import fs from 'fs';
console.log(typeof fs);
