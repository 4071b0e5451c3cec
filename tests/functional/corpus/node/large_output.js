// More than any pipe holds, on both streams.
for (let number = 0; number < 20000; number++) {
  console.log(`line ${number} ${'x'.repeat(50)}`);
  if (number % 100 === 0) console.error(number);
}
