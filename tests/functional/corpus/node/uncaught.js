// An exception that nobody handles, with a cause.
process.on('exit', (code) => console.log('exit', code, process.exitCode));
console.log('before');
function fail() {
  throw new TypeError('ünï', { cause: new Error('the cause') });
}
fail();
