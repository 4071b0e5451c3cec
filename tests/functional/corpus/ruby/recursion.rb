# Recursion without an end.
def depth(number) = depth(number + 1)

begin
  depth(0)
rescue SystemStackError => error
  p error.message, error.backtrace.size > 1000
end
p caller_locations(0).map(&:to_s)
throw :absent
