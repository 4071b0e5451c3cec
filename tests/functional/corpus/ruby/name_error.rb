# A name that nearly exists: suggestions and the marked place.
value = 42
puts "before"
puts valeu
