// A function that never settles ends the process with its own code, in CommonJS with 0.
(async () => {
  await new Promise(() => {});
})();
process.on('exit', (code) => console.log('exit', code));
