# Every module of the standard library, and the unusual parts of some.
import importlib, sys

# What opens a browser or prints when it is imported, what is not for Linux, and what Debian packages apart.
ABSENT = {"antigravity", "this", "idlelib", "tkinter", "turtle", "turtledemo", "lib2to3", "distutils", "ensurepip", "venv", "_tkinter",
          "_curses_panel", "curses"}
missing = []
for name in sorted(sys.stdlib_module_names):
    if name not in ABSENT and not name.startswith("_"):
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
assert len(missing) < 20, missing

import ast, ctypes, datetime, decimal, doctest, fractions, gc, getpass, grp, hashlib, hmac, json, locale, logging, os, pickle, platform
import pwd, py_compile, random, re, secrets, statistics, string, struct, sysconfig, tempfile, timeit, tracemalloc, unittest, uuid, warnings
import weakref, xml.etree.ElementTree, zlib, zoneinfo

libc = ctypes.CDLL(None, use_errno=True)
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))(lambda a, b: a[0] - b[0])
numbers = (ctypes.c_int * 5)(3, 1, 4, 1, 5)
libc.qsort(numbers, 5, ctypes.sizeof(ctypes.c_int), compare)
assert list(numbers) == [1, 1, 3, 4, 5] and libc.getpid() == os.getpid()
decimal.getcontext().prec = 100
assert str(decimal.Decimal(2).sqrt()).startswith("1.41421356237309504880")
for algorithm in hashlib.algorithms_guaranteed:
    digest = hashlib.new(algorithm, b"tour")
    digest.digest(32) if algorithm.startswith("shake") else digest.digest()
hashlib.scrypt(b"x", salt=b"y", n=16, r=1, p=1), hashlib.pbkdf2_hmac("sha256", b"x", b"y", 100)
assert len(secrets.token_bytes(32)) == 32 and len(os.urandom(32)) == 32 and os.getrandom(8)
assert uuid.uuid1() != uuid.uuid4() and random.SystemRandom().random() < 1
datetime.datetime.now(datetime.timezone.utc).astimezone().isoformat(), platform.platform(), platform.uname(), sysconfig.get_paths()
assert pwd.getpwuid(os.getuid()).pw_name == getpass.getuser() and grp.getgrgid(os.getgid())
locale.setlocale(locale.LC_ALL, ""), warnings.simplefilter("ignore")
tracemalloc.start()
garbage = [[] for _ in range(10000)]
garbage[0].append(garbage)
del garbage
gc.collect(), tracemalloc.get_traced_memory(), tracemalloc.stop()
assert pickle.loads(pickle.dumps({"a": [1, 2.5, None]})) == json.loads('{"a": [1, 2.5, null]}')
assert xml.etree.ElementTree.fromstring("<a><b>text</b></a>").find("b").text == "text"
assert zlib.decompress(zlib.compress(b"x" * 1000)) == b"x" * 1000 and statistics.median([3, 1, 2]) == 2
with tempfile.TemporaryDirectory() as directory:
    source = os.path.join(directory, "made.py")
    open(source, "w").write("def double(x):\n    '''\n    >>> double(2)\n    4\n    '''\n    return 2 * x\n")
    py_compile.compile(source)
    sys.path.insert(0, directory)
    import made

    assert doctest.testmod(made).failed == 0
    logging.basicConfig(filename=os.path.join(directory, "log"), level=logging.INFO)
    logging.info("logged"), logging.shutdown()
assert timeit.timeit("1 + 1", number=1000) >= 0
exec(compile(ast.parse("answer = 6 * 7"), "made up", "exec"))
assert answer == 42


class Test(unittest.TestCase):
    def test(self):
        with self.assertRaises(ZeroDivisionError):
            1 / 0


assert unittest.TextTestRunner(stream=open(os.devnull, "w")).run(unittest.defaultTestLoader.loadTestsFromTestCase(Test)).wasSuccessful()
print("done")
