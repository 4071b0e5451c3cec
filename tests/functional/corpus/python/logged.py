# Modules with a state: logging and its clock, temporary names, decimal's context, interpreters of its own.
import decimal
import gc
import logging
import random
import sys
import tempfile
import uuid

logging.basicConfig(format="%(levelname)s %(name)s %(module)s %(message)s", stream=sys.stdout)
logging.warning("logged")
record = logging.LogRecord("n", 10, "p", 1, "m", (), None)
print(0 <= record.relativeCreated < 60_000, logging.getLogger().handlers)
print(tempfile.gettempdir(), decimal.getcontext(), gc.isenabled(), gc.get_threshold())
random.seed(1)
print(random.random(), uuid.uuid5(uuid.NAMESPACE_DNS, "x"))
try:
    import _interpreters
except ImportError:
    sys.exit()
interpreter = _interpreters.create()
code = "import sys, os; print(sys.path, sys.modules.get('sitecustomize'), 'GUEST_RUNNER_PARK' in os.environ, flush=True)"
print(_interpreters.run_string(interpreter, code))
