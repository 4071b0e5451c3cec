// Files next to the script: CommonJS, JSON, a dependency, and an ES module.
process.chdir('/');
console.log(require('./neighbour'), require('./lib'), require('./data.json'), require('dependency'));
console.log(require.resolve('./neighbour'), require.resolve.paths('x'), module.children.map((child) => child.id));
console.log(Object.keys(require.cache));
import('./esm.mjs').then((esm) => {
  console.log(esm);
  require('./absent');
});
