# Threads, fibers, ractors, and everything that waits.
require "monitor"
require "timeout"

def check(condition) = condition || raise("a check failed at #{caller.first}")

work, results = Queue.new, Queue.new
workers = 4.times.map { Thread.new { while (item = work.pop); results << item * item; end } }
100.times { |number| work << number }
work.close
workers.each(&:join)
check results.size.times.sum { results.pop } == (0...100).sum { _1 * _1 }
mutex, condition = Mutex.new, ConditionVariable.new
ready = false
waiter = Thread.new { mutex.synchronize { condition.wait(mutex, 5) until ready } }
mutex.synchronize { ready = true; condition.signal }
waiter.join
check SizedQueue.new(1).push(1, timeout: 1) && Monitor.new.synchronize { 1 } == 1
begin
  Timeout.timeout(0.05) { sleep }
  raise "no timeout"
rescue Timeout::Error
end
fiber = Fiber.new { |x| Fiber.yield(x + 1); :end }
check fiber.resume(1) == 2 && fiber.resume == :end
check Enumerator.produce(1) { _1 * 2 }.take(5) == [1, 2, 4, 8, 16]
$VERBOSE = nil
check 2.times.map { |n| Ractor.new(n) { |m| m * 10 } }.map(&:take) == [0, 10]
reader, writer = IO.pipe
Thread.new { sleep 0.01; writer << "x" }
check IO.select([reader], nil, nil, 5) && reader.wait_readable(1)
sleep 0.01
100_000.times { "garbage" * 3 }
GC.start
GC.compact if GC.respond_to?(:compact)
check ObjectSpace.count_objects[:TOTAL] > 0
thread = Thread.new { Thread.current.report_on_exception = false; Thread.stop }
sleep 0.01 until thread.stop?
thread.raise(IOError)
check (thread.join rescue $!.class) == IOError
puts "done"
