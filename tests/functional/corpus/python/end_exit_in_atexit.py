import atexit, functools, sys; atexit.register(functools.partial(sys.exit, 3)); print(1)
