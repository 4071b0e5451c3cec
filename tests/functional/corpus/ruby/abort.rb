# abort with a message.
at_exit { p $!.class, $!.status }
abort "a message ünï"
