# More than any pipe holds, on both streams.
20_000.times do |number|
  puts "line #{number} #{"x" * 50}"
  warn number if (number % 100).zero?
end
