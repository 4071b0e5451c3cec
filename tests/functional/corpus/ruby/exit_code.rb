# Exit codes and what runs at the end, the last first.
at_exit { puts "first" }
at_exit { puts "last #{$!.status}"; exit 5 }
END { puts "END" }
BEGIN { puts "BEGIN" }
ObjectSpace.define_finalizer("x".dup, proc { puts "finalized" })
begin
  exit 3
ensure
  puts "ensure"
end
