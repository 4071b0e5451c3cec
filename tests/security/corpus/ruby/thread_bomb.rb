# tries: to start threads without end
# passes: the limit on processes and threads holds
# fails: there are more than 1024
# ends: pids_limit, oom
# timeout: 60
threads = []
begin
  1100.times { threads << Thread.new { sleep } }
  puts "ISOLATION fail: #{threads.size} threads"
rescue ThreadError, NoMemoryError => error
  puts "ISOLATION pass: #{error.message} after #{threads.size}"
end
$stdout.flush
exit!
