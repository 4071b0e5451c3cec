# Standard input: gets of ARGF and of STDIN, lines, the end. What is in ARGV are files to ARGF.
ARGV.clear
p gets, $., STDIN.gets, $stdin.each_line.to_a, gets, $stdin.eof?, $stdin.tty?, $stdin.external_encoding
