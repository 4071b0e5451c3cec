// process.exitCode, listeners, and process.exit inside of one.
process.on('beforeExit', () => console.log('beforeExit'));
process.on('exit', (code) => { console.log('exit', code); process.exit(7); });
process.exitCode = 3;
setTimeout(() => console.log('timer'), 5);
