# Encodings, the locale, and text beyond ASCII.
import locale
import sys

print(sys.stdout.encoding, sys.stdout.errors, sys.stderr.errors, sys.getfilesystemencoding(), sys.flags.utf8_mode)
print(locale.setlocale(locale.LC_ALL), locale.getpreferredencoding(), locale.getlocale())
print("ünïcödé 漢字 🦀", "\N{SNOWMAN}", ascii("é"))
print("to stderr ünï", file=sys.stderr)
print(sys.stdout.line_buffering, sys.stdout.write_through, sys.stderr.line_buffering)
print("\udcff")
