# Which signals have which handlers, handlers of the script's own, and the end by a default one.
import os
import signal
import time

for number in sorted(signal.valid_signals()):
    print(int(number), signal.getsignal(number))
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
signal.signal(signal.SIGUSR1, lambda number, frame: print("handled", number, frame.f_code.co_name))
os.kill(os.getpid(), signal.SIGUSR1)
rung = []
signal.signal(signal.SIGALRM, lambda number, frame: rung.append(print("alarm")))
signal.setitimer(signal.ITIMER_REAL, 0.01)
# It may ring before anybody could wait for it.
while not rung:
    time.sleep(0.01)
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
os.kill(os.getpid(), signal.SIGTERM)
