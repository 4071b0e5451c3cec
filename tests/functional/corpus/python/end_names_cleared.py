import sys
def f(): raise SystemExit(4)
globals().clear(); import sys; sys.exit(5)
