# tries: to end the runner and everything else with signals
# passes: PID 1 and the runner live, and the answer comes
# fails: a signal is delivered to PID 1, or no answer comes
reasons = []
begin
  Process.kill('KILL', 1)
  puts 'ISOLATION fail: a signal was sent to PID 1'
  exit!
rescue SystemCallError => error
  reasons << error.class.name
end
fork { sleep } # What everything means for this job.
%w[TERM HUP USR1].each { |name| trap(name) {} }
%w[TERM HUP USR1].each do |name|
  begin
    Process.kill(name, -1)
  rescue SystemCallError => error
    reasons << error.class.name
  end
end
alive = File.exist?('/proc/1')
puts alive ? "ISOLATION pass: #{reasons.uniq.join(', ')}, and PID 1 lives" : 'ISOLATION fail: PID 1 is gone'
$stdout.flush
exit!
