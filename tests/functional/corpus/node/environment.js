// The environment, its order, and what a child has of it.
const { execFileSync, execSync } = require('child_process');
console.log(Object.entries(process.env));
console.log(execFileSync('env').toString());
console.log(process.env.NODE_OPTIONS, process.env.GUEST_RUNNER_PARK);
console.log(new Date(0).toString(), Intl.DateTimeFormat().resolvedOptions().timeZone);
process.env.LATER = 1;
delete process.env.JOB_VARIABLE;
console.log(execSync('echo $LATER $JOB_VARIABLE $HOME').toString(), require('os').homedir());
