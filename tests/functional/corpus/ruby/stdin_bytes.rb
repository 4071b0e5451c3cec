# Standard input: at once, from its start again, by bytes, a child's.
p $stdin.read
$stdin.rewind
p $stdin.readpartial(6), $stdin.pos, $stdin.stat.size
$stdin.rewind
p IO.popen("cat", in: $stdin, &:read)
p STDIN.sysseek(6), STDIN.sysread(6)
