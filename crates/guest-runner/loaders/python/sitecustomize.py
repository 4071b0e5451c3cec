"""Parks a Python interpreter before its main script, and releases it with a job.

PYTHONPATH puts this file before the distribution's sitecustomize, so `site` imports it as the last step of start-up.
When it returns, Python goes on to find and run the main script by itself. Everything that this file leaves behind
would be seen by the job; what cannot be undone is in docs/parking.md.
"""

import os
import sys

# What scripts commonly import. Nothing here may keep what it found at import for later: a seed, the working directory,
# the environment, the time (multiprocessing keeps the first two, so it is left out). What does is renewed in _renew.
# numpy comes first: what compiled modules import is seen only when it is new.
WARM = """
numpy numpy.random abc argparse array ast asyncio base64 binascii bisect calendar cmath collections.abc concurrent.futures.thread
contextlib copy csv ctypes dataclasses datetime decimal difflib enum fractions functools glob hashlib heapq hmac html inspect
io itertools json logging math numbers operator pathlib pickle platform pprint queue random re
secrets select selectors shutil signal socket statistics string struct subprocess tempfile textwrap threading time
timeit traceback types typing unicodedata unittest urllib.parse uuid warnings weakref zlib
""".split()

_HERE = os.path.dirname(__file__)


class _Stock:
    """Modules that were imported ahead of time, and are nowhere to be seen until the job imports them.

    Each is then found with what it needs, as if it had been loaded, unless the job's own path leads to another of that
    name. What the job never imports costs nothing at its end: the interpreter takes apart only what it knows of.
    """

    def __init__(self):
        self.modules = {}  # By name.
        self.specs = {}
        self.needs = {}  # What the import of each had imported.
        self.handed_out = None
        self.itself = self  # Not even the end of the interpreter lets go of a frozen cycle.

    def fill(self):
        import builtins

        before, real = set(sys.modules), builtins.__import__
        importing = []  # Whose code is being run by an import, the innermost last.

        def note(name, globals=None, locals=None, fromlist=(), level=0):
            importer = (globals or {}).get("__name__", "")
            spec = getattr(sys.modules.get(importer), "__spec__", None)
            running = getattr(spec, "_initializing", False)
            known = set(sys.modules)
            if running:
                importing.append(importer)
            try:
                module = real(name, globals, locals, fromlist, level)
            finally:
                if running:
                    importing.pop()
            base = name
            if level:
                package = ((globals or {}).get("__package__") or "").rsplit(".", level - 1)[0]
                base = f"{package}.{name}" if name else package
            self.needs.setdefault(base, set()).update(set(sys.modules) - known)
            # An import in a function belongs to whatever had that called.
            needs = self.needs.setdefault(importer if running else importing[-1] if importing else "", set())
            needs.update((base, *(f"{base}.{part}" for part in fromlist or ())))
            return module

        builtins.__import__ = note
        try:
            for name in WARM:
                try:
                    real(name)
                except Exception:  # Absent or broken: the job sees that for itself.
                    pass
        finally:
            builtins.__import__ = real
        for name in list(sys.modules):
            if name not in before:
                module = self.modules[name] = sys.modules.pop(name)
                self.specs[name] = getattr(module, "__spec__", None)

    def open(self):
        """Has the first finder of all look here first."""
        finder = sys.meta_path[0]
        real = finder.find_spec
        # The interpreter looks for this once more, in places where nothing can have come since.
        absent = all(finder.find_spec("usercustomize", None) is None for finder in sys.meta_path)

        def find_spec(name, path=None, target=None):
            if name == "usercustomize" and absent and sys._getframe(4).f_code.co_name == "execusercustomize":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            # Who only asks where a module is gets the interpreter's own answer.
            imports = sys._getframe(1).f_back.f_code.co_name == "_find_and_load_unlocked"
            return (imports and self.find_spec(name, path)) or real(name, path, target)

        finder.find_spec = staticmethod(find_spec)

    def find_spec(self, name, path):
        if name not in self.modules:
            return None
        wanted = self._wanted(name)
        if path is None and not self._shadows().isdisjoint(wanted):
            return None
        parent = name.rpartition(".")[0]
        if parent and getattr(sys.modules[parent], "__spec__", None) is not self.specs.get(parent):
            return None
        # All are there before anything of theirs runs.
        handed_out = [(other, self.modules.pop(other)) for other in wanted]
        sys.modules.update(handed_out)
        for other, module in handed_out:
            self._hide_parts(other, module)
            _renew(other, module)
            if other != name:
                self._show_part(other, module)
        # The import would take one that is there for another's, and load it again.
        self.handed_out = sys.modules.pop(name)
        return type(self.specs[name])(name, self)

    def _hide_parts(self, name, module):
        """A package has no attribute of a part that was not imported with it. The job comes here for that."""
        for part in list(vars(module)):
            if (inner := self.modules.get(f"{name}.{part}")) is not None and vars(module)[part] is inner:
                delattr(module, part)

    def _show_part(self, name, module):
        """Its package, which may have been handed out without it, has it as an attribute: as its import would have seen to."""
        parent, _, part = name.rpartition(".")
        package = sys.modules.get(parent)
        if package is not None and getattr(package, "__spec__", None) is self.specs.get(parent):
            setattr(package, part, module)

    def create_module(self, spec):
        module, self.handed_out = self.handed_out, None
        return module

    def exec_module(self, module):
        module.__spec__ = self.specs[module.__spec__.name]

    def _wanted(self, name):
        """The module and all that it needs, as far as that is still in stock."""
        found, todo = set(), [name]
        while todo:
            name = todo.pop()
            if name in self.modules and name not in found:
                found.add(name)
                todo.append(name.rpartition(".")[0])
                todo.extend(self.needs.get(name, ()))
        return found

    @staticmethod
    def _shadows():
        """The names that come before the standard library: a file next to the main script may have one of them."""
        names, library = set(), os.path.dirname(os.path.dirname(os.__file__))
        for entry in sys.path:
            if entry.startswith(library):
                break
            try:
                names.update(file.partition(".")[0] for file in os.listdir(entry or "."))
            except OSError:
                pass
        return names


