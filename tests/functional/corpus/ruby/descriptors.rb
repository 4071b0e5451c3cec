# Open descriptors and threads: as many as ever, and the first to be opened has the same number.
file = File.open("/dev/null")
p file.fileno, Dir.children("/proc/self/fd").map(&:to_i).sort
puts File.readlines("/proc/self/status").grep(/^(Threads|Sig|Shd|NoNew)/)
p ObjectSpace.each_object(IO).reject(&:closed?).map(&:inspect).sort
p Process.getrlimit(:NOFILE), $stdout.close_on_exec?
