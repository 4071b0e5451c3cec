"""Parks a Python interpreter before its main script, and releases it with a job.

PYTHONPATH puts this file before the distribution's sitecustomize, so `site` imports it as the last step of start-up.
When it returns, Python goes on to find and run the main script by itself. Everything that this file leaves behind
would be seen by the job; what cannot be undone is in docs/parking.md.
"""

import gc
import os
import sys

# What scripts commonly import. Nothing here may keep what it found at import for later: a seed, the working directory,
# the environment, the time (multiprocessing keeps the first two, so it is left out). What does is renewed in _renew.
WARM = """
abc argparse array ast asyncio base64 binascii bisect calendar cmath collections.abc concurrent.futures.thread
contextlib copy csv dataclasses datetime decimal difflib enum fractions functools glob hashlib heapq hmac html inspect
io itertools json logging math numbers numpy numpy.random operator pathlib pickle platform pprint queue random re
secrets select selectors shutil signal socket statistics string struct subprocess tempfile textwrap threading time
timeit traceback types typing unicodedata unittest urllib.parse uuid warnings weakref zlib
""".split()

_HERE = os.path.dirname(__file__)


def _warm():
    """Imports what there is; returns the top-level names that this added."""
    before = set(sys.modules)
    for name in WARM:
        try:
            __import__(name)
        except Exception:  # Absent or broken: the job sees that for itself.
            pass
    return {name.partition(".")[0] for name in set(sys.modules) - before}


def _freeze():
    """Keeps the collector from what is there now: going through it at the end costs a clone its shared pages, and more
    time than everything else."""
    gc.collect()
    gc.freeze()
    # But what the script leaves in its name space has to be collected at the end, so that is made anew.
    frozen = sys.modules["__main__"]
    sys.modules["__main__"] = type(sys)("__main__")
    vars(sys.modules["__main__"]).update(vars(frozen))


def _receive(runner):
    """The strings of the release message; ends the process when the runner closes instead."""
    data = b""
    while b"\n" not in data:
        more = os.read(runner, 65536)
        if not more and not data:
            os._exit(0)
        if not more:
            raise ValueError("the message was cut off")
        data += more
    length, _, body = data.partition(b"\n")
    length = int(length)
    while len(body) < length:
        more = os.read(runner, length - len(body))
        if not more:
            raise ValueError("the message was cut off")
        body += more
    if len(body) != length or not body.endswith(b"\0"):
        raise ValueError("the message is malformed")
    return iter(body[:-1].split(b"\0"))


def _renew(seed):
    """Nothing random may come from before the snapshot: every generator gets kernel entropy and this job's seed."""
    entropy = bytes(a ^ b for a, b in zip(os.urandom(32), bytes.fromhex(seed.decode()), strict=True))
    if random := sys.modules.get("random"):
        random.seed(entropy)
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed([int.from_bytes(entropy[i : i + 4], "little") for i in range(0, 32, 4)])
    # OpenSSL's generators are made at their first use, which importing does not make. Adding reseeds from the kernel.
    if ssl := sys.modules.get("_ssl"):
        ssl.RAND_add(entropy, 32.0)
    if logging := sys.modules.get("logging"):
        clock = "time_ns" if isinstance(logging._startTime, int) else "time"
        logging._startTime = getattr(sys.modules["time"], clock)()


def _replace_environment(entries):
    import posix  # Has a copy of its own, made at start-up.
    import time

    for name in list(os.environb):
        del os.environb[name]
    posix.environ.clear()
    for entry in entries:
        name, _, value = entry.partition(b"=")
        os.environb[name] = posix.environ[name] = value
    time.tzset()


def _is_shadowed(warm):
    """Whether a file next to the main script has the name of a module that is imported already: the file must win."""
    try:
        names = os.listdir(os.path.dirname(os.path.realpath(sys.argv[0])))
    except OSError:
        return False
    return any(name.partition(".")[0] in warm for name in names)


def _start_afresh():
    """Becomes a freshly started interpreter."""
    import signal

    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores these, and exec would pass that on.
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    os.execve(sys.executable, sys.orig_argv, os.environ)


def _park(runner):
    warm = _warm()
    _freeze()
    os.write(runner, b"P")

    message = _receive(runner)
    _renew(next(message))
    os.chdir(next(message))
    arguments = [os.fsdecode(next(message)) for _ in range(int(next(message)))]
    _replace_environment([next(message) for _ in range(int(next(message)))])
    if next(message, None) is not None:
        raise ValueError("the message is too long")
    sys.argv += arguments
    sys.orig_argv += arguments

    os.write(runner, b"R")
    os.close(runner)
    if _is_shadowed(warm):
        _start_afresh()


# A subinterpreter of the job comes here too, without the variable: it only gets rid of this file.
if "GUEST_RUNNER_PARK" in os.environ:
    try:
        _park(int(os.environ["GUEST_RUNNER_PARK"]))
    except BaseException as error:
        os.write(2, f"guest-runner: cannot release a parked Python: {error!r}\n".encode())
        os._exit(70)

while _HERE in sys.path:
    sys.path.remove(_HERE)
sys.path_importer_cache.pop(_HERE, None)
# The distribution's own comes in place of this module, or fails as it would have.
del sys.modules["sitecustomize"]
import sitecustomize
