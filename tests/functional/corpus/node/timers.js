// Timers are measured from now, and come in their order.
const start = process.hrtime.bigint();
const passed = () => Number(process.hrtime.bigint() - start) / 1e6;
setImmediate(() => {
  console.log('immediate');
  setTimeout(() => console.log('second', passed() > 195), 200);
  setTimeout(() => console.log('first', passed() > 95), 100);
  const every = setInterval(() => { console.log('interval'); clearInterval(every); }, 60);
});
process.nextTick(() => console.log('tick'));
Promise.resolve().then(() => console.log('microtask'));
queueMicrotask(() => console.log('queued'));
