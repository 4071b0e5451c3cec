# The environment, its order, and what a child has of it.
p ENV.to_a, ENV.keys.map(&:encoding).uniq, ENV["GUEST_RUNNER_PARK"], ENV.frozen?, ENV.first.map(&:frozen?)
puts `env`
p Time.at(0).to_s, Time.at(0).zone
ENV["LATER"] = "1"
ENV.delete("JOB_VARIABLE")
p `echo $LATER $JOB_VARIABLE`, Dir.home
