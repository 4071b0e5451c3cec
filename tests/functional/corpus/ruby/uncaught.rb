# An exception that nobody handles, with a cause.
at_exit { puts "at_exit #{$!.class}" }
def divide(number) = 1 / number

begin
  divide(0)
rescue ZeroDivisionError
  raise ArgumentError, "ünï\nsecond line"
end
