# What a script finds about itself, and what it finds in its name space.
import os
import sys

print(__name__, __file__, __spec__, __doc__, __package__, type(__loader__).__name__, sorted(globals()))
print(sys.argv, sys.orig_argv, sys.executable, sys.path, sys.path[0])
print(sys.flags, sys.warnoptions, sys._xoptions, sys.dont_write_bytecode)
print(os.getcwd(), os.getuid(), sys.prefix, sys.getrecursionlimit(), sys.getswitchinterval())
print(sys.meta_path, [hook.__name__ for hook in sys.path_hooks], [key for key in sys.path_importer_cache if "guest-runner" in key])
print(sys.modules["__main__"].__dict__ is globals(), sys.gettrace(), sys.getprofile(), sys.excepthook is sys.__excepthook__)
