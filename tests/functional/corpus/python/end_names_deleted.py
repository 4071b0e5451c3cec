import sys; del __file__; del __cached__; sys.exit(3)
