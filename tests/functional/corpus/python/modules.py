# What is imported is what was imported, and nothing that was only made ready.
import sys

print(sorted(sys.modules))
import json

print(sorted(sys.modules))
import random, tempfile, asyncio, logging

print(sorted(sys.modules))
print(json.__spec__.name, json.__spec__.origin, type(json.__spec__.loader).__name__, json.__loader__ is json.__spec__.loader)
import importlib

print(importlib.reload(json) is json, importlib.util.find_spec("uuid").origin)
import uuid

print(uuid.__file__, uuid.__spec__.origin)
from xml.etree import ElementTree

print(ElementTree.fromstring("<a/>").tag)
