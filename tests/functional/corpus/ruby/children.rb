# Children: fork, system, backticks, popen, a thread that waits, an interpreter as a child.
require "open3"
require "rbconfig"
$stdout.puts "parent"
pid = fork { puts "child"; exit! 5 }
Process.wait(pid)
p $?.exitstatus
p system("exit 4"), $?.exitstatus, `echo out`, system("absent-command")
p Open3.capture3("cat; echo err >&2", stdin_data: "in").first(2)
p IO.popen(["cat"], "r+") { |io| io.puts("through"); io.close_write; io.read }
puts Open3.capture2e(RbConfig.ruby, "-e", "p ARGV, $0, ENV.keys.sort, $stdout.sync", "x").first
puts `ls /proc/self/fd`
exec "echo", "replaced"
