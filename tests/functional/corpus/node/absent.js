// A module that does not exist.
console.log('before');
require('absent');
