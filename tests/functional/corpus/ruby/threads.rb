# Threads, queues, fibers, an exception in a thread.
require "timeout"
queue = Queue.new
threads = 4.times.map { |number| Thread.new { queue << number * 2 } }
threads.each(&:join)
p queue.size.times.map { queue.pop }.sort, Thread.list.size
fiber = Fiber.new { Fiber.yield 1; 2 }
p fiber.resume, fiber.resume, fiber.alive?
begin
  Timeout.timeout(0.05) { sleep 5 }
rescue Timeout::Error => error
  p error
end
p Ractor.count
# The report would print an address.
thread = Thread.new { Thread.current.report_on_exception = false; raise "in a thread" }
begin
  thread.join
rescue => error
  p error.message
end
