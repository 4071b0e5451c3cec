# Warnings: which are shown, and how.
import warnings

warnings.warn("of the script")
warnings.warn("deprecated", DeprecationWarning)
warnings.warn("of the script")
print("a" is "a", [1] == (1))
import re

re.compile("(?i)a")
open("/dev/null")
print([entry[0] for entry in warnings.filters][-5:])
