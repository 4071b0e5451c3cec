process.send([process.argv, process.execArgv, Object.keys(process.env).sort(), process.connected]);
process.disconnect();
