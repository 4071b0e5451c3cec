// tries: to resolve names, and to ask name servers of its own choice
// passes: no name resolves
// fails: one does
const dns = require('dns');
const worked = [], reasons = new Set();
const limit = promise => Promise.race([promise, new Promise((_, no) => setTimeout(() => no({ code: 'timeout' }), 6000).unref())]);
(async () => {
  for (const name of ['example.com', 'metadata.google.internal', 'host.docker.internal', '_gateway']) {
    try { worked.push(`${name} is ${(await limit(dns.promises.lookup(name))).address}`); } catch (error) { reasons.add(error.code); }
  }
  for (const server of ['1.1.1.1', '169.254.169.253', '10.0.2.3', '[2606:4700:4700::1111]']) {
    const resolver = new dns.promises.Resolver({ timeout: 1000, tries: 1 });
    resolver.setServers([server]);
    try { worked.push(`${server} says ${await limit(resolver.resolve4('example.com'))}`); } catch (error) { reasons.add(error.code); }
  }
  console.log(worked.length ? `ISOLATION fail: ${worked.join(', ')}` : `ISOLATION pass: ${[...reasons].sort().join(', ')}`);
  process.exit();
})();
