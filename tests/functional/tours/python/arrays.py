# numpy with all that it starts: BLAS threads, memory maps, files.
import tempfile

import numpy

matrix = numpy.random.default_rng(1).random((200, 200))
assert numpy.allclose(matrix @ numpy.linalg.inv(matrix), numpy.eye(200), atol=1e-6)
values, vectors = numpy.linalg.eigh(matrix + matrix.T)
assert values.shape == (200,) and numpy.linalg.svd(matrix, compute_uv=False).min() > 0
assert numpy.allclose(numpy.fft.ifft(numpy.fft.fft(matrix[0])).real, matrix[0])
with tempfile.NamedTemporaryFile(suffix=".npy") as file:
    mapped = numpy.lib.format.open_memmap(file.name, "w+", dtype="f8", shape=(1000, 100))
    mapped[:] = 3
    mapped.flush()
    assert numpy.load(file.name, mmap_mode="r").sum() == 300_000
with tempfile.TemporaryFile() as file:
    numpy.savez_compressed(file, a=matrix)
    file.seek(0)
    assert (numpy.load(file)["a"] == matrix).all()
# More than malloc keeps in its arenas, and on huge pages where there are any.
assert numpy.zeros(8 << 20, dtype=numpy.uint8).sum() == 0
assert numpy.sort(numpy.random.random(100_000))[0] >= 0
print("done")
