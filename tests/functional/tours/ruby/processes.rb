# Processes: started, talked to, waited for, signalled.
require "etc"
require "open3"
require "pty"

def check(condition) = condition || raise("a check failed at #{caller.first}")

check `echo shell` == "shell\n" && system("exit 3") == false && $?.exitstatus == 3
check Open3.capture3({ "X" => "1" }, "cat; echo $X; pwd >&2", stdin_data: "in\n", chdir: "/tmp")[0, 2] == ["in\n1\n", "/tmp\n"]
child = fork { exit!(7) }
check Process.wait2(child)[1].exitstatus == 7
child = spawn("sleep 60", pgroup: true, out: File::NULL, unsetenv_others: true, rlimit_core: 0)
Process.kill(:KILL, child)
check Process.detach(child).value.termsig == Signal.list["KILL"]
IO.popen(["tr", "a-z", "A-Z"], "r+") do |pipe|
  pipe.write("piped")
  pipe.close_write
  check pipe.read == "PIPED"
end
PTY.spawn("sh", "-c", "test -t 0 && read line && echo got $line") do |output, input, pid|
  input.puts("typed")
  shown = +""
  shown << output.readpartial(1000) until shown.include?("got typed")
  Process.wait(pid)
end
heard = Queue.new
trap(:USR1) { heard << 1 }
Process.kill(:USR1, Process.pid)
check heard.pop == 1
reader, writer = IO.pipe
child = fork do
  reader.close
  writer.puts(Process.ppid)
  exec("true")
end
writer.close
check reader.read.to_i == Process.pid
Process.wait(child)
Process.setpriority(Process::PRIO_PROCESS, 0, 1)
Process.setrlimit(:CORE, 0)
check Process.clock_gettime(Process::CLOCK_MONOTONIC) > 0 && Process.getpgid(0) > 0 && Process.getsid > 0
check Etc.getpwuid.uid == Process.uid && Etc.uname[:sysname] == "Linux" && Etc.nprocessors > 0
check Process.times.utime >= 0 && Process.groups && Process.warmup
puts "done"
