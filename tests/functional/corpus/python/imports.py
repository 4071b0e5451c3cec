# Files next to the script, found although the working directory is another.
import importlib.util
import os
import runpy
import sys

os.chdir("/")
import neighbour
import package

print(neighbour.VALUE, package.inner, sys.modules["neighbour"] is neighbour)
print(importlib.util.find_spec("sitecustomize").origin, sys.modules["sitecustomize"], sys.modules["sitecustomize"].__file__)
print("usercustomize" in sys.modules)
with open(os.path.join(os.path.dirname(__file__), "data/file.json")) as file:
    print(file.read())
print(runpy.run_path("/job/neighbour.py")["VALUE"])
import absent
