# numpy, where there is one.
try:
    import numpy
except ImportError:
    print("no numpy")
else:
    numpy.random.seed(1)
    print(numpy.arange(6).reshape(2, 3) @ numpy.ones(3), numpy.random.rand(), numpy.linalg.inv(numpy.eye(2)))
    print(numpy.float64(1) / 0, numpy.geterr())
    numpy.array([1, 2]) + numpy.array([1, 2, 3])
