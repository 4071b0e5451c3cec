// Recursion without an end.
let depth = 0;
function forever() {
  depth++;
  forever();
}
try {
  forever();
} catch (error) {
  console.log(error instanceof RangeError, error.message, depth > 5000);
}
console.log(new Error('stack').stack);
forever();
