# An exception that nobody handles, with a cause, a note and a group.
def divide(number):
    return 1 / number


def outer():
    try:
        divide(0)
    except ZeroDivisionError as error:
        error.add_note("a note")
        raise ExceptionGroup("several", [ValueError("one"), KeyError("two")]) from error


print("before")
outer()
