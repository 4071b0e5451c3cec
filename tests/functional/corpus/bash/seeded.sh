# RANDOM follows its seed, differs by itself, and is an integer.
RANDOM=1
echo $RANDOM $RANDOM
declare -p RANDOM | sed 's/[0-9]\{1,\}/N/'
echo $(( $(for _ in 1 2 3 4 5 6; do echo $RANDOM; done | sort -u | wc -l) > 1 ))
((SECONDS < 5)) && echo soon
sleep 1.1
((SECONDS >= 1 && SECONDS < 6)) && echo later
