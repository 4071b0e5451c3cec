require_relative "../neighbour"
puts "inner #{__dir__}"