def _freeze():
    """Keeps the collector from what is there now: going through it at the end costs a clone its shared pages, and more
    time than everything else."""
    known = "gc" in sys.modules
    import gc

    gc.collect()
    gc.freeze()
    if not known:
        del sys.modules["gc"]
    # But what the script leaves in its name space has to be collected at the end, so that is made anew.
    frozen = sys.modules["__main__"]
    sys.modules["__main__"] = type(sys)("__main__")
    vars(sys.modules["__main__"]).update(vars(frozen))


class _End:
    """Ends the process as soon as nothing more of its end can be seen.

    Python takes everything apart: what the job made, then itself, every interned string and type of its own, and then the C
    library has every library taken apart. The kernel can do that alone; a clone pays for each page of it. So the process
    ends after the job's own objects are gone, where the exit status is known by then: of a script that ended by itself.
    """

    # What can take the names from the script's name space that tell how it ended.
    _RISKS = (b"globals(", b"vars(", b"__dict__", b"f_globals", b"exec(", b"eval(", b"del __", b"delattr")

    def __init__(self):
        import atexit

        # The first to be asked for is the last to be done.
        atexit.register(self.settle)
        self.script = sys.argv[0]
        self.dictionary = None

    def prepare(self, modules):
        known = "gc" in sys.modules
        import gc

        if not known:
            del sys.modules["gc"]
        ctypes, functools = modules["ctypes"], modules["functools"]
        libc, api = ctypes.CDLL(None), ctypes.pythonapi
        libc.on_exit(libc._exit, None)
        libc.on_exit(libc.fcloseall, None)  # The last to be asked for is the first to be done.
        self.stream, self.reference = modules["io"].TextIOWrapper, modules["weakref"].ref
        current, dictionary = api.PyInterpreterState_Get, api.PyInterpreterState_GetDict
        current.restype, dictionary.argtypes, dictionary.restype = (
            ctypes.c_void_p,
            [ctypes.c_void_p],
            ctypes.py_object,
        )
        # Python lets go of this after all modules, and before itself. It only lends it, which ctypes does not know.
        self.dictionary = dictionary(current())
        api.Py_IncRef(ctypes.py_object(self.dictionary))
        leave = functools.partial(os._exit, 0)
        # What dies with it does this, one after the other.
        self.last = [type("", (), {"__del__": staticmethod(it)}) for it in (gc.collect, leave)]

    def settle(self):
        try:
            if self.dictionary is not None and self._is_plain():
                for dying in self.last:
                    self.dictionary[dying] = dying()
        except BaseException:
            pass

    def _is_plain(self):
        """Whether the script ended by itself, and wrote all that it had to write."""
        main = self.main()
        # A script that ends by itself is first left by these names; then an exception is noted, but not SystemExit.
        if main is None or "__file__" in vars(main) or "__cached__" in vars(main) or hasattr(sys, "last_type"):
            return False
        if "PYTHONINSPECT" in os.environ or "ctypes" in sys.modules:
            return False
        if type(sys.stdout) is not self.stream or type(sys.stderr) is not self.stream:
            return False
        sys.stdout.flush()
        sys.stderr.flush()
        script = os.open(self.script, os.O_RDONLY)
        source = os.read(script, 2 << 20)
        os.close(script)
        return not any(risk in source for risk in self._RISKS)


