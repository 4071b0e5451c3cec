# KeyboardInterrupt that nobody handles ends the process by the signal.
import signal

print("before")
signal.raise_signal(signal.SIGINT)
