puts "neighbour #{__FILE__} #{$0 == __FILE__} #{caller.size}"
VALUE = 42
