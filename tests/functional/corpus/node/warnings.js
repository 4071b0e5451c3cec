// Warnings and deprecations. The default listener would print the process's number.
process.removeAllListeners('warning');
process.on('warning', (warning) => console.log(warning.name, warning.code));
process.emitWarning('of the script', { code: 'CODE' });
new Buffer(1); // Deprecated.
const events = new (require('events'))();
for (let number = 0; number < 11; number++) events.on('x', () => {});
