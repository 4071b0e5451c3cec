// tries: to take all memory outside of the interpreter's own heap
// passes: the limit on memory ends the job, or the interpreter gives up
// fails: 32 GiB are there, or the machine does not answer any more
// ends: oom, signal
// timeout: 120
const hog = [];
try {
  for (let i = 0; i < 4096; i++) hog.push(Buffer.alloc(8 << 20, 1));
  console.log('ISOLATION fail: 32 GiB were there');
} catch (error) {
  console.log(`ISOLATION pass: ${error.code || error.message}`);
}