def _receive(runner):
    """The strings of the release message; ends the process when the runner closes instead."""
    data = b"".join(iter(lambda: os.read(runner, 65536), b""))
    if not data:
        os._exit(0)
    strings = data.split(b"\0")
    if strings[-2:] != [b".", b""]:
        raise ValueError("the message was cut off")
    return strings[:-2]


def _renew(name, module):
    """Nothing random may come from before the snapshot: every generator is seeded as at its import, by the kernel, which
    is this clone's own by now."""
    if name == "random" or name == "numpy.random":
        module.seed()
    elif name == "_ssl":
        # OpenSSL's generators are made at their first use, which importing does not make. Adding reseeds from the kernel.
        module.RAND_add(os.urandom(32), 32.0)
    elif name == "logging":
        import time

        module._startTime = time.time_ns() if isinstance(module._startTime, int) else time.time()


def _differ(directory, strings):
    """What most jobs do not bring: another directory, arguments, variables."""
    strings = iter(strings)

    def fields():
        return [next(strings) for _ in range(int(next(strings)))]

    if directory:
        os.chdir(directory)
    arguments = list(map(os.fsdecode, fields()))
    sys.argv += arguments
    sys.orig_argv += arguments
    for name in fields():
        _unset(name)
    import posix
    import time

    for entry in fields():
        name, _, value = entry.partition(b"=")
        os.environb[name] = posix.environ[name] = value
    time.tzset()
    if next(strings, None) is not None:
        raise ValueError("the message is too long")


def _unset(name):
    import posix  # May have a copy of its own, made at start-up.

    del os.environb[name]
    posix.environ.pop(name, None)


def _step_aside():
    """Has the distribution's own sitecustomize come in place of this one, or fail as it would have."""
    while _HERE in sys.path:
        sys.path.remove(_HERE)
    sys.path_importer_cache.pop(_HERE, None)
    del sys.modules["sitecustomize"]
    import sitecustomize


def _park(runner):
    _unset(b"GUEST_RUNNER_PARK")
    _unset(b"PYTHONPATH")
    try:
        _step_aside()
        failure = None
    except BaseException as error:
        failure = error
    # The interpreter asks whether its main script is an archive, which it is not.
    sys.path_importer_cache[sys.argv[0]] = None
    known = "atexit" in sys.modules
    end = _End()
    if not known:
        del sys.modules["atexit"]
    stock = _Stock()
    stock.fill()
    if "ctypes" in stock.modules:
        end.prepare({**sys.modules, **stock.modules})
    stock.open()
    _freeze()
    if end.dictionary is not None:
        end.main = end.reference(sys.modules["__main__"])
    os.write(runner, b"P")

    # The seed: what is random here comes from the kernel. The host's name: Python asks for it when it needs it.
    _, _, directory, *strings = _receive(runner)
    if directory or strings != [b"0", b"0", b"0"]:
        _differ(directory, strings)
    os.write(runner, b"R")
    os.close(runner)
    return failure


# A subinterpreter of the job comes here too, without the variable: it only gets rid of this file.
if "GUEST_RUNNER_PARK" in os.environ:
    try:
        _failure = _park(int(os.environ["GUEST_RUNNER_PARK"]))
    except BaseException as error:
        os.write(2, f"guest-runner: cannot release a parked Python: {error!r}\n".encode())
        os._exit(70)
    if _failure:
        raise _failure
else:
    _step_aside()
