# Random numbers: as many different ones as are drawn; the same from the same seed.
require "securerandom"
p [rand, rand, Random.rand, Random.new.rand, Random.bytes(4), SecureRandom.hex, SecureRandom.uuid, Random.seed, Random.new_seed].uniq.size
srand(1)
p rand(100), [1, 2, 3, 4].shuffle, Random.new(1).rand(100), Random.seed
