# Standard input: input(), lines, the rest, and the end.
import sys

print(repr(input()))
print(repr(sys.stdin.readline()))
print([line for line in sys.stdin])
print(repr(sys.stdin.read()), sys.stdin.isatty(), sys.stdin.encoding, sys.stdin.errors, sys.stdin.name, sys.stdin.mode)
try:
    input()
except EOFError as error:
    print(repr(error))
