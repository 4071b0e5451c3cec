# The depth at which recursion ends, and the error that nobody handles.
import sys


def depth(number):
    try:
        return depth(number + 1)
    except RecursionError:
        return number


print(depth(0))
frame, frames = sys._getframe(), 0
while frame:
    frame, frames = frame.f_back, frames + 1
print(frames)


def forever():
    forever()


forever()
