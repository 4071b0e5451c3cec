# Threads, and everything that waits: locks, timers, event loops.
import asyncio, concurrent.futures, contextvars, faulthandler, os, queue, sched, select, selectors, signal, socket, sys, threading, time

results, work = [], queue.Queue()


def worker():
    while (item := work.get()) is not None:
        results.append(item * item)
        work.task_done()


threads = [threading.Thread(target=worker) for _ in range(4)]
for thread in threads:
    thread.start()
for number in range(100):
    work.put(number)
work.join()
for thread in threads:
    work.put(None)
for thread in threads:
    thread.join()
assert sum(results) == sum(n * n for n in range(100))

barrier, event, semaphore = threading.Barrier(3), threading.Event(), threading.BoundedSemaphore(2)
condition, local = threading.Condition(), threading.local()
for _ in range(2):
    threading.Thread(target=lambda: (barrier.wait(), event.set())).start()
barrier.wait(), event.wait(), semaphore.acquire(), semaphore.release()
with condition:
    assert condition.wait(0.01) is False
timer = threading.Timer(0.01, event.clear)
timer.start(), timer.join()
assert not event.is_set() and threading.get_native_id() == os.getpid()
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert sorted(pool.map(abs, range(-10, 0))) == list(range(1, 11))
scheduler = sched.scheduler()
scheduler.enter(0.01, 1, results.append, (1,)), scheduler.run()
sys.setswitchinterval(0.001)
faulthandler.dump_traceback(open(os.devnull, "w")), faulthandler.dump_traceback_later(60), faulthandler.cancel_dump_traceback_later()

ours, theirs = socket.socketpair()
poll, epoll = select.poll(), select.epoll()
poll.register(ours, select.POLLIN), epoll.register(ours, select.EPOLLIN)
theirs.send(b"x")
assert poll.poll(1000) and epoll.poll(1) and select.select([ours], [], [], 1)[0]
with selectors.DefaultSelector() as selector:
    selector.register(ours, selectors.EVENT_READ)
    assert selector.select(1)
timer = os.timerfd_create(time.CLOCK_MONOTONIC)
os.timerfd_settime(timer, initial=0.01)
assert len(os.read(timer, 8)) == 8
for clock in (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_PROCESS_CPUTIME_ID, time.CLOCK_BOOTTIME):
    assert time.clock_gettime(clock) >= 0 and time.clock_getres(clock) > 0
time.sleep(0.01), time.thread_time(), time.process_time(), time.perf_counter()

variable = contextvars.ContextVar("variable", default=0)


async def tour():
    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async def say(connection):
        reader, writer = await connection
        writer.write(b"hello\n")
        answer = await reader.readline()
        writer.close()
        return answer

    tcp = await asyncio.start_server(echo, "127.0.0.1", 0)
    unix = await asyncio.start_unix_server(echo, "/tmp/tour.sock")
    address = tcp.sockets[0].getsockname()
    answers = await asyncio.gather(say(asyncio.open_connection(*address)), say(asyncio.open_unix_connection("/tmp/tour.sock")))
    assert answers == [b"hello\n"] * 2
    tcp.close(), unix.close()
    child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    assert (await child.communicate(b"through"))[0] == b"through"
    child = await asyncio.create_subprocess_shell("exit 4")
    assert await child.wait() == 4
    assert await asyncio.to_thread(lambda: 5) == 5
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, heard.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(heard.wait(), 5)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0.01, n)) for n in range(20)]
    assert sum(task.result() for task in tasks) == 190
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)
    except TimeoutError:
        return await loop.getaddrinfo("localhost", 80)


assert asyncio.run(tour())
print("done")
