# Processes: started, talked to, waited for, signalled.
import concurrent.futures, ctypes, multiprocessing, multiprocessing.shared_memory, os, pty, resource, select, signal, subprocess, sys, time


def square(number):
    return number * number


def talk(queue, connection, value, lock):
    with lock:
        value.value += 1
    queue.put(os.getpid())
    connection.send("sent")


if __name__ == "__main__":
    assert subprocess.check_output(["sh", "-c", "echo $X; pwd"], env={"X": "1"}, cwd="/tmp") == b"1\n/tmp\n"
    assert subprocess.run("cat | tr a-z A-Z", shell=True, input="piped", text=True, capture_output=True).stdout == "PIPED"
    assert subprocess.run(["sh", "-c", "kill -TERM $$"]).returncode == -signal.SIGTERM
    try:
        subprocess.run(["sleep", "60"], timeout=0.3)
        raise SystemExit("no timeout")
    except subprocess.TimeoutExpired:
        pass
    child = subprocess.Popen([sys.executable, "-Sc", "print(1)"], start_new_session=True, preexec_fn=os.getpid, stdout=subprocess.PIPE)
    assert child.communicate()[0] == b"1\n"

    child = os.fork()
    if child == 0:
        os._exit(7)
    handle = os.pidfd_open(child)
    select.select([handle], [], [])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], os.environ)
    assert os.waitid(os.P_PID, child, os.WEXITED).si_status == 3
    child = subprocess.Popen(["sleep", "60"])
    signal.pidfd_send_signal(os.pidfd_open(child.pid), signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL

    child, terminal = pty.fork()
    if child == 0:
        os.execvp("sh", ["sh", "-c", "test -t 0 && stty size && read line && echo got $line"])
    os.write(terminal, b"typed\n")
    shown = b""
    while b"got typed" not in shown:
        shown += os.read(terminal, 1000)
    os.waitpid(child, 0)

    heard = []
    signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    os.kill(os.getpid(), signal.SIGUSR1), signal.raise_signal(signal.SIGUSR1)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    os.kill(os.getpid(), signal.SIGUSR2)
    assert signal.SIGUSR2 in signal.sigpending() and signal.sigwait([signal.SIGUSR2]) == signal.SIGUSR2
    signal.signal(signal.SIGALRM, lambda *_: heard.append(2))
    signal.setitimer(signal.ITIMER_REAL, 0.05), signal.pause()
    assert heard == [1, 1, 2]
    assert os.getpgid(0) and os.getsid(0) and os.getpriority(os.PRIO_PROCESS, 0) >= 0
    os.nice(1), os.sched_yield(), os.sched_setaffinity(0, os.sched_getaffinity(0)), resource.getrusage(resource.RUSAGE_CHILDREN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0)), os.times(), os.getloadavg(), os.sched_getscheduler(0)

    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue, (ours, theirs) = context.Queue(), context.Pipe()
        value, lock = context.Value(ctypes.c_int, 0), context.Lock()
        child = context.Process(target=talk, args=(queue, theirs, value, lock))
        child.start()
        assert queue.get() == child.pid and ours.recv() == "sent"
        child.join()
        assert (child.exitcode, value.value) == (0, 1)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(square, range(10)) == [square(n) for n in range(10)]
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        assert sum(pool.map(square, range(4))) == 14
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
    memory.buf[:3] = b"abc"
    memory.close(), memory.unlink()
    print("done")
