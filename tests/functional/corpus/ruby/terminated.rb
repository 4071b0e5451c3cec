# SIGTERM is an exception that ends the process by the signal.
at_exit { p $!.class }
puts "before"
Process.kill("TERM", $$)
sleep 5
