# Handlers by default, handlers of the script's own, and the end by a default one.
%w[INT TERM USR1 HUP CHLD PIPE ALRM EXIT].each { |name| previous = trap(name, "DEFAULT"); p [name, previous] }
trap("USR1") { |number| puts "handled #{number}" }
Process.kill("USR1", $$)
sleep 0.05
begin
  Process.kill("INT", $$)
  sleep 1
rescue Interrupt => error
  p error
end
Process.kill("KILL", $$)
