// Standard input by lines, and with an async iterator.
const readline = require('readline');
(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) console.log([line]);
  console.log('end');
})();
