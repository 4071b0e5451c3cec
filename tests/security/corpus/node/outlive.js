// tries: to outlive its job: a detached child, with its output closed and its signals ignored, that writes on
// passes: the answer comes as soon as the code ends, and nothing is left in a new machine
// fails: the answer waits for the child until the time is over, or a second run finds what it wrote
// runs: 2
// timeout: 60
const fs = require('fs');
const { spawn } = require('child_process');
const left = fs.existsSync('/tmp/outlived');
spawn('bash', ['-c', 'trap "" TERM HUP INT; while :; do date >/tmp/outlived; sleep 1; done'], { detached: true, stdio: 'ignore' }).unref();
setTimeout(() => {
  console.log(left ? 'ISOLATION fail: an earlier child still wrote' : 'ISOLATION pass: the answer did not wait for it');
  process.exit(0);
}, 300);
