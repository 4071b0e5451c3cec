# numpy, with the modules that it brings.
import sys

import numpy as np

print(np.arange(6).reshape(2, 3).sum(axis=0))
print(np.random.default_rng(1).integers(0, 9, 3), np.random.RandomState(1).rand(2))
np.random.seed(3)
print(np.random.rand(2), np.linalg.det(np.eye(3)))
print(sorted(name for name in sys.modules if not name.startswith("numpy")))
