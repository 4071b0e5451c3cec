import ctypes; ctypes.CDLL(None).printf(b'hello'); print(4)
