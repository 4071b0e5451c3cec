at_exit { puts "never" }
puts "before"
exit! 3
