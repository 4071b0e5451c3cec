import importlib
print(hasattr(importlib, "machinery"), hasattr(importlib, "util"))
import inspect
print(importlib.machinery.SOURCE_SUFFIXES, hasattr(importlib, "util"))
import concurrent
print(hasattr(concurrent, "futures"))
import asyncio
print(concurrent.futures.Future.__module__)
import xml, os.path, email, json
print(json.decoder.JSONDecoder.__name__, json.scanner.__name__)
