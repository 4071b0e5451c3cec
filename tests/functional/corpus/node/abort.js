// The end by a signal of its own, and listeners for others.
process.on('SIGUSR2', (name, number) => {
  console.log('handled', name, number);
  process.kill(process.pid, 'SIGTERM');
});
setTimeout(() => {}, 5000);
process.kill(process.pid, 'SIGUSR2');
