# Threads, a pool of them, and an event loop.
import asyncio
import concurrent.futures
import queue
import threading

print(threading.active_count(), threading.main_thread().name, threading.current_thread() is threading.main_thread())
numbers = queue.Queue()
threads = [threading.Thread(target=numbers.put, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(numbers.queue), [thread.name for thread in threads])
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    print(list(pool.map(str, range(5))))


async def main():
    await asyncio.sleep(0.01)
    process = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
    print(await process.communicate(), asyncio.current_task().get_name())


asyncio.run(main())


def fail():
    raise RuntimeError("in a thread")


thread = threading.Thread(target=fail, name="failing")
thread.start()
thread.join()
