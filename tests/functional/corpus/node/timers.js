// Timers are measured from now, and come in their order.
const start = process.hrtime.bigint();
const passed = () => Number(process.hrtime.bigint() - start) / 1e6;
setTimeout(() => { const ms = passed(); console.log('second', ms > 195 && ms < 2000); }, 200);
setTimeout(() => { const ms = passed(); console.log('first', ms > 95 && ms < 1000); }, 100);
setImmediate(() => console.log('immediate'));
process.nextTick(() => console.log('tick'));
Promise.resolve().then(() => console.log('microtask'));
queueMicrotask(() => console.log('queued'));
const every = setInterval(() => { console.log('interval'); clearInterval(every); }, 60);
