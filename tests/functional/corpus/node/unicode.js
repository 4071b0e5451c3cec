// Text beyond ASCII, and the locale.
console.log('ünïcödé 漢字 🦀', ['é'], Buffer.from('é'), '🦀'.length, (1234567.891).toLocaleString(), Intl.DateTimeFormat().resolvedOptions().locale);
console.error('to stderr ünï');
process.stdout.write(Buffer.from([0xff, 0x0a]));
console.table([{ a: 1, b: 'ü' }]);
