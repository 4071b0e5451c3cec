# More than any pipe holds, on both streams.
import sys

for number in range(20000):
    print(f"line {number} " + "x" * 50)
    if number % 100 == 0:
        print(number, file=sys.stderr)
